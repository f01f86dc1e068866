//! Experts that were guessed, read before they are picked, into bandwidth that nobody else wants.
//!
//! A guess is read when no pick is (the readers' queue sees to that), into one of a few frames that
//! stay free for guesses: no expert leaves for it. With the picks of its layer it is over. If it was
//! picked, it is an expert like others, and whoever is worth least leaves to make the next free frame;
//! if not, it is forgotten, and what had not been read of it is not read.
//!
//! Guesses may be wrong, and what they read in vain would wear out the gain: they have an allowance, a
//! share of all reads that were needed, and come to rest when it is spent. So the bytes that are read
//! in vain are bounded by construction, whatever a model's routers are like.

use super::{ExpertCache, Frame, SLICES_MAX};
use crate::io::{CAPACITY, Urgency};
use crate::residency::Place;

/// Experts that may be read in vain for each one that was read and needed.
const WASTE: f64 = 0.08;
/// Guesses that may be open, or wrong, before that many reads were needed; and the most that can be
/// saved up.
const ALLOWANCE: f64 = 8.0;
/// Frames of each class that stay free for guesses, if that is a small share of all.
const RESERVE: usize = 6;
const RESERVE_SHARE: usize = 6;

/// Guesses of the next layer.
#[derive(Debug)]
pub(super) struct Guesses {
    /// Most that may be open, so that they never crowd out demand; 0 is none at all.
    most: usize,
    /// Frames whose experts were guessed, and neither picked nor given up.
    open: Vec<usize>,
    /// Experts that may still be read in vain.
    allowance: f64,
}

impl Guesses {
    /// At most so many at a time.
    pub(super) fn new(most: usize) -> Self {
        Self { most, open: Vec::with_capacity(most), allowance: ALLOWANCE }
    }

    /// An expert was read that was needed.
    pub(super) fn allow(&mut self) {
        self.allowance = (self.allowance + WASTE).min(ALLOWANCE);
    }
}

/// Free frames of a class that has `count`.
pub(super) fn reserve(count: usize) -> usize {
    RESERVE.min(count / RESERVE_SHARE)
}

impl ExpertCache {
    /// Whether a guess would be read: not if there are enough of them, or everything is in memory.
    pub fn wants_guesses(&self) -> bool {
        let all = self.layers.len() * self.experts;
        self.guesses.most > 0 && self.guesses.allowance >= 1.0 && self.capacity() < all
    }

    /// An expert will probably be picked by `layer`, whose turn is next.
    pub fn guess(&mut self, layer: usize, expert: usize) {
        let number = self.residency.number(layer, expert);
        let has_room = self.guesses.open.len() < self.guesses.most
            && self.reader.in_flight() + SLICES_MAX <= CAPACITY / 2;
        if !self.wants_guesses() || !has_room || self.residency.frame(number).is_some() {
            return;
        }
        if let Place::Given(frame) = self.residency.place_free(number) {
            self.guesses.allowance -= 1.0;
            self.guesses.open.push(frame);
            self.frames[frame].is_guess = true;
            // As long as it is a guess.
            self.residency.pin(frame);
            self.read(Urgency::Guess, layer, expert, frame);
        }
    }

    /// The expert of `frame`, which was there already, has been picked. `false` if it cannot stay now.
    pub(super) fn found(&mut self, frame: usize) -> bool {
        let Some(number) = self.residency.expert(frame) else { return false };
        let taken_back = self.frames[frame].taken_back;
        if taken_back.contains(&true) && self.reader.in_flight() + SLICES_MAX > CAPACITY {
            return false;
        }
        let Frame { is_guess, is_expired, missing, .. } = &mut self.frames[frame];
        let was_foreseen = *is_guess || *is_expired || *missing > 0;
        // Given up, but not forgotten yet: now it stays.
        *is_expired = false;
        if self.forget_guess(frame) {
            self.guesses.allowance += 1.0;
            self.guesses.allow();
        }
        let (layer, expert) = (number / self.experts, number % self.experts);
        for at in (0..SLICES_MAX).filter(|&at| taken_back[at]) {
            self.read_slice(Urgency::Demand, (layer, expert, at), frame);
        }
        if self.frames[frame].missing > 0 {
            let tag = (frame * SLICES_MAX) as u64;
            self.reader.promote(tag..tag + SLICES_MAX as u64);
        }
        let mut stats = self.monitor.lock();
        if was_foreseen {
            (stats.misses, stats.foreseen) = (stats.misses + 1, stats.foreseen + 1);
        } else {
            stats.hits += 1;
        }
        true
    }

    /// It is no guess any more; returns whether it was one.
    pub(super) fn forget_guess(&mut self, frame: usize) -> bool {
        let was_guess = std::mem::take(&mut self.frames[frame].is_guess);
        if was_guess {
            self.guesses.open.retain(|&other| other != frame);
            self.residency.unpin(frame);
        }
        was_guess
    }

    /// The picks of `layer` have been asked for: guesses that were none of them are over.
    pub fn end_guesses(&mut self, layer: usize) {
        if self.guesses.most == 0 {
            return;
        }
        while let Some(frame) = self.guesses.open.pop() {
            self.give_up(frame);
        }
        self.residency.restore(layer);
    }

    /// A guess was wrong: what waits to be read is not, what is being read is forgotten when it lands.
    fn give_up(&mut self, frame: usize) {
        self.residency.unpin(frame);
        let tag = (frame * SLICES_MAX) as u64;
        let Frame { slots, missing, is_guess, is_expired, taken_back, .. } =
            &mut self.frames[frame];
        *is_guess = false;
        let slices = slots.iter().flatten().count() + *missing;
        let mut spared = 0;
        while let Some(read) = self.reader.withdraw(tag..tag + SLICES_MAX as u64) {
            let at = read.tag as usize % SLICES_MAX;
            (slots[at], taken_back[at]) = (Some(read.slot), true);
            *missing -= 1;
            spared += 1;
        }
        *is_expired = *missing > 0;
        let is_over = *missing == 0;
        self.guesses.allowance += f64::from(spared) / slices.max(1) as f64;
        if (spared as usize) < slices {
            self.monitor.lock().wasted += 1;
        }
        if is_over && spared > 0 {
            // Landed, as far as it was begun.
            self.frames[frame].failure = None;
            self.residency.unpin(frame);
        }
        if is_over {
            self.residency.remove(frame);
        }
    }
}
