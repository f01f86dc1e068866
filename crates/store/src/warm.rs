//! Reads cold files into the page cache before they are used.
//!
//! A mapped file is read when it is first touched: a row here, an expert there, one page fault
//! after another. Reading it once from start to end is many times faster, and its progress can be
//! shown. A file that is cached already is not read again, which would delay the start.
//!
//! Files are read through their maps, for which [`Region::map`] requests huge pages: read(2) with
//! several threads would fill the page cache with small pages, which stay small for every process
//! that maps the file later.

use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use crate::region::Region;

/// Bytes that one thread reads at a time: a huge page.
const PIECE: usize = 2 << 20;
/// Enough to keep an NVMe drive's queue filled.
const READERS: usize = 8;
/// Touching one byte of a page reads the page.
const PAGE: usize = 4096;
/// Offsets of a file that are probed.
const PROBES: usize = 128;
/// A file counts as cached if fewer than one in `MISSING_SHARE` probes are missing.
const MISSING_SHARE: usize = 16;

/// Reads those mapped `files` that are not in the page cache, unless all of them together are
/// larger than `room`. `progress` gets the bytes read and their total; it is never called if there
/// is nothing to read. Errors are ignored here: the first use of the data reports them.
pub(crate) fn warm<'a>(
    files: impl Iterator<Item = (&'a Path, &'a Region)> + Clone,
    room: u64,
    progress: &mut dyn FnMut(u64, u64),
) {
    if files.clone().map(|(_, region)| region.len() as u64).sum::<u64>() > room {
        return; // they would evict each other
    }
    let cold = files.filter(|(path, region)| is_cold(path, region.len())).map(|(_, region)| region);
    let cold: Vec<&Region> = cold.collect();
    let total = cold.iter().map(|region| region.len() as u64).sum::<u64>();
    let pieces = cold.iter().flat_map(|region| {
        let starts = (0..region.len()).step_by(PIECE);
        starts.map(move |start| (region, start, PIECE.min(region.len() - start)))
    });
    let pieces = Mutex::new(pieces);
    let next = || pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..READERS.min(total.div_ceil(PIECE as u64) as usize) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some((region, start, len)) = next() {
                    if !populate(region, start, len) || sender.send(len as u64).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut done = 0;
        for len in receiver {
            done += len;
            progress(done, total);
        }
    });
}

/// Reads `len` bytes of a mapped file into the page cache, and whether that worked.
fn populate(region: &Region, start: usize, len: usize) -> bool {
    #[cfg(target_os = "linux")]
    if let Region::Map { map, .. } = region {
        let done = map.advise_range(memmap2::Advice::PopulateRead, start, len);
        // Before Linux 5.14 there is no such advice; any other error is the drive's or the file's.
        if !done.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL)) {
            return done.is_ok();
        }
    }
    let bytes = &region[start..start + len];
    black_box(bytes.iter().step_by(PAGE).fold(0u8, |sum, byte| sum ^ byte));
    true
}

/// Whether a considerable part of the file would have to be read from its drive.
fn is_cold(path: &Path, len: usize) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let step = (len / PROBES).max(1);
    let missing = (0..PROBES).filter(|probe| is_missing(&file, (probe * step) as u64)).count();
    missing > PROBES / MISSING_SHARE
}

/// Whether reading here would wait. File systems that cannot tell are assumed to be fast.
#[cfg(target_os = "linux")]
fn is_missing(file: &File, at: u64) -> bool {
    use rustix::io::{Errno, ReadWriteFlags, preadv2};
    let mut byte = [0];
    let mut buffers = [std::io::IoSliceMut::new(&mut byte)];
    preadv2(file, &mut buffers, at, ReadWriteFlags::NOWAIT) == Err(Errno::AGAIN)
}

#[cfg(not(target_os = "linux"))]
fn is_missing(_: &File, _: u64) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cold_file_is_read_once_and_a_warm_one_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        let len = 3 * PIECE + 17;
        std::fs::write(&path, vec![7; len]).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        let calls = |room: usize| {
            let region = Region::map(&file, &path).unwrap();
            let mut calls = Vec::new();
            warm([(path.as_path(), &region)].into_iter(), room as u64, &mut |done, all| {
                calls.push((done, all));
            });
            calls
        };
        assert_eq!(calls(usize::MAX), [], "what was just written is cached");
        // The system may decline to forget the file, and a look at it may begin to read it.
        #[cfg(target_os = "linux")]
        let mut was_cold = false;
        #[cfg(target_os = "linux")]
        for _ in 0..20 {
            let forget = || rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
            forget().unwrap();
            assert_eq!(calls(len - 1), [], "too large");
            forget().unwrap();
            let calls = calls(len);
            assert!(!is_cold(&path, len));
            if !calls.is_empty() {
                assert_eq!((calls.len(), calls.last()), (4, Some(&(len as u64, len as u64))));
                was_cold = true;
                break;
            }
        }
        #[cfg(target_os = "linux")]
        if !was_cold {
            println!("skipped: the page cache would not forget a file");
        }
    }

    #[test]
    fn what_is_gone_ends_the_reading() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        std::fs::write(&path, vec![7; 2 * PIECE]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let region = Region::map(&file, &path).unwrap();
        assert!(populate(&region, 0, PIECE));
        file.set_len(PIECE as u64).unwrap();
        #[cfg(target_os = "linux")]
        assert!(!populate(&region, PIECE, PIECE), "an error, not SIGBUS");
    }
}
