//! Errors of opening and reading weights; every message names the path and what to do.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the messages say what the variants and their fields are
pub enum Error {
    #[error("{}: no such file", path.display())]
    NotFound { path: PathBuf },
    #[error("{}: is a folder; name a .gguf file in it", path.display())]
    Directory { path: PathBuf },
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error(
        "{}: missing: the model is split into {count} files, which must all be in one folder",
        path.display()
    )]
    MissingPart { path: PathBuf, count: usize },
    #[error("{}: {source}", path.display())]
    Gguf { path: PathBuf, source: cachalot_gguf::Error },
    #[error(transparent)]
    Set(#[from] cachalot_gguf::Error),
    #[error(
        "{}: no memory for its {size} bytes ({source}): leave it mapped, or use a smaller \
         quantization",
        path.display()
    )]
    Memory { path: PathBuf, size: u64, source: std::io::Error },
    #[error("{}: the file became shorter while it was read: is another program writing to it?", path.display())]
    Shrunk { path: PathBuf },
    #[error("{}: {what} cannot be read: {source}", path.display())]
    Expert { path: PathBuf, what: String, source: std::io::Error },
    #[error(
        "{}: {what}: the file changed since it was opened: load the model again",
        path.display()
    )]
    Changed { path: PathBuf, what: String },
    #[error(
        "{}: {what}: drive not responding for {seconds} seconds: is it connected and healthy?",
        path.display()
    )]
    Stalled { path: PathBuf, what: String, seconds: f64 },
    #[error("no memory for {size} bytes of experts ({source}): allow less with --memory")]
    CacheMemory { size: u64, source: std::io::Error },
    #[error("tensor `{tensor}` does not divide into {count} equal matrices that can be streamed")]
    NotStacked { tensor: String, count: usize },
    #[error("not a trace of routing: {what}")]
    Trace { what: String },
    #[error("loading was stopped")]
    Stopped,
}

impl Error {
    pub(crate) fn unreadable(path: &Path, source: std::io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            std::io::ErrorKind::NotFound => Self::NotFound { path },
            _ => Self::Unreadable { path, source },
        }
    }

    pub(crate) fn stalled(path: &Path, what: &str, stall_timeout: Duration) -> Self {
        let (path, what) = (path.to_owned(), what.to_owned());
        Self::Stalled { path, what, seconds: stall_timeout.as_secs_f64() }
    }
}
