//! Models split into several files, `NAME-00001-of-00009.gguf` and so on: found, checked, joined.
//!
//! Every part is a GGUF with `split.no`, `split.count` and `split.tensors.count`; the first one
//! holds the metadata. Parts of different downloads are easily mixed up in one folder, and a model
//! of mixed parts would answer nonsense without any error, so everything that can reveal it is
//! checked.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::header::MAGIC;
use crate::value::Optional;
use crate::{Error, Gguf, Metadata, TensorInfo};

const SPLIT_NO: &str = "split.no";
const SPLIT_COUNT: &str = "split.count";
const SPLIT_TENSORS: &str = "split.tensors.count";

/// A file name of the form `STEM-NUMBER-of-COUNT.gguf`, both numbers of five digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartName {
    /// The part of the name before the numbers.
    pub stem: String,
    /// Which part, from 1.
    pub number: u32,
    /// Of how many.
    pub count: u32,
}

impl PartName {
    /// Parses a file name; `None` if it is not that of a part.
    pub fn parse(file_name: &str) -> Option<Self> {
        let (rest, count) = file_name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let (number, count) = (five_digits(number)?, five_digits(count)?);
        let part = Self { stem: stem.to_owned(), number, count };
        (1..=count).contains(&number).then_some(part)
    }

    /// The file name of part `number`, from 1.
    pub fn file_name(&self, number: u32) -> String {
        format!("{}-{number:05}-of-{:05}.gguf", self.stem, self.count)
    }
}

fn five_digits(text: &str) -> Option<u32> {
    let digits = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// The paths of all parts, in order, from that of any part; only `path` for an unsplit file. A file
/// whose metadata do not call it a part is not one, whatever its name.
pub fn part_paths(path: &Path) -> Vec<PathBuf> {
    let part = path.file_name().and_then(|name| PartName::parse(name.to_str()?));
    let is_whole = || {
        let count = |gguf: Gguf| gguf.metadata.u64(SPLIT_COUNT).unwrap_or(1);
        Gguf::open(path).is_ok_and(|gguf| count(gguf) <= 1)
    };
    match part {
        Some(part) if part.count == 1 || !is_whole() => {
            (1..=part.count).map(|n| path.with_file_name(part.file_name(n))).collect()
        }
        _ => vec![path.to_owned()],
    }
}

/// A model: one file, or all parts of a split one, joined into one description.
#[derive(Debug, Clone, PartialEq)]
pub struct Set {
    /// The first part's metadata.
    pub metadata: Metadata,
    /// Every tensor with the index of its part, part by part in file order.
    pub tensors: Vec<PartTensor>,
    /// The parts, in order.
    pub parts: Vec<Part>,
}

/// A tensor and the part that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartTensor {
    /// Index into [`Set::parts`].
    pub part: usize,
    /// The tensor; its offset is relative to that part.
    pub info: TensorInfo,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its path.
    pub path: PathBuf,
    /// Bytes before its tensors.
    pub data_offset: u64,
    /// Alignment of its tensors in bytes.
    pub alignment: u64,
}

impl Set {
    /// Describes the model that `path` belongs to: a whole file, or any part of a split one.
    ///
    /// # Errors
    /// [`Error::MissingPart`], [`Error::ForeignPart`], [`Error::PartName`], or what is wrong with a
    /// part; each names the file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let paths = part_paths(path);
        let count = paths.len() as u32;
        let mut parts = Vec::with_capacity(paths.len());
        for path in paths {
            if count > 1 && !path.exists() {
                return Err(Error::MissingPart { path, count });
            }
            let gguf = Gguf::open(&path)?;
            parts.push((path, gguf));
        }
        Self::merge(parts)
    }

    /// Joins parsed parts, given in order.
    ///
    /// # Errors
    /// [`Error::ForeignPart`] or [`Error::PartName`] if the parts are not those of one model.
    ///
    /// # Panics
    /// If `parts` is empty.
    pub fn merge(parts: Vec<(PathBuf, Gguf)>) -> Result<Self, Error> {
        assert!(!parts.is_empty(), "a model has at least one part");
        for (path, gguf) in &parts {
            check_joined(path, gguf)?;
        }
        check_numbers(&parts)?;
        check_metadata(&parts)?;
        check_tensors(&parts)?;
        let metadata = parts[0].1.metadata.clone();
        let mut set = Self { metadata, tensors: Vec::new(), parts: Vec::new() };
        for (part, (path, gguf)) in parts.into_iter().enumerate() {
            let Gguf { tensors, data_offset, alignment, .. } = gguf;
            set.tensors.extend(tensors.into_iter().map(|info| PartTensor { part, info }));
            set.parts.push(Part { path, data_offset, alignment });
        }
        Ok(set)
    }

    /// The tensor of this name, with its part.
    pub fn tensor(&self, name: &str) -> Option<&PartTensor> {
        self.tensors.iter().find(|tensor| tensor.info.name == name)
    }
}

fn foreign(path: &Path, reason: String) -> Error {
    Error::ForeignPart { path: path.to_owned(), reason }
}

/// A part that is followed by another GGUF was joined with it by `cat`.
fn check_joined(path: &Path, gguf: &Gguf) -> Result<(), Error> {
    let count = gguf.metadata.u64(SPLIT_COUNT).optional()?.unwrap_or(1);
    let ends = gguf.tensors.iter().map(TensorInfo::end).chain([gguf.data_offset]);
    let end = ends.max().unwrap_or(0);
    let mut after = Vec::new();
    if count > 1
        && let Ok(mut file) = File::open(path)
        && file.seek(SeekFrom::Start(end)).is_ok()
    {
        // The next part follows the padding of the last tensor.
        file.take(gguf.alignment.min(4096) + 4).read_to_end(&mut after)?;
        if after.windows(4).any(|bytes| bytes == MAGIC) {
            return Err(Error::JoinedParts { path: path.to_owned(), count });
        }
    }
    Ok(())
}

/// The number in each part's metadata must be that of its name.
fn check_numbers(parts: &[(PathBuf, Gguf)]) -> Result<(), Error> {
    let whole = parts.len() as u64;
    for (index, (path, gguf)) in parts.iter().enumerate() {
        let no = gguf.metadata.u64(SPLIT_NO).optional()?;
        let count = gguf.metadata.u64(SPLIT_COUNT).optional()?.unwrap_or(1);
        if whole == 1 && count > 1 {
            let number = no.unwrap_or(0).saturating_add(1);
            return Err(Error::PartName { path: path.clone(), number, count });
        }
        if whole > 1 && count != whole {
            let said = format!("it says `{SPLIT_COUNT}` {count}, its name {whole}");
            return Err(foreign(path, said));
        }
        if whole > 1 && no != Some(index as u64) {
            let said =
                no.map_or("no part".to_owned(), |no| format!("part {}", no.saturating_add(1)));
            let said = format!("it says it is {said} of {whole}, its name part {}", index + 1);
            return Err(foreign(path, said));
        }
    }
    Ok(())
}

/// Metadata that a later part repeats must equal the first part's.
fn check_metadata(parts: &[(PathBuf, Gguf)]) -> Result<(), Error> {
    let first = &parts[0].1.metadata;
    for (path, gguf) in &parts[1..] {
        for (key, value) in gguf.metadata.iter().filter(|(key, _)| *key != SPLIT_NO) {
            if first.get(key).is_some_and(|expected| expected != value) {
                return Err(foreign(path, format!("its `{key}` differs from the first part's")));
            }
        }
    }
    Ok(())
}

/// No tensor may appear twice, and their number must be that of the metadata.
fn check_tensors(parts: &[(PathBuf, Gguf)]) -> Result<(), Error> {
    let mut seen: HashMap<&str, &Path> = HashMap::new();
    for (path, gguf) in parts {
        for tensor in &gguf.tensors {
            if let Some(other) = seen.insert(&tensor.name, path) {
                let reason = format!("tensor `{}` is also in {}", tensor.name, other.display());
                return Err(foreign(path, reason));
            }
        }
    }
    let Some(expected) = parts[0].1.metadata.u64(SPLIT_TENSORS).optional()? else { return Ok(()) };
    if parts.len() > 1 && expected != seen.len() as u64 {
        let reason =
            format!("the set should have {expected} tensors, its parts have {}", seen.len());
        return Err(foreign(&parts[0].0, reason));
    }
    Ok(())
}
