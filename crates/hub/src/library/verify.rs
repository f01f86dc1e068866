//! Whether a model's files are those that were pulled.

use std::fs::{self, File};

use super::{Library, Model, ModelFile, modified_ns};
use crate::{Error, Name, Sha256};

/// How a file was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Size and time are those recorded; with `deep`, the hash is, too.
    Good,
    /// Its hash was computed, but nothing is known to compare it with.
    Unknown(Sha256),
    /// It is not there, or cannot be read.
    Missing(String),
    /// It has another size.
    Size {
        /// As recorded.
        expected: u64,
        /// Now.
        found: u64,
    },
    /// It has been written to since it was pulled; `--deep` says whether that matters.
    Touched,
    /// Its content is another.
    Hash {
        /// As recorded.
        expected: Sha256,
        /// Now.
        found: Sha256,
    },
}

impl Verdict {
    /// Whether the file can be relied on.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Good | Self::Unknown(_))
    }
}

/// How far a deep look has come.
#[derive(Clone, Copy, Debug)]
pub struct VerifyProgress {
    /// Bytes read of all files.
    pub done: u64,
    /// Bytes of all files.
    pub total: u64,
}

impl Library {
    /// Looks at every file of a model. Without `deep` it trusts size, time and the recorded hash;
    /// with it every byte is read. `progress` returns whether to go on.
    ///
    /// # Errors
    /// [`Error::NotHere`]; [`Error::Cancelled`] once `progress` returns false.
    pub fn verify(
        &self,
        name: &Name,
        deep: bool,
        progress: &mut dyn FnMut(VerifyProgress) -> bool,
    ) -> Result<Vec<(ModelFile, Verdict)>, Error> {
        let model = self.find(name)?;
        let model = model.ok_or_else(|| Error::NotHere { name: name.to_string() })?;
        verify(&model, deep, progress)
    }
}

fn verify(
    model: &Model,
    deep: bool,
    progress: &mut dyn FnMut(VerifyProgress) -> bool,
) -> Result<Vec<(ModelFile, Verdict)>, Error> {
    let total = model.size();
    let mut before = 0;
    let mut verdicts = Vec::new();
    for file in &model.files {
        let mut seen = |done: u64| progress(VerifyProgress { done: before + done, total });
        let verdict = match by_metadata(file) {
            Verdict::Good | Verdict::Touched if deep => match by_content(file, &mut seen) {
                Ok(verdict) => verdict,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                    return Err(Error::Cancelled);
                }
                Err(error) => Verdict::Missing(error.to_string()),
            },
            verdict => verdict,
        };
        before += file.size;
        verdicts.push((file.clone(), verdict));
    }
    Ok(verdicts)
}

fn by_metadata(file: &ModelFile) -> Verdict {
    match fs::metadata(&file.path) {
        Err(error) => Verdict::Missing(error.to_string()),
        Ok(found) if found.len() != file.size => {
            Verdict::Size { expected: file.size, found: found.len() }
        }
        Ok(found) => match (file.modified_ns, modified_ns(&found)) {
            (Some(then), Some(now)) if then != now => Verdict::Touched,
            _ => Verdict::Good,
        },
    }
}

fn by_content(file: &ModelFile, seen: &mut dyn FnMut(u64) -> bool) -> std::io::Result<Verdict> {
    let found = Sha256::of_reader(File::open(&file.path)?, seen)?;
    Ok(match file.sha256 {
        None => Verdict::Unknown(found),
        Some(expected) if expected == found => Verdict::Good,
        Some(expected) => Verdict::Hash { expected, found },
    })
}
