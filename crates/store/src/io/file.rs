//! A file to read past the page cache, and how a change of it is noticed.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::{Error, Ranges};

/// An open file of weights.
#[derive(Debug)]
pub struct ReadFile {
    path: PathBuf,
    file: File,
    direct: bool,
    state: State,
    /// What to wait for its bytes with, if it is still being written.
    arriving: Option<Arc<dyn Ranges>>,
}

/// The attributes that change when a file is written to.
#[derive(Debug, PartialEq, Eq)]
struct State {
    len: u64,
    modified: Option<SystemTime>,
}

impl State {
    fn of(metadata: &Metadata) -> Self {
        Self { len: metadata.len(), modified: metadata.modified().ok() }
    }
}

impl ReadFile {
    /// Opens a file, past the page cache if its file system allows that.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let (file, direct) = match open_direct(path) {
            Some(file) => (file, true),
            None => (File::open(path)?, false),
        };
        let state = State::of(&file.metadata()?);
        Ok(Self { path: path.to_owned(), file, direct, state, arriving: None })
    }

    /// As [`ReadFile::open`], through the page cache.
    ///
    /// # Errors
    /// If it cannot be opened.
    #[cfg(test)]
    pub(crate) fn open_buffered(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let state = State::of(&file.metadata()?);
        Ok(Self { path: path.to_owned(), file, direct: false, state, arriving: None })
    }

    /// The same file, which is still being written: its length is the final one.
    #[must_use]
    pub(crate) fn written_by(self, arriving: Option<Arc<dyn Ranges>>) -> Self {
        Self { arriving, ..self }
    }

    /// What to wait for its bytes with, if it is still being written.
    pub(crate) fn ranges(&self) -> Option<&dyn Ranges> {
        self.arriving.as_deref()
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its bytes.
    pub fn size(&self) -> u64 {
        self.state.len
    }

    /// Whether it is read past the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Checks that it has not been written to since it was opened. (A file that was replaced by
    /// renaming stays the old one for those who have it open.) `what` was read from it.
    pub(crate) fn check_unchanged(&self, what: impl Fn() -> String) -> Result<(), Error> {
        let metadata = self.file.metadata().map_err(|e| Error::unreadable(&self.path, e))?;
        let mut state = State::of(&metadata);
        if self.arriving.is_some() {
            state.modified = self.state.modified; // what writes it reports its own errors
        }
        if state == self.state {
            return Ok(());
        }
        Err(Error::Changed { path: self.path.clone(), what: what() })
    }

    /// Drops what was read from the page cache: it is in our own memory.
    pub(super) fn forget(&self, offset: u64, len: usize) {
        #[cfg(target_os = "linux")]
        if !self.direct {
            use rustix::fs::{Advice, fadvise};
            let _refused_is_fine =
                fadvise(&self.file, offset, std::num::NonZero::new(len as u64), Advice::DontNeed);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (offset, len);
    }
}

/// The file, if a read past the page cache works.
#[cfg(target_os = "linux")]
fn open_direct(path: &Path) -> Option<File> {
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path).ok()?;
    // Some file systems accept the flag and refuse the reads.
    let mut probe = crate::slab::Slot::new(crate::slab::ALIGNMENT).ok()?;
    file.read_at(&mut probe, 0).ok()?;
    Some(file)
}

#[cfg(not(target_os = "linux"))]
fn open_direct(_: &Path) -> Option<File> {
    None
}
