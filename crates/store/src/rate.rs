//! How fast a file can be read in pieces of the size of an expert's slices, and how many at a time
//! it takes: the disk's part in every prediction, measured as the cache itself reads.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Error;
use crate::io::{Read, ReadFile, Reader, Urgency};
use crate::slab::Slot;

/// Bytes of a piece: about an expert's slice.
const PIECE: usize = 4 << 20;
/// Pieces at a time.
const DEPTH: usize = 8;
/// A drive that delivers nothing for so long is reported.
const PATIENCE: Duration = Duration::from_secs(30);

/// How fast a file is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReadRate {
    /// Bytes per second.
    pub bytes_per_second: f64,
    /// Whether it is read past the page cache. If it is not, what memory remembers of the file may
    /// have been measured instead of its drive.
    pub direct: bool,
    /// How it is read: `io_uring` or `pread`.
    pub reader: &'static str,
}

/// Reads from places all over the file for about as long as `budget`.
///
/// # Errors
/// If it cannot be read, or is empty.
pub fn read_rate(path: &Path, budget: Duration) -> Result<ReadRate, Error> {
    let unreadable = |source| Error::unreadable(path, source);
    let file = Arc::new(ReadFile::open(path).map_err(unreadable)?);
    let mut reader = Reader::start().map_err(unreadable)?;
    let pieces = file.size().div_ceil(PIECE as u64);
    if pieces == 0 {
        return Err(Error::Shrunk { path: path.to_owned() });
    }
    // Strides of a golden section of the file reach all of it, far apart, in any time.
    let stride = ((pieces as f64 * 0.618) as u64).max(1);
    let place = |number: u64| {
        let start = (number.wrapping_mul(stride) % pieces) * PIECE as u64;
        (start, (file.size() - start).min(PIECE as u64) as usize)
    };
    reader.set_depth(DEPTH);
    let mut rest = Slot::new(DEPTH * Read::room(PIECE)).map_err(unreadable)?;
    let mut next = 0;
    let begun = Instant::now();
    for _ in 0..DEPTH {
        let (slot, others) = rest.split(Read::room(PIECE));
        rest = others;
        let (start, len) = place(next);
        reader.submit(Urgency::Demand, Read::covering(0, &file, start, len, slot));
        next += 1;
    }
    let mut bytes = 0;
    while reader.in_flight() > 0 {
        let done = reader.next(PATIENCE).map_err(unreadable)?;
        let done = done.ok_or_else(|| Error::stalled(path, "it", PATIENCE))?;
        done.result.map_err(unreadable)?;
        bytes += done.read.needed;
        if begun.elapsed() < budget {
            let (start, len) = place(next);
            reader.submit(Urgency::Demand, Read::covering(0, &file, start, len, done.read.slot));
            next += 1;
        }
    }
    let bytes_per_second = bytes as f64 / begun.elapsed().as_secs_f64();
    Ok(ReadRate { bytes_per_second, direct: file.is_direct(), reader: reader.name() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_file_but_an_empty_one_has_a_rate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for size in [1, 5000, PIECE + 4097] {
            std::fs::write(&path, vec![1; size]).unwrap();
            let rate = read_rate(&path, Duration::from_millis(5)).unwrap();
            assert!(rate.bytes_per_second > 0.0 && rate.bytes_per_second.is_finite(), "{rate:?}");
        }
        std::fs::write(&path, []).unwrap();
        assert!(read_rate(&path, Duration::ZERO).is_err());
        assert!(read_rate(&folder.path().join("none"), Duration::ZERO).is_err());
    }
}
