//! A handle to a range of bytes, cheap to clone, that keeps the memory behind it alive.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::region::Region;

/// Bytes of a tensor, or of any other range of a region of memory.
#[derive(Clone)]
pub struct Bytes {
    region: Arc<Region>,
    range: Range<usize>,
}

impl Bytes {
    /// # Panics
    /// If the range is not within the region: the parser of the header has checked it.
    pub(crate) fn new(region: &Arc<Region>, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= region.len(), "{range:?} of a region");
        Self { region: Arc::clone(region), range }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.region[self.range.clone()]
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { region: Arc::new(Region::Owned(bytes)), range }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}
