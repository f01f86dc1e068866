//! Reading whole pieces of files past the page cache, many at a time.
//!
//! A [`Reader`] is two queues: reads go in, each with the memory to fill, demand before what is only
//! foreseen, and come back with it filled, in whatever order the drive has them ready. Between the
//! queues is one thread with an
//! `io_uring`, or, where the system refuses that (as containers often do), a pool of threads that read.
//! Files that refuse `O_DIRECT` are read through the page cache, which is told to forget at once.
//! What comes back is the same whichever way it took.

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
use self::queue::Queue;
pub(crate) use self::queue::Urgency;
use crate::slab::{ALIGNMENT, Slot};

/// What the queue is locked with.
mod sync {
    pub(super) use std::sync::{Condvar, Mutex, MutexGuard};
}

/// Most reads that one reader has taken and not given back. Queues of a fixed size allocate nothing.
pub(crate) const CAPACITY: usize = 4096;
/// Reads that a drive works on at a time, until a calibration says better. An expert's slices have some
/// megabytes each, so that a few of them fill the queue of one drive.
const DEPTH: usize = 8;
/// Threads of a pool.
const THREADS: usize = 16;

/// A run of bytes to read.
#[derive(Debug)]
pub(crate) struct Read {
    /// What it is, for whoever asked.
    pub(crate) tag: u64,
    pub(crate) file: Arc<ReadFile>,
    /// The first byte, at a multiple of 4096.
    pub(crate) offset: u64,
    /// Bytes to read, a multiple of 4096.
    pub(crate) len: usize,
    /// Bytes that must come: a file may end within the last 4096.
    pub(crate) needed: usize,
    /// Where to; at least `len` long.
    pub(crate) slot: Slot,
    /// Since when it is wanted; of what is not demand, since when it is read.
    pub(crate) asked: Instant,
}

/// A read that has ended.
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
    /// If the slot is too small: [`Read::room`] says how large it must be.
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

    /// Bytes of a slot that holds `len` bytes from anywhere in a file.
    pub(crate) fn room(len: usize) -> usize {
        len.next_multiple_of(ALIGNMENT) + ALIGNMENT
    }
}

/// Where byte `offset` of a file stands in a slot that was read to cover it.
pub(crate) fn skipped(offset: u64) -> usize {
    (offset % ALIGNMENT as u64) as usize
}

/// Given the bytes that came of a read so far: how many of them count, or none if the file has ended.
///
/// Only whole blocks can be gone on from, and a read that brings less than one is at the end.
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

/// Reads that go on while their owner does something else.
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
        let depth_max = uring::FLYING_MAX;
        Ok(Self { name: "io_uring", queue, done, depth_max, in_flight: 0, wake })
    }

    /// A reader with `threads` threads that call `read`: the one for systems without `io_uring`,
    /// and whatever a test wants to happen.
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

    /// How it reads.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Reads that were taken and not given back.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many reads the drive works on at a time, of those that were taken.
    pub(crate) fn set_depth(&self, depth: usize) {
        self.queue.set_depth(depth.clamp(1, self.depth_max));
        self.wake();
    }

    /// Takes a read, to be given back by [`Reader::next`].
    ///
    /// # Panics
    /// If more than [`CAPACITY`] are in flight.
    pub(crate) fn submit(&mut self, urgency: Urgency, read: Read) {
        assert!(self.in_flight < CAPACITY, "reads in flight");
        self.in_flight += 1;
        // A reader that has ended takes nothing; `next` reports it.
        self.queue.push(urgency, read);
        self.wake();
    }

    /// What was foreseen is wanted now: the reads of these tags become demand, if they still wait.
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

    /// Takes a read of one of these tags back that was foreseen, if one still waits.
    pub(crate) fn withdraw(&mut self, tags: std::ops::Range<u64>) -> Option<Read> {
        let read = self.queue.withdraw(|read| tags.contains(&read.tag))?;
        self.in_flight -= 1;
        Some(read)
    }

    /// The next read that has ended, after at most `patience`; `None` if none has.
    ///
    /// # Errors
    /// If the reader itself has ended, which only a fault of the system can bring about.
    pub(crate) fn next(&mut self, patience: Duration) -> io::Result<Option<Done>> {
        match self.done.recv_timeout(patience) {
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

    /// Threads wait at the queue; a ring does not.
    fn wake(&self) {
        #[cfg(target_os = "linux")]
        if let Some(wake) = &self.wake {
            wake.up();
        }
    }
}

impl Drop for Reader {
    /// Reads that have begun end by themselves: their memory is theirs.
    fn drop(&mut self) {
        self.queue.close();
        self.wake();
    }
}

#[cfg(test)]
mod tests;
