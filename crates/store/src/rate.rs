//! Measures how fast a file can be read in pieces of the size of an expert's slices, with the
//! reader of the expert cache: the drive's part in every prediction.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Error;
use crate::io::{Priority, Read, ReadFile, Reader};
use crate::slab::Slot;
use crate::weights::check_regular;

/// Bytes of a piece: about an expert's slice.
const PIECE: usize = 4 << 20;
/// Pieces at a time.
const DEPTH: usize = 8;
/// How long a drive may deliver nothing before that is an error.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The rate at which a file is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReadRate {
    /// Bytes per second.
    pub bytes_per_second: f64,
    /// Whether reads bypass the page cache. If not, the page cache may have been measured instead
    /// of the drive.
    pub direct: bool,
    /// The reader: `io_uring` or `pread`.
    pub reader: &'static str,
}

/// Reads at offsets all over the file for about as long as `budget`.
///
/// # Errors
/// If it cannot be read, or is empty.
pub fn read_rate(path: &Path, budget: Duration) -> Result<ReadRate, Error> {
    let unreadable = |source| Error::unreadable(path, source);
    check_regular(path)?;
    let file = Arc::new(ReadFile::open(path).map_err(unreadable)?);
    let mut reader = Reader::start().map_err(unreadable)?;
    let pieces = file.size().div_ceil(PIECE as u64);
    if pieces == 0 {
        return Err(Error::Shrunk { path: path.to_owned() });
    }
    // Steps of the golden section spread over the whole file, however few they are.
    let stride = ((pieces as f64 * 0.618) as u64).max(1);
    let place = |number: u64| {
        let start = (number.wrapping_mul(stride) % pieces) * PIECE as u64;
        (start, (file.size() - start).min(PIECE as u64) as usize)
    };
    reader.set_depth(DEPTH);
    let mut rest = Slot::new(DEPTH * Read::slot_bytes(PIECE)).map_err(unreadable)?;
    let mut next = 0;
    let begun = Instant::now();
    for _ in 0..DEPTH {
        let (slot, others) = rest.split(Read::slot_bytes(PIECE));
        rest = others;
        let (start, len) = place(next);
        reader.submit(Priority::Demand, Read::covering(0, &file, start, len, slot));
        next += 1;
    }
    let mut bytes = 0;
    while reader.in_flight() > 0 {
        let done = reader.next(STALL_TIMEOUT).map_err(unreadable)?;
        let done = done.ok_or_else(|| Error::stalled(path, "it", STALL_TIMEOUT))?;
        done.result.map_err(unreadable)?;
        bytes += done.read.needed;
        if begun.elapsed() < budget {
            let (start, len) = place(next);
            reader.submit(Priority::Demand, Read::covering(0, &file, start, len, done.read.slot));
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
