//! Reading with an `io_uring`: one thread owns the ring and all memory that the kernel writes to.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use io_uring::{IoUring, opcode, squeue, types};
use rustix::event::{EventfdFlags, eventfd};

use super::queue::{Next, Queue, Urgency};
use super::{Done, Read, advanced, ended_early};

/// Reads that the kernel has at most.
pub(super) const FLYING_MAX: usize = 64;
/// The tag of the event that says: there are requests. Reads have their place in a list as theirs.
const WAKE: u64 = u64::MAX;

/// The ring's thread-to-be.
pub(super) struct Ring {
    ring: IoUring,
    wake: Arc<OwnedFd>,
    queue: Arc<Queue<Read>>,
    /// What the kernel writes to: a slot stays here, unmoved and untouched, until it is done.
    flying: Vec<Option<Flight>>,
}

struct Flight {
    read: Read,
    urgency: Urgency,
    /// Bytes that have come.
    have: usize,
}

/// Tells the ring's thread that there are requests, or that there will be none.
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
            ring: IoUring::new(2 * FLYING_MAX as u32)?,
            wake: Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?),
            queue: Arc::clone(queue),
            flying: (0..FLYING_MAX).map(|_| None).collect(),
        })
    }

    /// A way to wake the thread that serves.
    pub(super) fn wake(&self) -> Wake {
        Wake(Arc::clone(&self.wake))
    }

    /// Serves requests until there will be no more and all that were begun are done.
    pub(super) fn serve(mut self, done: &SyncSender<Done>) {
        let mut listening = false;
        loop {
            let open = self.start();
            if !open && self.flying.iter().all(Option::is_none) {
                return;
            }
            if !listening {
                self.listen();
                listening = true;
            }
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                // Interrupted, out of memory for a moment, or with completions to be taken first.
                Err(error) if is_passing(&error) => std::thread::yield_now(),
                Err(_) => break,
            }
            listening &= !self.finish(done);
        }
        // The ring is broken, and what the kernel has may still be written to: it is never freed.
        std::mem::forget(self.flying);
    }

    /// Hands reads to the kernel while it shall have more; returns whether there will be others.
    fn start(&mut self) -> bool {
        while let Some(place) = self.flying.iter().position(Option::is_none) {
            match self.queue.try_pop() {
                Next::Item(urgency, mut read) => {
                    if urgency != Urgency::Demand {
                        read.asked = Instant::now();
                    }
                    self.flying[place] = Some(Flight { read, urgency, have: 0 });
                    self.push(place);
                }
                Next::Nothing => return true,
                Next::Closed => return false,
            }
        }
        true
    }

    /// Asks for the bytes that the flight at `place` does not have.
    fn push(&mut self, place: usize) {
        let Some(Flight { read, have, .. }) = &mut self.flying[place] else { return };
        let file = types::Fd(read.file.file().as_raw_fd());
        let bytes = &mut read.slot[*have..read.len];
        let entry = opcode::Read::new(file, bytes.as_mut_ptr(), bytes.len() as u32)
            .offset(read.offset + *have as u64)
            .build()
            .user_data(place as u64);
        self.push_entry(&entry);
    }

    /// Asks to be told of a wake.
    fn listen(&mut self) {
        let wake = types::Fd(self.wake.as_raw_fd());
        let entry = opcode::PollAdd::new(wake, u32::from(libc::POLLIN.cast_unsigned()));
        self.push_entry(&entry.build().user_data(WAKE));
    }

    fn push_entry(&mut self, entry: &squeue::Entry) {
        // SAFETY: what a read refers to, its file and its bytes, is owned by a flight, which stays
        // in the list until the kernel has said that it is done; a poll refers to the wake's
        // descriptor, which lives as long as the ring.
        let pushed = unsafe { self.ring.submission().push(entry) };
        // Twice as many entries as flights, all of which are submitted in every round.
        debug_assert!(pushed.is_ok(), "the submission queue has room");
    }

    /// Takes what is done; returns whether a wake was among it.
    fn finish(&mut self, done: &SyncSender<Done>) -> bool {
        let mut woken = false;
        loop {
            let event = self.ring.completion().next();
            let Some(event) = event else { return woken };
            if event.user_data() == WAKE {
                woken = true;
                // Emptied, before requests are looked for, so that none is missed.
                let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
                continue;
            }
            let place = event.user_data() as usize;
            let Some(flight) = &mut self.flying[place] else { continue };
            let Some(result) = landed(flight, event.result()) else {
                self.push(place);
                continue;
            };
            if let Some(Flight { read, urgency, .. }) = self.flying[place].take() {
                self.queue.done(urgency);
                if result.is_ok() {
                    read.file.forget(read.offset, read.len);
                }
                // Nobody may be interested any more.
                let _ = done.send(Done { read, result, ended: Instant::now() });
            }
        }
    }
}

/// What became of a flight, or `None` if it has to go on.
fn landed(flight: &mut Flight, code: i32) -> Option<io::Result<()>> {
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
