//! Locks between processes: a file that is locked, never its content.
//!
//! The system gives a lock back when its process ends, however it ends.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use crate::Error;
use crate::error::at;

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Waits for the lock.
    pub(crate) fn wait(path: &Path) -> Result<Self, Error> {
        let file = open(path)?;
        file.lock().map_err(at(path))?;
        Ok(Self(file))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.unlock(); // closing the file does it, too
    }
}

/// The lock, unless another process has it. A folder that is not there has none.
pub(crate) fn try_lock(path: &Path) -> Result<Option<Lock>, Error> {
    let file = open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(at(path)(error)),
    }
}

fn open(path: &Path) -> Result<File, Error> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(at(folder))?;
    }
    let mut options = File::options();
    options.create(true).truncate(false).read(true).write(true).open(path).map_err(at(path))
}
