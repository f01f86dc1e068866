//! Reads with a pool of threads, one read each at a time.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Instant;

use super::queue::{Priority, Queue};
use super::{Done, Read, advanced, ended_early};

/// Reads bytes of a file from an offset on, and returns how many.
pub type ReadFunction = Arc<dyn Fn(&File, &mut [u8], u64) -> io::Result<usize> + Send + Sync>;

/// A positioned read of the system.
pub(super) fn pread(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_at(file, bytes, offset);
    #[cfg(windows)]
    return std::os::windows::fs::FileExt::seek_read(file, bytes, offset);
}

/// Starts threads that end when the `queue` is closed.
pub(super) fn start(
    threads: usize,
    queue: &Arc<Queue<Read>>,
    done: &SyncSender<Done>,
    read: &ReadFunction,
) -> io::Result<()> {
    for _ in 0..threads.max(1) {
        let (queue, done, read) = (Arc::clone(queue), done.clone(), Arc::clone(read));
        thread::Builder::new().name("reader".to_owned()).spawn(move || {
            while let Some((priority, mut request)) = queue.pop() {
                if priority != Priority::Demand {
                    request.asked = Instant::now();
                }
                let result = fully(&read, &mut request);
                queue.done(priority);
                if done.send(Done { read: request, result, ended: Instant::now() }).is_err() {
                    return;
                }
            }
        })?;
    }
    Ok(())
}

/// Reads until all required bytes are there.
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
