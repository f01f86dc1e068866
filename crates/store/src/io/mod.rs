//! Reads whole pieces of files past the page cache, many at a time.
//!
//! A [`Reader`] is a pair of queues: reads go in with the memory to fill, demand before speculative
//! ones, and come back when they are complete, in any order. In between is one thread with an
//! `io_uring`, or, where the system refuses that (as containers often do), a pool of threads. Files
//! that refuse `O_DIRECT` are read through the page cache, from which they are dropped at once. The
//! result is the same in all cases.

mod file;
mod pool;
mod queue;
#[cfg(target_os = "linux")]
mod uring;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

pub use self::file::ReadFile;
pub use self::pool::ReadFunction;
pub(crate) use self::queue::Priority;
use self::queue::Queue;
use crate::slab::{ALIGNMENT, Slot};

/// The locks of the queue.
mod sync {
    pub(super) use std::sync::{Condvar, Mutex, MutexGuard};
}

/// The most reads of one reader in flight. Queues of a fixed size never allocate.
pub(crate) const CAPACITY: usize = 4096;
/// Reads that a drive works on at a time, until calibration finds a better number. An expert's
/// slices have some megabytes each, so that a few of them fill the queue of one drive.
const DEPTH: usize = 8;
/// Threads of a pool.
const THREADS: usize = 16;

/// A run of bytes to read.
#[derive(Debug)]
pub(crate) struct Read {
    /// An identifier chosen by the caller.
    pub(crate) tag: u64,
    pub(crate) file: Arc<ReadFile>,
    /// The first byte, at a multiple of 4096.
    pub(crate) offset: u64,
    /// Bytes to read, a multiple of 4096.
    pub(crate) len: usize,
    /// Bytes that must be read: the file may end within the last 4096.
    pub(crate) needed: usize,
    /// The destination, at least `len` long.
    pub(crate) slot: Slot,
    /// When it was requested; for speculative reads, when reading started.
    pub(crate) asked: Instant,
}

/// A read that is complete, or has failed.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) read: Read,
    pub(crate) result: io::Result<()>,
    pub(crate) ended: Instant,
}

impl Read {
    /// The aligned read that covers `len` bytes from `offset` on, into the beginning of `slot`.
    ///
    /// # Panics
    /// If the slot is smaller than [`Read::slot_bytes`].
    pub(crate) fn covering(
        tag: u64,
        file: &Arc<ReadFile>,
        offset: u64,
        len: usize,
        slot: Slot,
    ) -> Self {
        let skipped = skipped(offset);
        let needed = skipped + len;
        let all = needed.next_multiple_of(ALIGNMENT);
        assert!(all <= slot.len(), "{all} bytes into {slot:?}");
        let offset = offset - skipped as u64;
        let (file, asked) = (Arc::clone(file), Instant::now());
        Self { tag, file, offset, len: all, needed, slot, asked }
    }

    /// The size of a slot that can hold `len` bytes from any offset of a file.
    pub(crate) fn slot_bytes(len: usize) -> usize {
        len.next_multiple_of(ALIGNMENT) + ALIGNMENT
    }
}

/// The position of byte `offset` of a file in a slot that was read to cover it.
pub(crate) fn skipped(offset: u64) -> usize {
    (offset % ALIGNMENT as u64) as usize
}

/// The progress of a read that had `before` bytes and got `came` more, or `None` at the end of the
/// file.
///
/// A read can only continue at a block boundary, and one that delivers less than a block is at the
/// end.
fn advanced(read: &Read, before: usize, came: usize) -> Option<usize> {
    let after = before + came;
    let counted = if after >= read.needed { after } else { after - after % ALIGNMENT };
    (counted > before).then_some(counted)
}

fn ended_early(read: &Read) -> io::Error {
    let end = read.offset + read.needed as u64;
    let text = format!("the file ends before byte {end}: it was truncated, or never complete");
    io::Error::new(io::ErrorKind::UnexpectedEof, text)
}

/// Reads files in the background.
#[derive(Debug)]
pub struct Reader {
    name: &'static str,
    queue: Arc<Queue<Read>>,
    done: Receiver<Done>,
    depth_max: usize,
    in_flight: usize,
    #[cfg(target_os = "linux")]
    wake: Option<uring::Wake>,
}

impl Reader {
    /// The best reader that this system allows.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start() -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if let Ok(reader) = Self::uring() {
            return Ok(reader);
        }
        let read: ReadFunction = Arc::new(pool::pread);
        Self::pool(THREADS, "pread", &read)
    }

    /// A reader with an `io_uring`.
    ///
    /// # Errors
    /// If the system refuses it: it is old, or a container's rules forbid it.
    #[cfg(target_os = "linux")]
    pub fn uring() -> io::Result<Self> {
        let queue = Arc::new(Queue::new(CAPACITY, DEPTH));
        let ring = uring::Ring::new(&queue)?;
        let (give, done) = sync_channel(CAPACITY);
        let wake = Some(ring.wake());
        std::thread::Builder::new().name("reader".to_owned()).spawn(move || ring.serve(&give))?;
        let depth_max = uring::IN_FLIGHT_MAX;
        Ok(Self { name: "io_uring", queue, done, depth_max, in_flight: 0, wake })
    }

    /// A reader with `threads` threads that call `read`: for systems without `io_uring`, and for
    /// tests.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn pool(threads: usize, name: &'static str, read: &ReadFunction) -> io::Result<Self> {
        let queue = Arc::new(Queue::new(CAPACITY, threads.max(1)));
        let (give, done) = sync_channel(CAPACITY);
        pool::start(threads, &queue, &give, read)?;
        Ok(Self {
            name,
            queue,
            done,
            depth_max: threads.max(1),
            in_flight: 0,
            #[cfg(target_os = "linux")]
            wake: None,
        })
    }

    /// `io_uring`, `pread`, or the name given to [`Reader::pool`].
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Reads that were submitted and not returned yet.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Sets how many reads the drive works on at a time.
    pub(crate) fn set_depth(&self, depth: usize) {
        self.queue.set_depth(depth.clamp(1, self.depth_max));
        self.wake();
    }

    /// Submits a read, which [`Reader::next`] will return.
    ///
    /// # Panics
    /// If more than [`CAPACITY`] are in flight.
    pub(crate) fn submit(&mut self, priority: Priority, read: Read) {
        assert!(self.in_flight < CAPACITY, "reads in flight");
        self.in_flight += 1;
        // If the reader's threads have ended, `next` reports it.
        self.queue.push(priority, read);
        self.wake();
    }

    /// What was prefetched is wanted now: the reads of these tags become demand, if they still
    /// wait.
    pub(crate) fn promote(&self, tags: std::ops::Range<u64>) {
        let now = Instant::now();
        let promoted = self.queue.promote(|read| {
            let is = tags.contains(&read.tag);
            if is {
                read.asked = now;
            }
            is
        });
        if promoted > 0 {
            self.wake();
        }
    }

    /// Takes a read of one of these tags back that was prefetched, if one still waits.
    pub(crate) fn withdraw(&mut self, tags: std::ops::Range<u64>) -> Option<Read> {
        let read = self.queue.withdraw(|read| tags.contains(&read.tag))?;
        self.in_flight -= 1;
        Some(read)
    }

    /// The next read that is complete, after at most `stall_timeout`; `None` if none is.
    ///
    /// # Errors
    /// If the reader itself has ended, after an error of the system.
    pub(crate) fn next(&mut self, stall_timeout: Duration) -> io::Result<Option<Done>> {
        match self.done.recv_timeout(stall_timeout) {
            Ok(done) => {
                self.in_flight -= 1;
                Ok(Some(done))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                Err(io::Error::other("reading has stopped: load the model again"))
            }
        }
    }

    /// Wakes the ring; threads of a pool wait at the queue itself.
    fn wake(&self) {
        #[cfg(target_os = "linux")]
        if let Some(wake) = &self.wake {
            wake.up();
        }
    }
}

impl Drop for Reader {
    /// Reads that have started finish by themselves: they own their memory.
    fn drop(&mut self) {
        self.queue.close();
        self.wake();
    }
}

#[cfg(test)]
mod tests;
