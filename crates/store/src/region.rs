//! Read-only memory that holds a file's bytes. Its unsafe code maps files.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::{Mmap, MmapMut};

use crate::slab::Slot;

/// The bytes of one file, wherever they are.
#[derive(Debug)]
pub(crate) enum Region {
    /// Pages of a file.
    Map {
        /// Reports the file if it becomes shorter.
        #[cfg(target_os = "linux")]
        _watch: crate::sigbus::Watch,
        map: Mmap,
    },
    /// Anonymous memory into which a file was read.
    Anonymous(Mmap),
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
    /// A mapping follows its file. A file that is overwritten in place changes the weights, and the
    /// first touch of a page beyond the end of a file that was truncated raises SIGBUS, which ends
    /// the program with an error ([`crate::sigbus`]). Downloads therefore go to another name and
    /// are renamed when complete; [`crate::Placement::Resident`] is for files that others may
    /// change.
    #[cfg_attr(not(target_os = "linux"), allow(unused_variables))]
    pub(crate) fn map(file: &File, path: &Path) -> io::Result<Self> {
        // SAFETY: the map is read-only. Unix cannot keep other processes from changing the file;
        // the documentation of `Placement::Mapped` passes this condition on.
        let map = unsafe { Mmap::map(file) }?;
        // Pages read from now on are huge where the page cache supports it.
        #[cfg(target_os = "linux")]
        let _refused_is_fine = map.advise(memmap2::Advice::HugePage);
        Ok(Self::Map {
            #[cfg(target_os = "linux")]
            _watch: crate::sigbus::Watch::new(&map, path),
            map,
        })
    }

    /// Zeroed anonymous memory, to be filled and then made a region by [`Region::filled`].
    pub(crate) fn anonymous(len: usize) -> io::Result<MmapMut> {
        let memory = MmapMut::map_anon(len)?;
        // Weights are read sequentially by every core: huge pages save page-table walks.
        #[cfg(target_os = "linux")]
        let _refused_is_fine = memory.advise(memmap2::Advice::HugePage);
        Ok(memory)
    }

    /// Anonymous memory whose contents are final.
    pub(crate) fn filled(memory: MmapMut) -> io::Result<Self> {
        Ok(Self::Anonymous(memory.make_read_only()?))
    }
}

impl Deref for Region {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Map { map, .. } | Self::Anonymous(map) => map,
            Self::Static(bytes) => bytes,
            Self::Owned(bytes) => bytes,
            Self::Slot(slot) => slot,
        }
    }
}
