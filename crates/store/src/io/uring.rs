//! Reads with `io_uring`: one thread owns the ring and all memory that the kernel writes to.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use io_uring::{IoUring, opcode, squeue, types};
use rustix::event::{EventfdFlags, eventfd};

use super::queue::{Next, Priority, Queue};
use super::{Done, Read, advanced, ended_early};

/// The most reads that the kernel has at a time.
pub(super) const IN_FLIGHT_MAX: usize = 64;
/// The tag of the event that wakes the ring. The tag of a read is its index in `in_flight`.
const WAKE: u64 = u64::MAX;

/// The ring and its reads, to be moved to a thread.
pub(super) struct Ring {
    ring: IoUring,
    wake: Arc<OwnedFd>,
    queue: Arc<Queue<Read>>,
    /// What the kernel writes to: slots stay here, unmoved and untouched, until their reads are
    /// done. Never freed while the thread unwinds.
    in_flight: ManuallyDrop<Vec<Option<InFlight>>>,
}

struct InFlight {
    read: Read,
    priority: Priority,
    /// Bytes read so far.
    have: usize,
}

/// Wakes the ring's thread after requests were queued, or the queue was closed.
#[derive(Debug)]
pub(super) struct Wake(Arc<OwnedFd>);

impl Wake {
    pub(super) fn up(&self) {
        // It can fail only when the thread has 2^64 wakes to come.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

impl Ring {
    pub(super) fn new(queue: &Arc<Queue<Read>>) -> io::Result<Self> {
        Ok(Self {
            ring: IoUring::new(2 * IN_FLIGHT_MAX as u32)?,
            wake: Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?),
            queue: Arc::clone(queue),
            in_flight: ManuallyDrop::new((0..IN_FLIGHT_MAX).map(|_| None).collect()),
        })
    }

    /// A handle to wake the thread that serves.
    pub(super) fn wake(&self) -> Wake {
        Wake(Arc::clone(&self.wake))
    }

    /// Serves requests until the queue is closed and all started reads are done.
    pub(super) fn serve(mut self, done: &SyncSender<Done>) {
        let mut listening = false;
        loop {
            let open = self.start(done);
            if !open && self.in_flight.iter().all(Option::is_none) {
                drop(ManuallyDrop::into_inner(self.in_flight));
                return;
            }
            if !listening {
                listening = self.listen();
            }
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                // Interrupted, short of memory for a moment, or with completions to take first.
                Err(error) if is_passing(&error) => std::thread::yield_now(),
                Err(_) => break,
            }
            listening &= !self.finish(done);
        }
        // The ring is broken, and the kernel may still write to the slots: they are never freed.
    }

    /// Hands reads to the kernel up to the depth; returns whether the queue is open.
    fn start(&mut self, done: &SyncSender<Done>) -> bool {
        while let Some(place) = self.in_flight.iter().position(Option::is_none) {
            match self.queue.try_pop() {
                Next::Item(priority, mut read) => {
                    if priority != Priority::Demand {
                        read.asked = Instant::now();
                    }
                    self.in_flight[place] = Some(InFlight { read, priority, have: 0 });
                    self.push(place, done);
                }
                Next::Nothing => return true,
                Next::Closed => return false,
            }
        }
        true
    }

    /// Submits a read of the bytes that the one at `place` lacks. If the kernel takes no more, it
    /// has failed.
    fn push(&mut self, place: usize, done: &SyncSender<Done>) {
        let Some(InFlight { read, have, .. }) = &mut self.in_flight[place] else { return };
        let file = types::Fd(read.file.file().as_raw_fd());
        let bytes = &mut read.slot[*have..read.len];
        let entry = opcode::Read::new(file, bytes.as_mut_ptr(), bytes.len() as u32)
            .offset(read.offset + *have as u64)
            .build()
            .user_data(place as u64);
        if !self.push_entry(&entry) {
            let full = io::Error::other("the submission queue of io_uring is full");
            self.end(place, Err(full), done);
        }
    }

    /// Returns a read that has ended.
    fn end(&mut self, place: usize, result: io::Result<()>, done: &SyncSender<Done>) {
        let Some(InFlight { read, priority, .. }) = self.in_flight[place].take() else { return };
        self.queue.done(priority);
        if result.is_ok() {
            read.file.forget(read.offset, read.len);
        }
        // The receiver may be gone.
        let _ = done.send(Done { read, result, ended: Instant::now() });
    }

    /// Polls the wake event; `false` if the kernel takes no more now.
    fn listen(&mut self) -> bool {
        let wake = types::Fd(self.wake.as_raw_fd());
        let entry = opcode::PollAdd::new(wake, u32::from(libc::POLLIN.cast_unsigned()));
        self.push_entry(&entry.build().user_data(WAKE))
    }

    /// Whether there was room.
    fn push_entry(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: what a read refers to, its file and its bytes, is owned by an entry of
        // `in_flight`, which stays there until the kernel has said that it is done, even if this
        // thread unwinds; a poll refers to the wake's descriptor, which lives as long as the ring.
        let pushed = unsafe { self.ring.submission().push(entry) };
        pushed.is_ok()
    }

    /// Takes completions; returns whether the wake event was among them.
    fn finish(&mut self, done: &SyncSender<Done>) -> bool {
        let mut woken = false;
        loop {
            let event = self.ring.completion().next();
            let Some(event) = event else { return woken };
            if event.user_data() == WAKE {
                woken = true;
                // Emptied before the queue is looked at, so that no request is missed.
                let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
                continue;
            }
            let place = event.user_data() as usize;
            let Some(flight) = &mut self.in_flight[place] else { continue };
            let Some(result) = completed(flight, event.result()) else {
                self.push(place, done);
                continue;
            };
            self.end(place, result, done);
        }
    }
}

/// The result of a read, or `None` if it has to continue.
fn completed(flight: &mut InFlight, code: i32) -> Option<io::Result<()>> {
    if code < 0 {
        let error = io::Error::from_raw_os_error(-code);
        return if is_passing(&error) { None } else { Some(Err(error)) };
    }
    match advanced(&flight.read, flight.have, code as usize) {
        None => Some(Err(ended_early(&flight.read))),
        Some(have) => {
            flight.have = have;
            (have >= flight.read.needed).then_some(Ok(()))
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let passing = [Errno::INTR, Errno::AGAIN, Errno::BUSY].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| passing.contains(&code))
}
