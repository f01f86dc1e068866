//! Reads a file into anonymous memory with several threads: one thread copies from the page cache
//! at a fraction of the rate of memory or of a good NVMe drive.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use crate::Error;
use crate::region::Region;

/// Bytes that one thread reads at a time.
const PIECE: usize = 8 << 20;
/// Enough to keep an NVMe drive's queue filled.
const READERS: usize = 8;

/// Reads the whole of `file`. `progress` gets the bytes read so far; `false` stops the reading.
pub(crate) fn read(
    path: &Path,
    file: &File,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<Region, Error> {
    let unreadable = |source| Error::unreadable(path, source);
    let size = file.metadata().map_err(unreadable)?.len();
    let memory = |source| Error::Memory { path: path.to_owned(), size, source };
    let len = usize::try_from(size).map_err(|e| memory(io::Error::other(e)))?;
    let mut bytes = Region::anonymous(len).map_err(memory)?;
    let pieces = Mutex::new(bytes.chunks_mut(PIECE).enumerate());
    let next = || pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..READERS.min(len.div_ceil(PIECE)) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some((index, piece)) = next() {
                    let read = read_at(file, piece, (index * PIECE) as u64).map(|()| piece.len());
                    // The receiver is gone after an error or a stop.
                    if sender.send(read).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut done = 0;
        for read in receiver {
            done += read.map_err(|source| failed(path, source))? as u64;
            if !progress(done) {
                return Err(Error::Stopped);
            }
        }
        Ok(())
    })?;
    Region::filled(bytes).map_err(memory)
}

fn failed(path: &Path, source: io::Error) -> Error {
    if source.kind() == io::ErrorKind::UnexpectedEof {
        return Error::Shrunk { path: path.to_owned() };
    }
    Error::unreadable(path, source)
}

#[cfg(unix)]
fn read_at(file: &File, piece: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, piece, offset)
}

/// Without positioned reads, every piece is read through a handle of its own.
#[cfg(not(unix))]
fn read_at(file: &File, piece: &mut [u8], offset: u64) -> io::Result<()> {
    use std::io::{Read, Seek};
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut file = file;
    file.seek(io::SeekFrom::Start(offset))?;
    file.read_exact(piece)
}
