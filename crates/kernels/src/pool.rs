//! Persistent workers: fork, work, join, hundreds of times per token.
//!
//! A decode step is hundreds of short parallel regions, so a region must cost about a microsecond.
//! Workers spin briefly for the next one, then park; the caller works too. Each has a share of
//! neighbouring tasks, whose weights follow one another in memory, and then helps with the shares
//! of others, so a slow core does fewer. Who computes a task never changes what is computed: every
//! task writes its own outputs in a fixed order.
//!
//! A region has one or more phases: the tasks of one begin when all of the one before have ended.
//! That costs less than another region, because no thread is woken, and none waits for one that
//! has no task.

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

/// Computes task `i` of phase `phase`: `task(scratch, phase, i)`.
type Task<'a> = dyn Fn(&mut Scratch, usize, usize) + Sync + 'a;

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
    /// The present phase of the region, and how many of its tasks have ended.
    phase: AtomicUsize,
    ended: AtomicUsize,
    /// The next task of each thread's share, the caller's first.
    next: Vec<Next>,
    /// Workers that have not finished the current region.
    running: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    parked: Vec<AtomicBool>,
}

/// The phase and the next task of a share, in a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Next(AtomicU64);

impl Next {
    fn set(&self, phase: usize, task: usize) {
        self.0.store(Self::pack(phase, task), Ordering::Relaxed);
    }

    /// Takes the next task below `end`, unless `phase` is over.
    fn take(&self, phase: usize, end: usize) -> Option<usize> {
        let mut next = self.0.load(Ordering::Relaxed);
        loop {
            let task = next as u32 as usize;
            if next != Self::pack(phase, task) || task >= end {
                return None;
            }
            let (ok, fail) = (Ordering::Relaxed, Ordering::Relaxed);
            match self.0.compare_exchange_weak(next, next + 1, ok, fail) {
                Ok(_) => return Some(task),
                Err(now) => next = now,
            }
        }
    }

    fn pack(phase: usize, task: usize) -> u64 {
        (phase as u64) << 32 | task as u64
    }
}

/// The current region: a borrowed task whose life is guarded by `Pool::run_phases`.
#[derive(Clone, Copy, Debug)]
struct Region {
    task: *const Task<'static>,
    counts: *const [usize], // tasks of each phase
}

// SAFETY: the task is `Sync`, and `Pool::run_phases` keeps it and the counts alive until all
// workers are done with them.
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
            phase: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
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

    /// The tasks of each phase of each parallel region since the last call, if they are only
    /// counted.
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
    pub(crate) fn run(&self, count: usize, task: &(dyn Fn(&mut Scratch, usize) + Sync)) {
        self.run_phases(&[count], &|scratch, _, i| task(scratch, i));
    }

    /// Runs `task(scratch, phase, i)` for every `i` in `0..counts[phase]`, phase after phase, and
    /// returns when all are done. What a phase has written is seen by the next.
    ///
    /// # Panics
    /// If a task panics; the phases after it do not begin. Must not be called from within a task.
    pub(crate) fn run_phases(&self, counts: &[usize], task: &Task<'_>) {
        if let Some(counting) = &self.counting {
            let mut tasks = counting.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.extend(counts.iter().filter(|&&count| count > 0));
            return;
        }
        let mut scratch = self.caller.lock().unwrap_or_else(PoisonError::into_inner);
        self.regions.fetch_add(1, Ordering::Relaxed);
        if self.workers.is_empty() || counts.iter().all(|&count| count <= 1) {
            for (phase, &count) in counts.iter().enumerate() {
                (0..count).for_each(|i| task(&mut scratch, phase, i));
            }
            return;
        }
        let state = &*self.shared;
        // SAFETY: only the lifetime changes; `run_phases` does not return before every worker has
        // counted itself out of this region, after which none touches the task again.
        let task_forever = unsafe {
            std::mem::transmute::<*const Task<'_>, *const Task<'static>>(std::ptr::from_ref(task))
        };
        *state.region.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Region { task: task_forever, counts });
        state.begin_phase(first_phase(counts, 0), counts);
        state.running.store(self.workers.len(), Ordering::Relaxed);
        state.epoch.fetch_add(1, Ordering::SeqCst);
        for (worker, parked) in self.workers.iter().zip(&state.parked) {
            if parked.load(Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
        let mine = state.take_tasks(task, counts, 0, &mut scratch);
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

/// The first phase from `from` on that has tasks.
fn first_phase(counts: &[usize], from: usize) -> usize {
    (from..counts.len()).find(|&phase| counts[phase] > 0).unwrap_or(counts.len())
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
            if let Some(Region { task, counts }) = region {
                // SAFETY: `Pool::run_phases` waits for `running` to reach zero, which this worker
                // has not counted down yet, so the task and the counts are alive.
                let (task, counts) = unsafe { (&*task, &*counts) };
                if self.take_tasks(task, counts, index + 1, &mut scratch).is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
            }
            self.running.fetch_sub(1, Ordering::Release);
        }
    }

    /// How many shares of `count` tasks have any: the first ones. With many threads, the counters
    /// of all others would take longer than a few tasks.
    fn filled(&self, count: usize) -> usize {
        self.shares.load(Ordering::Relaxed).min(count)
    }

    /// Where a share of `count` tasks begins; the share after the last, where they end.
    fn first(&self, share: usize, count: usize) -> usize {
        let shares = self.shares.load(Ordering::Relaxed);
        let (each, rest) = (count / shares, count % shares);
        share * each + share.min(rest)
    }

    /// Makes `phase` the present one. No thread has a task of another.
    fn begin_phase(&self, phase: usize, counts: &[usize]) {
        if let Some(&count) = counts.get(phase) {
            for (share, next) in self.next.iter().enumerate().take(self.filled(count)) {
                next.set(phase, self.first(share, count));
            }
        }
        self.ended.store(0, Ordering::Relaxed);
        self.phase.store(phase, Ordering::Release);
    }

    /// Computes tasks of all phases, until there are none; or returns what a task panicked with.
    fn take_tasks(
        &self,
        task: &Task<'_>,
        counts: &[usize],
        thread: usize,
        scratch: &mut Scratch,
    ) -> thread::Result<()> {
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut phase = self.phase.load(Ordering::Acquire);
            while let Some(&count) = counts.get(phase) {
                let done = self.take_of_phase(task, phase, count, thread, scratch);
                phase = self.end_of_phase(phase, done, counts);
            }
        }));
        if result.is_err() {
            // The task that panicked is never counted, so no other thread begins a phase.
            self.phase.store(counts.len(), Ordering::Release);
        }
        result
    }

    /// Computes tasks of one phase; returns how many.
    fn take_of_phase(
        &self,
        task: &Task<'_>,
        phase: usize,
        count: usize,
        thread: usize,
        scratch: &mut Scratch,
    ) -> usize {
        let filled = self.filled(count);
        let mut done = 0;
        for share in (thread..filled).chain(0..thread.min(filled)) {
            let end = self.first(share + 1, count);
            while let Some(i) = self.next[share].take(phase, end) {
                task(scratch, phase, i);
                done += 1;
            }
        }
        done
    }

    /// Counts `done` tasks of `phase`, and waits until all have ended, unless it is the last that
    /// has any. Returns the next phase.
    fn end_of_phase(&self, phase: usize, done: usize, counts: &[usize]) -> usize {
        let next = first_phase(counts, phase + 1);
        if next == counts.len() {
            return next;
        }
        // Each sees what those before it have written, and all see what the last one has seen.
        if done > 0 && self.ended.fetch_add(done, Ordering::AcqRel) + done == counts[phase] {
            self.begin_phase(next, counts);
            return next;
        }
        let mut spins = 0;
        loop {
            let now = self.phase.load(Ordering::Acquire);
            if now != phase {
                return now;
            }
            wait_a_little(&mut spins);
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
    fn a_phase_begins_when_all_tasks_of_the_one_before_have_ended() {
        for threads in [1, 2, 4] {
            let pool = Pool::new(threads, None);
            for round in 0..200usize {
                let counts = [round % 3, round % 11, 0, round % 5, 1, round % 7];
                let done: Vec<_> = counts.iter().map(|_| AtomicUsize::new(0)).collect();
                pool.run_phases(&counts, &|_, phase, i| {
                    assert!(i < counts[phase]);
                    let before = done[..phase].iter().zip(&counts);
                    assert!(before.into_iter().all(|(d, &c)| d.load(Ordering::Relaxed) == c));
                    done[phase].fetch_add(1, Ordering::Relaxed);
                });
                let done = done.into_iter().map(AtomicUsize::into_inner);
                assert_eq!(done.collect::<Vec<_>>(), counts);
            }
            assert_eq!(pool.regions(), 200);
        }
    }

    #[test]
    fn after_a_panic_no_phase_begins() {
        for (threads, bad) in [(1, (0, 0)), (2, (0, 0)), (3, (0, 7)), (4, (1, 19)), (40, (1, 3))] {
            let pool = Pool::new(threads, None);
            let later = AtomicUsize::new(0);
            let run = catch_unwind(AssertUnwindSafe(|| {
                pool.run_phases(&[20, 20, 20], &|_, phase, i| {
                    assert!((phase, i) != bad);
                    later.fetch_add(usize::from(phase > bad.0), Ordering::Relaxed);
                });
            }));
            assert!(run.is_err() && later.into_inner() == 0);
            pool.run_phases(&[3, 3], &|_, _, _| {});
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
            (192, vec![7], vec![])
        );
        pool.run_phases(&[2, 0, 5], &|_, _, _| unreachable!("not computed"));
        assert_eq!(pool.take_counts(), [2, 5]);
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
