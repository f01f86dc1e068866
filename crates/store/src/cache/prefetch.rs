//! Prefetching: experts that the next layer will probably choose are read while the drive is idle.
//!
//! A prefetch starts only when no demand read waits (the readers' queue ensures that), and goes
//! into one of a few frames that are kept free for prefetches: it never evicts an expert. It ends
//! with the routing of its layer. A prefetched expert that was chosen becomes an expert like any
//! other, and the least valuable one is evicted to keep a frame free; otherwise it is dropped, and
//! reads that have not started are cancelled.
//!
//! Wrong prefetches cost bandwidth. They draw on an allowance, which is a share of all demand
//! reads, and stop when it is spent: the bytes read without need are bounded whatever the routers
//! are like.

use super::{ExpertCache, Frame, SLICES_MAX};
use crate::io::{CAPACITY, Priority};
use crate::residency::Place;

/// Experts that may be read without need for each demand read.
const WASTE: f64 = 0.08;
/// Prefetches that may be open or wrong before the first demand read; also the largest allowance.
const ALLOWANCE: f64 = 8.0;
/// Frames of each class that are kept free for prefetches, if that is a small share of all.
const RESERVE: usize = 6;
const RESERVE_SHARE: usize = 6;

/// The prefetches of the next layer.
#[derive(Debug)]
pub(super) struct Prefetches {
    /// The most that may be open, so that they never crowd out demand; 0 turns prefetching off.
    most: usize,
    /// Frames whose experts were prefetched, and neither chosen nor dropped yet.
    open: Vec<usize>,
    /// Experts that may still be read without need.
    allowance: f64,
}

impl Prefetches {
    /// At most `most` at a time.
    pub(super) fn new(most: usize) -> Self {
        Self { most, open: Vec::with_capacity(most), allowance: ALLOWANCE }
    }

    /// A demand read adds to the allowance.
    pub(super) fn allow(&mut self) {
        self.allowance = (self.allowance + WASTE).min(ALLOWANCE);
    }
}

/// Frames that are kept free in a class of `count`.
pub(super) fn reserve(count: usize) -> usize {
    RESERVE.min(count / RESERVE_SHARE)
}

impl ExpertCache {
    /// Whether prefetches would be read: not if the allowance is spent, or all experts are
    /// resident.
    pub fn wants_prefetch(&self) -> bool {
        let all = self.layers.len() * self.experts;
        self.prefetches.most > 0 && self.prefetches.allowance >= 1.0 && self.capacity() < all
    }

    /// Starts to read an expert that `layer`, the next one to be computed, will probably choose.
    pub fn prefetch(&mut self, layer: usize, expert: usize) {
        let number = self.residency.number(layer, expert);
        let has_room = self.prefetches.open.len() < self.prefetches.most
            && self.reader.in_flight() + SLICES_MAX <= CAPACITY / 2;
        let is_needless = !has_room || self.residency.frame(number).is_some();
        if !self.wants_prefetch() || is_needless || !self.has_arrived(layer, expert) {
            return;
        }
        if let Place::Assigned(frame) = self.residency.place_free(number) {
            self.prefetches.allowance -= 1.0;
            self.prefetches.open.push(frame);
            self.frames[frame].is_prefetch = true;
            // Until its layer has been routed.
            self.residency.pin(frame);
            self.read(Priority::Prefetch, layer, expert, frame);
        }
    }

    /// The expert of `frame` has been chosen. `false` if the rest of it cannot be read now.
    pub(super) fn found(&mut self, frame: usize) -> bool {
        let Some(number) = self.residency.expert(frame) else { return false };
        let cancelled = self.frames[frame].cancelled;
        if cancelled.contains(&true) && self.reader.in_flight() + SLICES_MAX > CAPACITY {
            return false;
        }
        let Frame { is_prefetch, is_expired, missing, .. } = &mut self.frames[frame];
        let was_prefetched = *is_prefetch || *is_expired || *missing > 0;
        // Dropped, but still being read: now it stays.
        *is_expired = false;
        if self.forget_prefetch(frame) {
            self.prefetches.allowance += 1.0;
            self.prefetches.allow();
        }
        let (layer, expert) = (number / self.experts, number % self.experts);
        for at in (0..SLICES_MAX).filter(|&at| cancelled[at]) {
            self.read_slice(Priority::Demand, (layer, expert, at), frame);
        }
        if self.frames[frame].missing > 0 {
            let tag = (frame * SLICES_MAX) as u64;
            self.reader.promote(tag..tag + SLICES_MAX as u64);
        }
        let mut stats = self.monitor.lock();
        if was_prefetched {
            (stats.misses, stats.prefetch_hits) = (stats.misses + 1, stats.prefetch_hits + 1);
        } else {
            stats.hits += 1;
        }
        true
    }

    /// Removes the mark of a prefetch; returns whether there was one.
    pub(super) fn forget_prefetch(&mut self, frame: usize) -> bool {
        let was_guess = std::mem::take(&mut self.frames[frame].is_prefetch);
        if was_guess {
            self.prefetches.open.retain(|&other| other != frame);
            self.residency.unpin(frame);
        }
        was_guess
    }

    /// The experts of `layer` have been requested: drops all other prefetches.
    pub fn end_prefetch(&mut self, layer: usize) {
        if self.prefetches.most == 0 {
            return;
        }
        while let Some(frame) = self.prefetches.open.pop() {
            self.drop_prefetch(frame);
        }
        self.residency.restore(layer);
    }

    /// Drops a wrong prefetch: waiting reads are cancelled, running ones are discarded when
    /// complete.
    fn drop_prefetch(&mut self, frame: usize) {
        self.residency.unpin(frame);
        let tag = (frame * SLICES_MAX) as u64;
        let Frame { slots, missing, is_prefetch, is_expired, cancelled, .. } =
            &mut self.frames[frame];
        *is_prefetch = false;
        let slices = slots.iter().flatten().count() + *missing;
        let mut spared = 0;
        while let Some(read) = self.reader.withdraw(tag..tag + SLICES_MAX as u64) {
            let at = read.tag as usize % SLICES_MAX;
            (slots[at], cancelled[at]) = (Some(read.slot), true);
            *missing -= 1;
            spared += 1;
        }
        *is_expired = *missing > 0;
        let is_over = *missing == 0;
        self.prefetches.allowance += f64::from(spared) / slices.max(1) as f64;
        if (spared as usize) < slices {
            self.monitor.lock().prefetch_unused += 1;
        }
        if is_over && spared > 0 {
            // Every read that had started is complete.
            self.frames[frame].failure = None;
            self.residency.unpin(frame);
        }
        if is_over {
            self.residency.remove(frame);
        }
    }
}
