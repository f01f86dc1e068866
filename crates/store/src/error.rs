//! What can go wrong between a path and its weights; every message names the path and what to do.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a model's weights cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the messages say what the variants and their fields are
pub enum Error {
    #[error("{}: there is no such file", path.display())]
    NotFound { path: PathBuf },
    #[error("{}: this is a folder; name a .gguf file in it", path.display())]
    Directory { path: PathBuf },
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error(
        "{}: missing: the model is split into {count} files, and all must lie in one folder",
        path.display()
    )]
    MissingPart { path: PathBuf, count: usize },
    #[error("{}: {source}", path.display())]
    Gguf { path: PathBuf, source: cachalot_gguf::Error },
    #[error(transparent)]
    Set(#[from] cachalot_gguf::Error),
    #[error(
        "{}: no memory for its {size} bytes ({source}): leave it mapped, or take a smaller \
         quantization",
        path.display()
    )]
    Memory { path: PathBuf, size: u64, source: std::io::Error },
    #[error("{}: the file became shorter while it was read: is something writing it?", path.display())]
    Shrunk { path: PathBuf },
    #[error("{}: {what} cannot be read: {source}", path.display())]
    Expert { path: PathBuf, what: String, source: std::io::Error },
    #[error(
        "{}: {what}: somebody has written to the file since it was opened: load the model again",
        path.display()
    )]
    Changed { path: PathBuf, what: String },
    #[error(
        "{}: {what}: the drive has delivered nothing for {seconds} seconds: is it there, and well?",
        path.display()
    )]
    Stalled { path: PathBuf, what: String, seconds: f64 },
    #[error("no memory for {size} bytes of experts ({source}): allow less with --memory")]
    CacheMemory { size: u64, source: std::io::Error },
    #[error("tensor `{tensor}` is no stack of {count} equal matrices")]
    NoStack { tensor: String, count: usize },
    #[error("this is no trace of routing: {what}")]
    Trace { what: String },
    #[error("loading was stopped")]
    Stopped,
}

impl Error {
    pub(crate) fn unreadable(path: &Path, source: std::io::Error) -> Self {
        Self::Unreadable { path: path.to_owned(), source }
    }

    pub(crate) fn stalled(path: &Path, what: &str, patience: Duration) -> Self {
        let (path, what) = (path.to_owned(), what.to_owned());
        Self::Stalled { path, what, seconds: patience.as_secs_f64() }
    }
}
