//! Persistent workers: fork, work, join, hundreds of times per token.
//!
//! A decode step is hundreds of short parallel regions, so a region must cost about a microsecond.
//! Workers spin briefly for the next one, then park; the caller works too. Each has a share of
//! neighbouring tasks, whose weights follow one another in memory, and then helps with the shares
//! of others, so a slow core does fewer. Who computes a task never changes what is computed: every
//! task writes its own outputs in a fixed order.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::affinity;
use crate::buffer::Aligned;
use crate::isa::SplitI16Row;
use crate::isa::i8::I8Row;

/// Rounds of `pause` a worker spins before it parks: about 0.1 ms.
const SPINS: u32 = 2000;

/// What each worker owns: memory that survives from task to task.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// A decoded row.
    pub(crate) row: Aligned<f32>,
    /// Products, as [`crate::block::compute`] returns them.
    pub(crate) values: Aligned<f32>,
    /// Products kept while others are computed.
    pub(crate) kept: Aligned<f32>,
    /// Rows transposed to columns.
    pub(crate) transposed: Aligned<f32>,
    /// Sums of tiles.
    pub(crate) sums: Aligned<f32>,
    /// Unpacked weights.
    pub(crate) panel: Aligned<u16>,
    /// Unpacked weights as bytes, or as words, and their scales.
    pub(crate) codes: Aligned<u8>,
    pub(crate) words: Aligned<i16>,
    pub(crate) scales: Aligned<f32>,
    /// Cache rows and softmax weights as bf16.
    pub(crate) bf16: Aligned<u16>,
    /// Running softmax of a block of query rows, and of parts of it that are computed apart.
    pub(crate) softmax: Aligned<f32>,
    pub(crate) states: Vec<Aligned<f32>>,
    /// Activations gathered for one matrix.
    pub(crate) gathered: Aligned<u16>,
    pub(crate) gathered_floats: Aligned<f32>,
    /// Where the activations of one matrix are.
    pub(crate) i8_rows: Vec<I8Row>,
    pub(crate) split_i16_rows: Vec<SplitI16Row>,
}

type Task<'a> = dyn Fn(&mut Scratch, usize) + Sync + 'a;

/// A fixed set of worker threads.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<State>,
    workers: Vec<JoinHandle<()>>,
    missing: usize,
    caller: Mutex<Scratch>,
    regions: AtomicU64,
    /// If tasks are only counted: of how many threads, and the tasks of each region.
    counting: Option<Counting>,
}

/// A pool that computes nothing.
#[derive(Debug)]
struct Counting {
    threads: usize,
    tasks: Mutex<Vec<usize>>,
}

#[derive(Debug)]
struct State {
    /// Number of the current region; workers wait for it to change.
    epoch: AtomicU64,
    region: Mutex<Option<Region>>,
    /// Threads that work, each of which has a share of the tasks.
    shares: AtomicUsize,
    /// The next task of each thread's share, the caller's first.
    next: Vec<Next>,
    /// Workers that have not finished the current region.
    running: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    parked: Vec<AtomicBool>,
}

/// A counter in a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Next(AtomicUsize);

/// The current region: a borrowed task whose life is guarded by `Pool::run`.
#[derive(Clone, Copy, Debug)]
struct Region {
    task: *const Task<'static>,
    count: usize,
}

// SAFETY: the task is `Sync`, and `Pool::run` keeps it alive until all workers are done with it.
unsafe impl Send for Region {}

impl Pool {
    /// A pool of `threads` threads in all, the caller's included; at least one. Those that the
    /// system does not start are [`missing`](Pool::missing). Worker `i` stays on CPU `cpus[i + 1]`,
    /// if there are CPUs; the caller's thread is left as it is, because others may inherit its
    /// CPUs.
    pub(crate) fn new(threads: usize, cpus: Option<&[usize]>) -> Self {
        let others = threads.max(1) - 1;
        let shared = Arc::new(State {
            epoch: AtomicU64::new(0),
            region: Mutex::new(None),
            shares: AtomicUsize::new(1),
            next: (0..=others).map(|_| Next::default()).collect(),
            running: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            parked: (0..others).map(|_| AtomicBool::new(false)).collect(),
        });
        let workers: Vec<_> = (0..others)
            .map_while(|index| {
                let shared = Arc::clone(&shared);
                let cpu = cpus.and_then(|cpus| cpus.get(index + 1).copied());
                let work = move || {
                    cpu.into_iter().for_each(affinity::pin);
                    shared.work(index);
                };
                thread::Builder::new().name(format!("worker-{index}")).spawn(work).ok()
            })
            .collect();
        shared.shares.store(workers.len() + 1, Ordering::Relaxed);
        let missing = others - workers.len();
        let (caller, regions) = (Mutex::default(), AtomicU64::new(0));
        Self { shared, workers, missing, caller, regions, counting: None }
    }

    /// A pool that divides work as if it had `threads` threads, and only counts the tasks.
    pub(crate) fn counting(threads: usize) -> Self {
        let counting = Counting { threads, tasks: Mutex::default() };
        let mut pool = Self::new(1, None);
        pool.counting = Some(counting);
        pool
    }

    /// The tasks of each parallel region since the last call, if they are only counted.
    pub fn take_counts(&self) -> Vec<usize> {
        let counts = self.counting.as_ref().map(|counting| &counting.tasks);
        let take = |tasks: &Mutex<Vec<usize>>| {
            std::mem::take(&mut *tasks.lock().unwrap_or_else(PoisonError::into_inner))
        };
        counts.map(take).unwrap_or_default()
    }

    /// Threads that the system refused to start.
    pub fn missing(&self) -> usize {
        self.missing
    }

    /// Threads that work, the caller's included.
    pub fn threads(&self) -> usize {
        self.counting.as_ref().map_or(self.workers.len() + 1, |counting| counting.threads)
    }

    /// Parallel regions run so far.
    pub fn regions(&self) -> u64 {
        self.regions.load(Ordering::Relaxed)
    }

    /// Runs `task(scratch, i)` for every `i` in `0..count` and returns when all are done.
    ///
    /// # Panics
    /// If a task panics. Must not be called from within a task.
    pub(crate) fn run(&self, count: usize, task: &Task<'_>) {
        if let Some(counting) = &self.counting {
            counting.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(count);
            return;
        }
        let mut scratch = self.caller.lock().unwrap_or_else(PoisonError::into_inner);
        self.regions.fetch_add(1, Ordering::Relaxed);
        if self.workers.is_empty() || count <= 1 {
            (0..count).for_each(|i| task(&mut scratch, i));
            return;
        }
        let state = &*self.shared;
        // SAFETY: only the lifetime changes; `run` does not return before every worker has
        // counted itself out of this region, after which none touches the task again.
        let task_forever = unsafe {
            std::mem::transmute::<*const Task<'_>, *const Task<'static>>(std::ptr::from_ref(task))
        };
        *state.region.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Region { task: task_forever, count });
        for (share, next) in state.next.iter().enumerate().take(self.workers.len() + 1) {
            next.0.store(state.first(share, count), Ordering::Relaxed);
        }
        state.running.store(self.workers.len(), Ordering::Relaxed);
        state.epoch.fetch_add(1, Ordering::SeqCst);
        for (worker, parked) in self.workers.iter().zip(&state.parked) {
            if parked.load(Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
        let mine =
            catch_unwind(AssertUnwindSafe(|| state.take_tasks(task, count, 0, &mut scratch)));
        let mut spins = 0;
        while state.running.load(Ordering::Acquire) != 0 {
            wait_a_little(&mut spins);
        }
        // Read before anything unwinds, or the next region would seem to have panicked.
        let worker_panicked = state.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = mine {
            resume_unwind(panic);
        }
        assert!(!worker_panicked, "a worker's task panicked");
    }
}

impl Pool {
    /// Runs `task` on the caller's thread, with its memory; no parallel region.
    pub(crate) fn alone(&self, task: impl FnOnce(&mut Scratch)) {
        task(&mut self.caller.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl State {
    fn work(&self, index: usize) {
        let mut scratch = Scratch::default();
        let mut seen = 0;
        loop {
            self.wait_for_region(index, seen);
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            seen = self.epoch.load(Ordering::SeqCst);
            let region = *self.region.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(Region { task, count }) = region {
                // SAFETY: `Pool::run` waits for `running` to reach zero, which this worker has
                // not counted down yet, so the task is alive.
                let task = unsafe { &*task };
                let run = || self.take_tasks(task, count, index + 1, &mut scratch);
                if catch_unwind(AssertUnwindSafe(run)).is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
            }
            self.running.fetch_sub(1, Ordering::Release);
        }
    }

    /// Where a share of `count` tasks begins; the share after the last, where they end.
    fn first(&self, share: usize, count: usize) -> usize {
        let shares = self.shares.load(Ordering::Relaxed);
        let (each, rest) = (count / shares, count % shares);
        share * each + share.min(rest)
    }

    fn take_tasks(&self, task: &Task<'_>, count: usize, thread: usize, scratch: &mut Scratch) {
        let shares = self.shares.load(Ordering::Relaxed);
        for share in (thread..shares).chain(0..thread) {
            let end = self.first(share + 1, count);
            loop {
                let i = self.next[share].0.fetch_add(1, Ordering::Relaxed);
                if i >= end {
                    break;
                }
                task(scratch, i);
            }
        }
    }

    fn wait_for_region(&self, index: usize, seen: u64) {
        let mut spins = 0;
        while self.epoch.load(Ordering::SeqCst) == seen && !self.stop.load(Ordering::SeqCst) {
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
                continue;
            }
            self.parked[index].store(true, Ordering::SeqCst);
            // The epoch is read again after the flag is up: a region begun in between is not
            // missed, because its caller then sees the flag and unparks.
            if self.epoch.load(Ordering::SeqCst) == seen && !self.stop.load(Ordering::SeqCst) {
                thread::park();
            }
            self.parked[index].store(false, Ordering::SeqCst);
        }
    }
}

fn wait_a_little(spins: &mut u32) {
    if *spins < SPINS {
        *spins += 1;
        std::hint::spin_loop();
    } else {
        thread::yield_now();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches its tasks' panics, so joining cannot fail.
            drop(worker.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_exactly_once_in_every_region() {
        for threads in [1, 2, 4] {
            let pool = Pool::new(threads, None);
            for round in 0..300 {
                let counts: Vec<_> = (0..round % 37).map(|_| AtomicUsize::new(0)).collect();
                pool.run(counts.len(), &|_, i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
            }
            assert_eq!(pool.regions(), 300);
        }
    }

    #[test]
    fn a_parked_pool_wakes_up() {
        let pool = Pool::new(3, None);
        for _ in 0..3 {
            thread::sleep(std::time::Duration::from_millis(30));
            let sum = AtomicUsize::new(0);
            pool.run(100, &|_, i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 4950);
        }
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2, None);
        let run = catch_unwind(AssertUnwindSafe(|| pool.run(8, &|_, i| assert!(i != 5))));
        assert!(run.is_err());
        let ran = AtomicUsize::new(0);
        pool.run(8, &|_, _| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.into_inner(), 8);
    }

    #[test]
    fn after_caller_and_worker_panicked_the_next_region_is_well() {
        let pool = Pool::new(4, None);
        for _ in 0..20 {
            let barrier = std::sync::Barrier::new(4); // each thread has a task that panics
            let run = catch_unwind(AssertUnwindSafe(|| {
                pool.run(4, &|_, i| {
                    barrier.wait();
                    panic!("task {i}");
                });
            }));
            assert!(run.is_err());
            pool.run(8, &|_, _| {});
        }
    }

    #[test]
    fn a_counting_pool_computes_nothing_and_counts_tasks() {
        let pool = Pool::counting(192);
        pool.run(7, &|_, _| unreachable!("not computed"));
        pool.run(0, &|_, _| unreachable!("not computed"));
        assert_eq!(
            (pool.threads(), pool.take_counts(), pool.take_counts()),
            (192, vec![7, 0], vec![])
        );
    }

    #[test]
    fn pinned_threads_compute_and_leave_the_caller_alone() {
        let before = affinity::cpus(2);
        let pool = Pool::new(2, before.as_deref());
        let sum = AtomicUsize::new(0);
        pool.run(100, &|_, i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!((sum.into_inner(), affinity::cpus(2)), (4950, before));
    }
}
