//! The expert cache: experts in memory, read from their files when a router chooses them.
//!
//! The cache belongs to the thread that computes. It hands frames of memory to a [`Reader`] and
//! gets them back filled; in between no other thread can access them. [`ExpertCache::request`]
//! never waits, except for a file that is still being written; [`ExpertCache::wait`] waits for one
//! expert and returns its error. A failed read leaves no trace: the next request for the expert
//! reads it again.

mod arriving;
mod monitor;
mod prefetch;
mod prewarm;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::Error;
use crate::io::{CAPACITY, Done, Priority, Read, ReadFile, Reader, skipped};
use crate::policy::{Frequency, Policy};
use crate::residency::{Frames, Place, Residency};
use crate::slab::Slot;
pub use monitor::{CacheStats, Monitor};
use prefetch::Prefetches;

/// Slices of an expert: gate, up and down, or gate and up in one, and down.
pub const SLICES_MAX: usize = 3;
/// How long a drive may deliver nothing before a read is an error.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The equal matrices of all experts of a layer, stored one after the other in a file.
#[derive(Clone, Debug)]
pub struct StackedExperts {
    pub(crate) file: Arc<ReadFile>,
    /// Offset of the first.
    pub(crate) offset: u64,
    /// Bytes of one.
    pub(crate) len: usize,
}

impl StackedExperts {
    /// Bytes of one of the matrices.
    pub fn slice_bytes(&self) -> usize {
        self.len
    }
}

/// Options of an [`ExpertCache`].
#[derive(Clone, Debug)]
pub struct CacheOptions {
    /// Bytes of memory for experts.
    pub budget: u64,
    /// Experts of each layer.
    pub experts: usize,
    /// Experts that a token uses in each layer.
    pub used: usize,
    /// The model's number of the first layer with experts. The cache counts layers from it; errors
    /// name them as the model does.
    pub first_layer: usize,
    /// How long a drive may deliver nothing before a read is an error.
    pub stall_timeout: Duration,
    /// Whether the next layer's experts will be prefetched, for which some frames are kept free.
    pub prefetch: bool,
}

impl CacheOptions {
    /// For layers from `first_layer` on, of `experts` experts of which a token uses `used`.
    pub fn new(budget: u64, first_layer: usize, experts: usize, used: usize) -> Self {
        Self { budget, experts, used, first_layer, stall_timeout: STALL_TIMEOUT, prefetch: false }
    }
}

/// A cache of experts.
#[derive(Debug)]
pub struct ExpertCache {
    layers: Vec<Vec<StackedExperts>>,
    experts: usize,
    residency: Residency<Frequency>,
    frames: Vec<Frame>,
    frame_bytes: Vec<u64>, // [classes]
    counts: Vec<usize>,    // [classes]: frames in use
    counts_min: usize,
    retired: Vec<Vec<usize>>, // [classes]: frames whose memory was released
    class_of: Vec<usize>,     // [layers]
    reader: Reader,
    first_layer: usize,
    stall_timeout: Duration,
    in_use: Vec<usize>,
    failures: Vec<(usize, Error)>,
    /// Experts to read in the background, the most popular last.
    wanted: Vec<u32>,
    prefetches: Prefetches,
    /// Where popularity is saved for the next run.
    stats_file: Option<PathBuf>,
    saved_at: Instant,
    /// Until when reads are known to have been in flight.
    busy_until: Instant,
    monitor: Monitor,
    is_locked: bool,
}

/// Memory for one expert.
#[derive(Debug, Default)]
struct Frame {
    slots: [Option<Slot>; SLICES_MAX],
    /// Slices that are being read.
    missing: usize,
    failure: Option<Error>,
    /// Its expert was prefetched, and the routing of its layer is not known yet.
    is_prefetch: bool,
    /// It is freed as soon as its reads are complete.
    is_expired: bool,
    /// Slices whose reads were cancelled.
    cancelled: [bool; SLICES_MAX],
}

impl ExpertCache {
    /// A cache for `layers`, each with the slices of its experts. All of its memory is reserved
    /// now, and taken in the background.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new(
        layers: Vec<Vec<StackedExperts>>,
        reader: Reader,
        options: &CacheOptions,
    ) -> Result<Self, Error> {
        let &CacheOptions { budget, experts, used, first_layer, stall_timeout, prefetch } = options;
        let slices = |layer: &Vec<StackedExperts>| layer.iter().map(|stack| stack.len).collect();
        let (class_of, classes) = classes(&layers.iter().map(slices).collect::<Vec<_>>());
        let (counts, frame_bytes) = frame_counts(&class_of, &classes, options);
        let all: usize = counts.iter().sum();
        let total: u64 = counts.iter().zip(&frame_bytes).map(|(&n, bytes)| n as u64 * bytes).sum();
        let memory = |source| Error::CacheMemory { size: budget, source };
        let len = usize::try_from(total).map_err(|e| memory(io::Error::other(e)))?;
        let mut rest = Slot::new(len).map_err(memory)?;
        let is_locked = rest.lock().is_ok();
        // Where this is impossible, pages are allocated when they are first written.
        let _in_the_background = rest.populate();
        let mut frames = Vec::with_capacity(all);
        for (rooms, &count) in classes.iter().zip(&counts) {
            for _ in 0..count {
                let mut frame = Frame::default();
                for (slot, &room) in frame.slots.iter_mut().zip(rooms) {
                    let (own, others) = rest.split(room);
                    (*slot, rest) = (Some(own), others);
                }
                frames.push(frame);
            }
        }
        let one = Frames::of_one_class(layers.len(), experts, used, all);
        let least = counts.iter().copied().min().unwrap_or(0);
        let reserve = if prefetch { prefetch::reserve(least) } else { 0 };
        let shape = Frames { class_of: class_of.clone(), counts: counts.clone(), reserve, ..one };
        let monitor = Monitor::default();
        monitor.0.capacity.store(total, Ordering::Relaxed);
        Ok(Self {
            residency: Residency::new(&shape, Frequency::new(layers.len() * experts)),
            layers,
            experts,
            frames,
            frame_bytes,
            counts,
            counts_min: used,
            retired: vec![Vec::new(); classes.len()],
            class_of,
            reader,
            first_layer,
            stall_timeout,
            in_use: Vec::with_capacity(all),
            failures: Vec::new(),
            wanted: Vec::new(),
            prefetches: Prefetches::new(reserve),
            stats_file: None,
            saved_at: Instant::now(),
            busy_until: Instant::now(),
            monitor,
            is_locked,
        })
    }

    /// A handle to watch this cache.
    pub fn monitor(&self) -> Monitor {
        self.monitor.clone()
    }

    /// The reader.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Whether its memory is locked, so that it cannot be swapped out.
    pub fn is_locked(&self) -> bool {
        self.is_locked
    }

    /// Experts that can be resident.
    pub fn capacity(&self) -> usize {
        self.counts.iter().sum()
    }

    /// Experts of `layer`, and of layers with slices of the same sizes, that can be resident.
    pub fn capacity_for(&self, layer: usize) -> usize {
        self.counts[self.class_of[layer]]
    }

    /// Starts a batch of `tokens` tokens.
    pub fn advance(&mut self, tokens: usize) {
        self.residency.policy().advance(u32::try_from(tokens).unwrap_or(u32::MAX));
        let release = self.monitor.0.reclaim_target.swap(0, Ordering::Relaxed);
        let grow = self.monitor.0.available.swap(0, Ordering::Relaxed);
        if release > 0 {
            self.shrink(release);
        } else if grow > 0 {
            self.grow(grow);
        }
        self.save_stats_in_time();
    }

    /// The token `age` tokens before the last one of the batch uses `expert` of `layer`.
    pub fn touch(&mut self, layer: usize, expert: usize, age: usize) {
        let number = self.residency.number(layer, expert);
        self.residency.policy().touch(number, u32::try_from(age).unwrap_or(u32::MAX));
    }

    /// Starts a layer, after its experts have been touched: unpins those of the last one.
    pub fn begin_layer(&mut self) {
        while let Some(frame) = self.in_use.pop() {
            self.residency.unpin(frame);
        }
        self.failures.clear();
        self.residency.rank_again();
        self.poll();
    }

    /// Pins an expert if it is resident, and starts to read it otherwise. `false` if there is no
    /// frame for it now, because all are in use.
    pub fn request(&mut self, layer: usize, expert: usize) -> bool {
        let number = self.residency.number(layer, expert);
        let frame = match self.residency.place(number) {
            Place::Resident(frame) => {
                if !self.found(frame) {
                    return false;
                }
                frame
            }
            Place::Assigned(frame) => {
                if self.reader.in_flight() + SLICES_MAX > CAPACITY {
                    self.residency.remove(frame);
                    return false;
                }
                if let Err(error) = self.wait_for_arrival(layer, expert) {
                    self.residency.remove(frame);
                    self.failures.push((number, error));
                    return true; // waiting for it returns the error
                }
                self.monitor.lock().misses += 1;
                self.prefetches.allow();
                self.read(Priority::Demand, layer, expert, frame);
                frame
            }
            Place::Full => return false,
        };
        self.residency.pin(frame);
        self.in_use.push(frame);
        true
    }

    /// Pins an expert that is resident or being read, until the next layer starts or it is
    /// released; returns whether it is. A prefetched expert is not pinned: the prefetch may be
    /// dropped first.
    pub fn keep(&mut self, layer: usize, expert: usize) -> bool {
        let frame = self.residency.frame(self.residency.number(layer, expert));
        let frame = frame.filter(|&frame| {
            let Frame { is_prefetch, is_expired, .. } = &self.frames[frame];
            !is_prefetch && !is_expired
        });
        if let Some(frame) = frame {
            self.residency.pin(frame);
            self.in_use.push(frame);
        }
        frame.is_some()
    }

    /// Unpins an expert that has been computed: it may be evicted.
    pub fn release(&mut self, layer: usize, expert: usize) {
        let Self { residency, in_use, .. } = self;
        let Some(frame) = residency.frame(residency.number(layer, expert)) else { return };
        in_use.retain(|&other| {
            if other == frame {
                residency.unpin(frame);
            }
            other != frame
        });
    }

    /// Starts to read an expert into a frame.
    fn read(&mut self, priority: Priority, layer: usize, expert: usize, frame: usize) {
        (0..SLICES_MAX).for_each(|at| self.read_slice(priority, (layer, expert, at), frame));
        self.residency.pin(frame);
    }

    /// Starts to read one slice of an expert into its frame, which is pinned.
    fn read_slice(
        &mut self,
        priority: Priority,
        (layer, expert, at): (usize, usize, usize),
        frame: usize,
    ) {
        let Frame { slots, missing, cancelled, .. } = &mut self.frames[frame];
        cancelled[at] = false;
        let Some(stack) = self.layers[layer].get(at) else { return };
        let Some(slot) = slots[at].take() else {
            panic!("slice {at} of expert {expert} in layer {layer} is being read already")
        };
        let offset = stack.offset + (expert * stack.len) as u64;
        let tag = (frame * SLICES_MAX + at) as u64;
        let read = Read::covering(tag, &stack.file, offset, stack.len, slot);
        self.reader.submit(priority, read);
        *missing += 1;
    }

    /// Whether an expert is resident or being read.
    pub fn has(&self, layer: usize, expert: usize) -> bool {
        self.residency.frame(self.residency.number(layer, expert)).is_some()
    }

    /// Counts chosen experts, `replaced` of which are not the router's own choice.
    pub fn note_routing(&self, picks: usize, replaced: usize) {
        let mut stats = self.monitor.lock();
        (stats.routed, stats.replaced) =
            (stats.routed + picks as u64, stats.replaced + replaced as u64);
    }

    /// Whether an expert can be computed.
    pub fn is_ready(&self, layer: usize, expert: usize) -> bool {
        let frame = self.residency.frame(self.residency.number(layer, expert));
        frame.is_some_and(|frame| self.frames[frame].missing == 0)
    }

    /// The slices of an expert that is ready; unused slices are empty.
    ///
    /// # Panics
    /// If it is not ready.
    pub fn slices(&self, layer: usize, expert: usize) -> [&[u8]; SLICES_MAX] {
        assert!(self.is_ready(layer, expert), "expert {expert} of layer {layer} is ready");
        let frame = self.residency.frame(self.residency.number(layer, expert));
        let mut slices: [&[u8]; SLICES_MAX] = [&[]; SLICES_MAX];
        let Some(frame) = frame.map(|frame| &self.frames[frame]) else { return slices };
        for ((slice, stack), slot) in slices.iter_mut().zip(&self.layers[layer]).zip(&frame.slots) {
            if let Some(slot) = slot {
                let skipped = skipped(stack.offset + (expert * stack.len) as u64);
                *slice = &slot[skipped..][..stack.len];
            }
        }
        slices
    }

    /// Waits until an expert that was requested is ready.
    ///
    /// # Errors
    /// If it cannot be read, or the drive has stalled.
    pub fn wait(&mut self, layer: usize, expert: usize) -> Result<(), Error> {
        let number = self.residency.number(layer, expert);
        self.poll();
        let begun = Instant::now();
        let waited = loop {
            let Some(frame) = self.residency.frame(number) else {
                break Err(self.failure(layer, expert));
            };
            if self.frames[frame].missing == 0 {
                break Ok(());
            }
            match self.reader.next(self.stall_timeout) {
                Ok(Some(done)) => self.complete(done),
                Ok(None) => {
                    let path = self.layers[layer][0].file.path();
                    break Err(Error::stalled(path, &self.name(layer, expert), self.stall_timeout));
                }
                Err(source) => {
                    let path = self.layers[layer][0].file.path();
                    break Err(Error::unreadable(path, source));
                }
            }
        };
        self.monitor.lock().waited += begun.elapsed();
        waited
    }

    /// Waits until any read is complete.
    ///
    /// # Errors
    /// If none is in flight, or the drive has stalled.
    pub fn wait_any(&mut self) -> Result<(), Error> {
        let begun = Instant::now();
        let completed = self.reader.next(self.stall_timeout);
        self.monitor.lock().waited += begun.elapsed();
        let path = || self.layers[0][0].file.path();
        match completed {
            Ok(Some(done)) => {
                self.complete(done);
                Ok(())
            }
            Ok(None) => Err(Error::stalled(path(), "experts", self.stall_timeout)),
            Err(source) => Err(Error::unreadable(path(), source)),
        }
    }

    /// The error of an expert.
    fn failure(&mut self, layer: usize, expert: usize) -> Error {
        let number = self.residency.number(layer, expert);
        let known = self.failures.iter().position(|(other, _)| *other == number);
        known.map(|at| self.failures.swap_remove(at).1).unwrap_or_else(|| {
            let source = io::Error::other("it was not asked for");
            self.unreadable(layer, expert, 0, source)
        })
    }

    fn unreadable(&self, layer: usize, expert: usize, slice: usize, source: io::Error) -> Error {
        let path = self.layers[layer][slice].file.path().to_owned();
        Error::Expert { path, what: self.name(layer, expert), source }
    }

    /// An expert's name in messages.
    fn name(&self, layer: usize, expert: usize) -> String {
        format!("expert {expert} of layer {}", self.first_layer + layer)
    }

    /// Takes in reads that are complete.
    pub fn poll(&mut self) {
        while let Ok(Some(done)) = self.reader.next(Duration::ZERO) {
            self.complete(done);
        }
    }

    fn complete(&mut self, done: Done) {
        let (frame, slice) =
            (done.read.tag as usize / SLICES_MAX, done.read.tag as usize % SLICES_MAX);
        self.count(&done);
        let Done { read, result, .. } = done;
        // First of all: a frame without its memory could never be used again.
        let Frame { slots, missing, .. } = &mut self.frames[frame];
        slots[slice] = Some(read.slot);
        *missing -= 1;
        let missing = *missing;
        let Some(number) = self.residency.expert(frame) else {
            panic!("frame {frame} was given away while it was read into")
        };
        let (layer, expert) = (number / self.experts, number % self.experts);
        let error = match result {
            Ok(()) => read.file.check_unchanged(|| self.name(layer, expert)).err(),
            Err(source) => Some(self.unreadable(layer, expert, slice, source)),
        };
        let failure = &mut self.frames[frame].failure;
        if failure.is_none() {
            *failure = error;
        }
        if missing == 0 {
            self.completed(number, frame);
        }
    }

    /// All reads of an expert are complete.
    fn completed(&mut self, number: usize, frame: usize) {
        self.residency.unpin(frame);
        let Frame { failure, is_expired, .. } = &mut self.frames[frame];
        let is_expired = std::mem::take(is_expired);
        match failure.take() {
            Some(error) => {
                self.forget_prefetch(frame);
                self.residency.remove(frame);
                self.failures.push((number, error));
            }
            None if is_expired => self.residency.remove(frame),
            None => {}
        }
    }

    /// Adds a read to the statistics; time in which reads overlap counts once.
    fn count(&mut self, done: &Done) {
        let begun = done.read.asked.max(self.busy_until);
        let mut stats = self.monitor.lock();
        stats.busy += done.ended.saturating_duration_since(begun);
        stats.bytes += done.read.len as u64;
        self.busy_until = self.busy_until.max(done.ended);
    }

    /// Releases about `bytes` of memory, from each class its share, but leaves to each class what
    /// one token needs in one layer.
    fn shrink(&mut self, bytes: u64) {
        let all = self.monitor.capacity();
        let mut given = 0;
        for class in 0..self.counts.len() {
            let frame_bytes = self.frame_bytes[class];
            let has = self.counts[class] as u64 * frame_bytes;
            let share = (bytes as f64 * has as f64 / all.max(1) as f64) as u64;
            for _ in 0..share.div_ceil(frame_bytes.max(1)) {
                if self.counts[class] <= self.counts_min {
                    break;
                }
                let Some(frame) = self.residency.retire(class) else { break };
                self.frames[frame].slots.iter_mut().flatten().for_each(Slot::discard);
                self.retired[class].push(frame);
                self.counts[class] -= 1;
                given += frame_bytes;
            }
        }
        self.residency.rank_again();
        self.monitor.0.capacity.fetch_sub(given, Ordering::Relaxed);
    }

    /// Takes back up to `bytes` of memory that was released, for each class its share.
    fn grow(&mut self, bytes: u64) {
        let retired = |class: usize| self.retired[class].len() as u64 * self.frame_bytes[class];
        let all: u64 = (0..self.counts.len()).map(retired).sum();
        let share = (bytes as f64 / all.max(1) as f64).min(1.0);
        let mut taken = 0;
        for class in 0..self.counts.len() {
            let count = (self.retired[class].len() as f64 * share) as usize;
            for _ in 0..count {
                let Some(frame) = self.retired[class].pop() else { break };
                if self.is_locked {
                    let slots = self.frames[frame].slots.iter_mut().flatten();
                    slots.for_each(|slot| drop(slot.lock()));
                }
                self.residency.revive(frame);
                self.counts[class] += 1;
                taken += self.frame_bytes[class];
            }
        }
        self.monitor.0.capacity.fetch_add(taken, Ordering::Relaxed);
    }
}

type SlotBytes = [usize; SLICES_MAX];

/// Bytes of memory that a cache takes with these options, for layers whose experts have slices of
/// these bytes: at most the budget, but room for the experts of a token in any case.
pub fn cache_bytes(layers: &[Vec<usize>], options: &CacheOptions) -> u64 {
    let (class_of, classes) = classes(layers);
    let (counts, frame_bytes) = frame_counts(&class_of, &classes, options);
    counts.iter().zip(&frame_bytes).map(|(&count, bytes)| count as u64 * bytes).sum()
}

/// The class of each layer, and the bytes of the slots of each class.
fn classes(layers: &[Vec<usize>]) -> (Vec<usize>, Vec<SlotBytes>) {
    let mut classes: Vec<SlotBytes> = Vec::new();
    let class_of = layers.iter().map(|slices| {
        let mut rooms = [0; SLICES_MAX];
        rooms.iter_mut().zip(slices).for_each(|(room, stack)| *room = Read::slot_bytes(*stack));
        classes.iter().position(|other| *other == rooms).unwrap_or_else(|| {
            classes.push(rooms);
            classes.len() - 1
        })
    });
    (class_of.collect(), classes)
}

/// Frames of each class, and the bytes of one: the same share of every layer's experts fits.
fn frame_counts(
    class_of: &[usize],
    classes: &[SlotBytes],
    options: &CacheOptions,
) -> (Vec<usize>, Vec<u64>) {
    let bytes: Vec<u64> = classes.iter().map(|rooms| rooms.iter().sum::<usize>() as u64).collect();
    let experts =
        |class: usize| class_of.iter().filter(|&&other| other == class).count() * options.experts;
    let total: u64 = bytes.iter().enumerate().map(|(class, b)| experts(class) as u64 * b).sum();
    let share = (options.budget as f64 / total.max(1) as f64).min(1.0);
    let counts = (0..classes.len()).map(|class| {
        let most = experts(class);
        ((most as f64 * share) as usize).clamp(options.used.min(most), most)
    });
    (counts.collect(), bytes)
}

#[cfg(test)]
mod tests;
