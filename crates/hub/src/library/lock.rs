//! Locks between processes: a file that is locked, never its content.
//!
//! The system gives a lock back when its process ends, however it ends.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::Error;
use crate::error::at;

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Waits for the lock.
    pub(crate) fn wait(path: &Path) -> Result<Self, Error> {
        loop {
            let file = open(path)?;
            file.lock().map_err(at(path))?;
            if is_at(&file, path) {
                return Ok(Self(file));
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.unlock(); // closing the file does it, too
    }
}

/// The lock, unless another process has it. A folder that does not exist is made.
pub(crate) fn try_lock(path: &Path) -> Result<Option<Lock>, Error> {
    loop {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) if is_at(&file, path) => return Ok(Some(Lock(file))),
            Ok(()) => {} // removed between opening and locking: others lock the next file
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(at(path)(error)),
        }
    }
}

/// Whether the path still leads to this file. A lock on a removed file excludes no one.
fn is_at(file: &File, path: &Path) -> bool {
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(locked), Ok(found)) => id(locked) == id(found),
        _ => false,
    }
}

fn open(path: &Path) -> Result<File, Error> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(at(folder))?;
    }
    let mut options = File::options();
    options.create(true).truncate(false).read(true).write(true).open(path).map_err(at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_on_a_file_that_was_removed_is_not_held() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = try_lock(&path).unwrap().unwrap();
        assert!(try_lock(&path).unwrap().is_none());
        fs::remove_file(&path).unwrap();
        assert!(!is_at(&first.0, &path), "its file is not there any more");
        let second = try_lock(&path).unwrap().unwrap();
        drop(first);
        assert!(try_lock(&path).unwrap().is_none(), "the second one is held");
        drop(second);
    }
}
