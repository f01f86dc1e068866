//! Reading with a pool of threads, each of which has one read at a time.

use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use super::{Done, Read, advanced, ended_early};

/// Reads some bytes of a file from an offset on, and says how many.
pub type ReadFunction = Arc<dyn Fn(&File, &mut [u8], u64) -> io::Result<usize> + Send + Sync>;

/// Reads as the system does.
pub(super) fn pread(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_at(file, bytes, offset);
    #[cfg(windows)]
    return std::os::windows::fs::FileExt::seek_read(file, bytes, offset);
}

/// Starts threads that end when `requests` does.
pub(super) fn start(
    threads: usize,
    requests: Receiver<Read>,
    done: &SyncSender<Done>,
    read: &ReadFunction,
) -> io::Result<()> {
    let requests = Arc::new(Mutex::new(requests));
    for _ in 0..threads.max(1) {
        let (requests, done, read) = (Arc::clone(&requests), done.clone(), Arc::clone(read));
        thread::Builder::new().name("reader".to_owned()).spawn(move || {
            // Whoever has the lock waits for a request; the others wait for the lock.
            let next = || requests.lock().unwrap_or_else(PoisonError::into_inner).recv();
            while let Ok(mut request) = next() {
                let result = fully(&read, &mut request);
                let read = Done { read: request, result, ended: Instant::now() };
                if done.send(read).is_err() {
                    return;
                }
            }
        })?;
    }
    Ok(())
}

/// Reads until all is there that must be.
fn fully(read: &ReadFunction, request: &mut Read) -> io::Result<()> {
    let mut have = 0;
    while have < request.needed {
        let offset = request.offset + have as u64;
        let bytes = &mut request.slot[have..request.len];
        match read(request.file.file(), bytes, offset) {
            Ok(came) => {
                have = advanced(request, have, came).ok_or_else(|| ended_early(request))?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    request.file.forget(request.offset, request.len);
    Ok(())
}
