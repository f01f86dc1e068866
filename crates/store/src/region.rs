//! Memory that holds a file's bytes and never changes. Its unsafe code is that of maps.

use std::fs::File;
use std::io;
use std::ops::Deref;

use memmap2::{Mmap, MmapMut};

use crate::slab::Slot;

/// The bytes of one file, wherever they are.
#[derive(Debug)]
pub(crate) enum Region {
    /// Pages of a file, or anonymous memory into which one was read.
    Map(Mmap),
    /// Part of the program.
    Static(&'static [u8]),
    /// Computed.
    Owned(Vec<u8>),
    /// Read past the page cache.
    Slot(Slot),
}

impl Region {
    /// Maps a file without reading it: pages come from disk when they are first touched.
    ///
    /// A mapping shows what happens to the file. A file overwritten in place changes the weights, and
    /// a file truncated while it is mapped ends the process with SIGBUS at the first touch of a page
    /// that is gone. Downloads therefore go to another name and are renamed when complete, and
    /// whoever must be safe from the file's owner loads it resident.
    pub(crate) fn map(file: &File) -> io::Result<Self> {
        // SAFETY: the map is read-only. That nobody shortens or rewrites the file meanwhile cannot be
        // enforced on Unix; the documentation of `Placement::Mapped` passes this condition on.
        let map = unsafe { Mmap::map(file) }?;
        // What is read from now on lies in huge pages, where the kernel can have such in its page cache.
        #[cfg(target_os = "linux")]
        let _refused_is_fine = map.advise(memmap2::Advice::HugePage);
        Ok(Self::Map(map))
    }

    /// Zeroed anonymous memory, to be filled and then made a region by [`Region::filled`].
    pub(crate) fn anonymous(len: usize) -> io::Result<MmapMut> {
        let memory = MmapMut::map_anon(len)?;
        // Weights are read front to back by every core: fewer, larger pages spare page-table walks.
        #[cfg(target_os = "linux")]
        let _refused_is_fine = memory.advise(memmap2::Advice::HugePage);
        Ok(memory)
    }

    /// Anonymous memory whose contents are final.
    pub(crate) fn filled(memory: MmapMut) -> io::Result<Self> {
        Ok(Self::Map(memory.make_read_only()?))
    }
}

impl Deref for Region {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Map(map) => map,
            Self::Static(bytes) => bytes,
            Self::Owned(bytes) => bytes,
            Self::Slot(slot) => slot,
        }
    }
}
