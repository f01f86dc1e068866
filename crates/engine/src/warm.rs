//! Bringing a cold file into the page cache before it is computed with.
//!
//! A mapped file is read when it is first touched: here a row, there an expert, one page fault after
//! another. Reading it once from beginning to end is many times faster, and its end can be foreseen.
//! A file that is there already must not be read again: a model of 5 GB would start a second later.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;

/// Bytes that one thread reads at a time.
const PIECE: u64 = 4 << 20;
/// Enough to keep an NVMe drive's queue filled.
const READERS: usize = 8;
/// Places of a file that are probed.
const PROBES: u64 = 128;
/// A file of which less than one in so many probes is missing counts as cached.
const MISSING_SHARE: u64 = 16;

/// Reads those of `paths` that are not in the page cache, unless all of them together are larger
/// than `room`. `progress` gets the bytes read and their total; it is never called if there is
/// nothing to read. What cannot be read is left to whoever needs it, and reports it.
pub(crate) fn warm(paths: &[PathBuf], room: u64, progress: &mut dyn FnMut(u64, u64)) {
    let files = paths.iter().filter_map(|path| {
        let file = File::open(path).ok()?;
        let len = file.metadata().ok()?.len();
        Some((file, len))
    });
    let files: Vec<(File, u64)> = files.collect();
    if files.iter().map(|(_, len)| len).sum::<u64>() > room {
        return; // it would push itself out again
    }
    let cold: Vec<_> = files.iter().filter(|(file, len)| is_cold(file, *len)).collect();
    let total: u64 = cold.iter().map(|(_, len)| len).sum();
    let pieces = cold.iter().flat_map(|(file, len)| {
        let starts = (0..*len).step_by(PIECE as usize);
        starts.map(move |start| (file, start, PIECE.min(len - start)))
    });
    let pieces = Mutex::new(pieces);
    let next = || pieces.lock().ok().and_then(|mut pieces| pieces.next());
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..READERS.min(total.div_ceil(PIECE) as usize) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                let mut buffer = vec![0; PIECE as usize];
                while let Some((file, start, len)) = next() {
                    let read = file.read_exact_at(&mut buffer[..len as usize], start);
                    if read.is_err() || sender.send(len).is_err() {
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

/// Whether a good part of the file would have to be read from its drive.
fn is_cold(file: &File, len: u64) -> bool {
    let step = (len / PROBES).max(1);
    let missing = (0..PROBES).filter(|probe| is_missing(file, probe * step)).count() as u64;
    missing > PROBES / MISSING_SHARE
}

/// Whether reading here would have to wait. A file system that cannot tell is believed to be fast.
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
        std::fs::write(&path, vec![7; len as usize]).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        let calls = |room: u64| {
            let mut calls = Vec::new();
            warm(&[path.clone(), folder.path().join("gone")], room, &mut |done, all| {
                calls.push((done, all));
            });
            calls
        };
        assert_eq!(calls(u64::MAX), [], "what was just written is cached");
        // The system may decline to forget the file, and a look at it may begin to read it.
        #[cfg(target_os = "linux")]
        for _ in 0..20 {
            let forget = || rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
            forget().unwrap();
            assert_eq!(calls(len - 1), [], "too large");
            forget().unwrap();
            let calls = calls(len);
            assert!(!is_cold(&file, len));
            if !calls.is_empty() {
                assert_eq!((calls.len(), calls.last()), (4, Some(&(len, len))));
                break;
            }
        }
    }
}
