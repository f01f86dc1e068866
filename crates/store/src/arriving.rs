//! Files that are still being written: what reads them waits for the bytes that it needs.

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::path::Path;

/// Bytes of a file.
pub type FileRange<'a> = (&'a Path, Range<u64>);

/// Files that are still being written. What writes them implements this; nothing else here knows
/// where bytes come from.
pub trait Ranges: Debug + Send + Sync {
    /// Waits until all of these bytes are there; they are wanted before any others.
    ///
    /// # Errors
    /// If they will not come.
    fn wait(&self, ranges: &[FileRange<'_>]) -> io::Result<()>;

    /// Whether all of these bytes are there.
    fn has(&self, ranges: &[FileRange<'_>]) -> bool;
}
