//! Memory to read into: one large anonymous mapping, divided into slots with one owner each.
//!
//! The owner of a [`Slot`] has exclusive access to its bytes, be it the cache that computes with
//! them, a reader that fills them, or the queue between the two. Slots are moved, never shared: the
//! borrow checker proves what would otherwise need a locking protocol, and channels are the only
//! synchronization. The unsafe part is to divide the mapping into disjoint ranges.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use memmap2::MmapMut;

/// Alignment of the starts and lengths of slots: the strictest that `O_DIRECT` requires.
pub(crate) const ALIGNMENT: usize = 4096;
/// Huge pages mean fewer page-table walks in products and fewer pages to pin in reads.
const HUGE_PAGE: usize = 2 << 20;

/// Bytes that are populated at a time.
const STEP: usize = 16 << 20;

/// The mapping behind some slots; unmapped with the last of them.
#[derive(Debug)]
struct Slab {
    _memory: MmapMut,
    /// Some of it was released: populating stops.
    is_short: AtomicBool,
}

/// Bytes with one owner, in anonymous memory, aligned to 4096 and zeroed until something is read
/// into them. Pages are allocated when they are first written.
pub(crate) struct Slot {
    start: NonNull<u8>,
    len: usize,
    slab: Arc<Slab>,
}

// SAFETY: a slot is the only way to its bytes, as a `Box<[u8]>` is.
unsafe impl Send for Slot {}
// SAFETY: as above; shared, it gives shared slices only.
unsafe impl Sync for Slot {}

impl Slot {
    /// Memory of at least `len` bytes, the beginning aligned to 2 MiB, for huge pages.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let len = len.next_multiple_of(ALIGNMENT);
        let mut memory = MmapMut::map_anon(len + HUGE_PAGE)?;
        #[cfg(all(target_os = "linux", not(miri)))] // miri has no such calls
        let _refused_is_fine = memory.advise(memmap2::Advice::HugePage);
        let base = memory.as_mut_ptr();
        let skipped = base.align_offset(HUGE_PAGE);
        // SAFETY: at most `HUGE_PAGE - 1` bytes are skipped, of a mapping so much longer.
        let start = unsafe { NonNull::new_unchecked(base.add(skipped)) };
        let slab = Slab { _memory: memory, is_short: AtomicBool::new(false) };
        Ok(Self { start, len, slab: Arc::new(slab) })
    }

    /// Locks this memory, so that it is never swapped out, as far as the system allows (`ulimit
    /// -l`).
    #[cfg(all(target_os = "linux", not(miri)))]
    pub(crate) fn lock(&mut self) -> io::Result<()> {
        use rustix::mm::{MlockFlags, mlock_with};
        // SAFETY: the range is mapped as long as `self` lives, and locking changes no byte.
        let locked =
            unsafe { mlock_with(self.start.as_ptr().cast(), self.len, MlockFlags::ONFAULT) };
        Ok(locked?)
    }

    /// Not available on this system.
    #[cfg(not(all(target_os = "linux", not(miri))))]
    pub(crate) fn lock(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Allocates the pages in a thread of its own, which ends with the last slot, or when some
    /// memory is released. A read into pages that are not there yet would wait while the system
    /// finds and clears them (`bench/README.md`).
    #[cfg(all(target_os = "linux", not(miri)))]
    pub(crate) fn populate(&self) -> io::Result<JoinHandle<()>> {
        struct Range {
            start: NonNull<u8>,
            len: usize,
            slab: Weak<Slab>,
        }
        // SAFETY: the bytes are neither read nor written, only made present.
        unsafe impl Send for Range {}
        impl Range {
            fn take(&self) {
                use rustix::mm::{Advice, madvise};
                for at in (0..self.len).step_by(STEP) {
                    let Some(slab) = self.slab.upgrade() else { return };
                    if slab.is_short.load(Ordering::Relaxed) {
                        return;
                    }
                    let len = STEP.min(self.len - at);
                    // SAFETY: inside the mapping, which `slab` keeps alive; populating changes no
                    // byte of any owner.
                    let taken = unsafe {
                        let start = self.start.as_ptr().add(at);
                        madvise(start.cast(), len, Advice::LinuxPopulateWrite)
                    };
                    if taken.is_err() {
                        return; // an old kernel: pages are allocated when first written
                    }
                }
            }
        }
        let range = Range { start: self.start, len: self.len, slab: Arc::downgrade(&self.slab) };
        std::thread::Builder::new().name("memory".to_owned()).spawn(move || range.take())
    }

    /// Not available on this system.
    #[cfg(not(all(target_os = "linux", not(miri))))]
    pub(crate) fn populate(&self) -> io::Result<JoinHandle<()>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Releases the memory to the system; the slot remains, and is zeroed.
    pub(crate) fn discard(&mut self) {
        self.slab.is_short.store(true, Ordering::Relaxed);
        #[cfg(all(target_os = "linux", not(miri)))]
        {
            use rustix::mm::{Advice, madvise, munlock};
            // SAFETY: private anonymous pages that `self` alone can access become zeros, which are
            // valid bytes; slots start and end at page boundaries.
            let _refused_is_fine = unsafe {
                let start = self.start.as_ptr().cast();
                // Locked pages would be kept.
                munlock(start, self.len)
                    .and_then(|()| madvise(start, self.len, Advice::LinuxDontNeed))
            };
        }
    }

    /// Divides it at byte `at`.
    ///
    /// # Panics
    /// If `at` is beyond its end or no multiple of 4096.
    pub(crate) fn split(self, at: usize) -> (Self, Self) {
        assert!(at <= self.len && at.is_multiple_of(ALIGNMENT), "{at} of {} bytes", self.len);
        let rest = Self {
            // SAFETY: within the range, or at its end.
            start: unsafe { self.start.add(at) },
            len: self.len - at,
            slab: Arc::clone(&self.slab),
        };
        (Self { len: at, ..self }, rest)
    }

    /// Undoes a [`Slot::split`].
    ///
    /// # Panics
    /// If `rest` is not what follows.
    pub(crate) fn join(self, rest: Self) -> Self {
        let Self { start, len, slab } = rest;
        // SAFETY: the end of the range.
        let end = unsafe { self.start.add(self.len) };
        assert!(end == start && Arc::ptr_eq(&self.slab, &slab), "parts of one slot");
        Self { len: self.len + len, ..self }
    }
}

impl Deref for Slot {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped while `slab` lives, initialized by the system, and of no other slot:
        // slots come from a fresh mapping and are only ever divided.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Slot {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a slot of {} bytes", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_disjoint_and_join_again() {
        let slot = Slot::new(3 * ALIGNMENT - 5).unwrap();
        assert_eq!((slot.len(), slot.as_ptr().align_offset(HUGE_PAGE)), (3 * ALIGNMENT, 0));
        let (mut a, rest) = slot.split(ALIGNMENT);
        let (mut b, mut c) = rest.split(ALIGNMENT);
        for (value, part) in [(1, &mut a), (2, &mut b), (3, &mut c)] {
            assert_eq!(part.len(), ALIGNMENT);
            part.fill(value);
        }
        let whole = a.join(b.join(c));
        assert!(
            whole.chunks(ALIGNMENT).zip(1..).all(|(part, value)| part.iter().all(|&b| b == value))
        );
    }

    #[test]
    #[should_panic(expected = "parts of one slot")]
    fn strangers_do_not_join() {
        let (a, b) = (Slot::new(ALIGNMENT).unwrap(), Slot::new(ALIGNMENT).unwrap());
        let _ = a.join(b);
    }

    #[test]
    fn a_part_outlives_the_rest_on_another_thread() {
        let (part, rest) = Slot::new(2 * ALIGNMENT).unwrap().split(ALIGNMENT);
        drop(rest);
        let filled = std::thread::spawn(move || {
            let mut part = part;
            part.fill(7);
            part
        });
        assert_eq!(filled.join().unwrap()[ALIGNMENT - 1], 7);
    }

    #[test]
    fn memory_taken_ahead_holds_what_it_held() {
        let mut slot = Slot::new(3 * STEP / 2).unwrap();
        slot[STEP - 1] = 7;
        let taking = slot.populate(); // not on every system
        slot[STEP] = 9;
        if let Ok(thread) = taking {
            thread.join().unwrap();
        }
        assert_eq!(slot[STEP - 1..=STEP], [7, 9]);
        let (part, rest) = slot.split(ALIGNMENT);
        if let Ok(thread) = part.populate() {
            drop((part, rest)); // with the mapping behind them, whatever the thread is doing
            thread.join().unwrap();
        }
    }

    #[test]
    fn discarded_memory_is_zeroed() {
        let mut slot = Slot::new(2 * ALIGNMENT).unwrap();
        let _refused_is_fine = slot.lock();
        slot.fill(9);
        slot.discard();
        if cfg!(all(target_os = "linux", not(miri))) {
            assert!(slot.iter().all(|&byte| byte == 0));
        }
        slot.fill(8);
        assert_eq!(slot[ALIGNMENT], 8);
    }
}
