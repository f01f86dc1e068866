//! A manifest of the library: one JSON file for a model, written whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Model, ModelFile, Place, digest_of};
use crate::error::at;
use crate::{Error, Name, Sha256};

const VERSION: u32 = 1;
/// No manifest is longer.
const BYTES_MAX: u64 = 16 << 20;

/// What a file of a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The model, or one part of it.
    Model,
    /// Ollama's sampling parameters, JSON.
    Params,
    /// Ollama's chat template, in Go's language.
    Template,
    /// A system prompt.
    System,
    /// A licence.
    License,
    /// Ollama's description of the model, JSON.
    Config,
}

/// A model as its manifest has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    pub(crate) name: String,
    imported: bool,
    /// Seconds since 1970.
    added: u64,
    pub(crate) files: Vec<FileRecord>,
}

/// A file as a manifest has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    /// Within the library's folder, or absolute.
    pub(crate) path: String,
    pub(crate) name: String,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) sha256: Option<Sha256>,
    #[serde(default)]
    pub(crate) modified_ns: Option<u64>,
    pub(crate) role: Role,
}

impl Record {
    /// The record of a model under this name.
    pub(crate) fn of(name: &Name, model: &Model, root: &Path) -> Self {
        let files = model.files.iter().map(|file| {
            let path = file.path.strip_prefix(root).unwrap_or(&file.path);
            FileRecord {
                path: path.to_string_lossy().into_owned(),
                name: file.name.clone(),
                size: file.size,
                sha256: file.sha256,
                modified_ns: file.modified_ns,
                role: file.role,
            }
        });
        Self {
            version: VERSION,
            name: name.to_string(),
            imported: model.place != Place::Library,
            added: seconds(SystemTime::now()),
            files: files.collect(),
        }
    }

    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let bytes = read_bounded(path, BYTES_MAX)?;
        Self::parse(&bytes).map_err(|reason| Error::Broken { path: path.to_owned(), reason })
    }

    /// Reads a manifest, and checks that none of its paths leads out of the library by `..`.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let record: Self = serde_json::from_slice(bytes)
            .map_err(|error| format!("it is not a valid manifest ({error}): remove it"))?;
        if record.version != VERSION {
            let version = record.version;
            return Err(format!("it has version {version}, which a later program wrote"));
        }
        for file in &record.files {
            let path = Path::new(&file.path);
            let mut parts = path.components();
            if file.path.is_empty() || parts.any(|part| part == Component::ParentDir) {
                return Err(format!("`{}` is not a valid path", file.path.escape_debug()));
            }
            if !is_file_name(&file.name) {
                return Err(format!("`{}` is not a valid file name", file.name.escape_debug()));
            }
        }
        if record.files.iter().all(|file| file.role != Role::Model) {
            return Err("it names no file of a model: remove it".to_owned());
        }
        let sum = record.files.iter().try_fold(0u64, |sum, file| sum.checked_add(file.size));
        sum.ok_or("its sizes are too large")?;
        Ok(record)
    }

    /// The model, with paths that lead to its files.
    pub(crate) fn model(&self, root: &Path) -> Result<Model, Error> {
        let files: Vec<ModelFile> = self
            .files
            .iter()
            .map(|file| ModelFile {
                path: root.join(&file.path),
                name: file.name.clone(),
                size: file.size,
                sha256: file.sha256,
                role: file.role,
                modified_ns: file.modified_ns,
            })
            .collect();
        Ok(Model {
            name: self.name.parse()?,
            place: if self.imported { Place::Imported } else { Place::Library },
            digest: digest_of(&files),
            files,
            modified: UNIX_EPOCH + Duration::from_secs(self.added.min(u64::from(u32::MAX))),
        })
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let json = serde_json::to_vec_pretty(self).expect("a record is plain data");
        write_atomically(path, &json)
    }
}

/// A name that stays within its folder and has no control characters.
pub(crate) fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !name.starts_with('.')
        && !name.contains(['/', '\\'])
        && !name.chars().any(char::is_control)
}

/// When a file was changed, in nanoseconds since 1970.
pub(crate) fn modified_ns(metadata: &fs::Metadata) -> Option<u64> {
    let since = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// All of a small file.
pub(crate) fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    use std::io::Read;
    // Opening a pipe would wait for a writer.
    if !fs::metadata(path).map_err(at(path))?.is_file() {
        let reason = "it is not a regular file".to_owned();
        return Err(Error::Broken { path: path.to_owned(), reason });
    }
    let file = File::open(path).map_err(at(path))?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(at(path))?;
    if bytes.len() as u64 > most {
        let reason = format!("it is longer than {most} bytes");
        return Err(Error::Broken { path: path.to_owned(), reason });
    }
    Ok(bytes)
}

/// Replaces a small file so that it has the old or the new content after a crash at any point: the
/// new file is written and synchronized, then renamed, then its folder is synchronized.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(at(folder))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary: PathBuf = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    let written = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    };
    written().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        at(path)(error)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        let with = |path: &str, name: &str| {
            let file = FileRecord {
                path: path.to_owned(),
                name: name.to_owned(),
                size: 1,
                sha256: None,
                modified_ns: None,
                role: Role::Model,
            };
            let (name, files) = ("a/b".to_owned(), vec![file]);
            let record = Record { version: 1, name, imported: false, added: 0, files };
            Record::parse(&serde_json::to_vec(&record).unwrap())
        };
        assert!(with("files/x.gguf", "x.gguf").is_ok());
        assert!(with("/models/x.gguf", "x.gguf").is_ok(), "imported");
        for (path, name) in
            [("../x", "x"), ("a/../../x", "x"), ("", "x"), ("x", "a/b"), ("x", ".x"), ("x", "\n")]
        {
            assert!(with(path, name).is_err(), "{path} {name}");
        }
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.json");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(read_bounded(&path, 3).unwrap(), b"two");
        assert!(read_bounded(&path, 2).is_err());
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(read_bounded(&pipe, 2).is_err(), "and it is not waited for");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::parse(&bytes);
        }
    }
}
