//! Which expert is in which frame: the bookkeeping of the cache, without its memory.
//!
//! Experts of layers whose slices have the same sizes share a class of frames. A miss takes a free
//! frame of its class, or evicts the least valuable expert; pinned frames, whose experts are about
//! to be computed or being read, stay. An expert that was just read and is rarely chosen has little
//! value and is evicted first: so a long prompt does not evict what decoding uses, without a
//! bypass.
//!
//! `cargo xtask replay` runs this code on recorded traces.

use crate::policy::Policy;

const NONE: u32 = u32::MAX;
/// Victims that are ranked at a time: a layer rarely misses more.
const BATCH: usize = 16;

/// The frames of a cache.
#[derive(Clone, Debug)]
pub struct Frames {
    /// Experts of each layer.
    pub experts: usize,
    /// The class of each layer.
    pub class_of: Vec<usize>,
    /// Frames of each class.
    pub counts: Vec<usize>,
    /// Experts that each layer keeps as long as other layers have more to evict.
    pub floor: usize,
    /// Frames of each class that are kept free for prefetches.
    pub reserve: usize,
}

impl Frames {
    /// For layers whose experts all have one size, of which a token uses `used` in each. The floor
    /// serves repetitions from token to token; at least half of the frames are given by value
    /// alone.
    pub fn of_one_class(layers: usize, experts: usize, used: usize, count: usize) -> Self {
        let floor = used.min(count / (2 * layers.max(1)));
        Self { experts, class_of: vec![0; layers], counts: vec![count], floor, reserve: 0 }
    }
}

/// The experts in the frames of a cache.
#[derive(Debug)]
pub struct Residency<P> {
    policy: P,
    experts: usize,
    class_of: Vec<usize>,
    floor: u32,
    reserve: usize,
    frame_of: Vec<u32>, // [layers · experts]
    frames: Vec<Frame>,
    in_layer: Vec<u32>, // [layers]: frames that each has
    classes: Vec<Class>,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    expert: u32,
    pins: u32,
    class: u32,
}

#[derive(Debug)]
struct Class {
    first: usize,
    count: usize,
    free: Vec<u32>,
    /// The least valuable ones when they were last ranked, the very least last.
    victims: Vec<u32>,
    ranked: Vec<(f64, u32)>,
}

/// The outcome of [`Residency::place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The expert was in this frame already.
    Resident(usize),
    /// It has been given this frame; the expert that was there is evicted.
    Assigned(usize),
    /// Every frame is pinned.
    Full,
}

impl<P: Policy> Residency<P> {
    /// All frames are free.
    pub fn new(frames: &Frames, policy: P) -> Self {
        let mut first = 0;
        let classes = frames.counts.iter().map(|&count| {
            // The lowest numbers first.
            let free = (first..first + count).rev().map(|frame| frame as u32).collect();
            let ranked = Vec::with_capacity(count);
            let class = Class { first, count, free, victims: Vec::with_capacity(BATCH), ranked };
            first += count;
            class
        });
        let classes: Vec<Class> = classes.collect();
        let empty = |(class, &count): (usize, &usize)| {
            std::iter::repeat_n(Frame { expert: NONE, pins: 0, class: class as u32 }, count)
        };
        Self {
            policy,
            experts: frames.experts,
            frames: frames.counts.iter().enumerate().flat_map(empty).collect(),
            frame_of: vec![NONE; frames.class_of.len() * frames.experts],
            in_layer: vec![0; frames.class_of.len()],
            class_of: frames.class_of.clone(),
            floor: frames.floor as u32,
            reserve: frames.reserve,
            classes,
        }
    }

    /// The number of expert `expert` of `layer` for the policy.
    pub fn number(&self, layer: usize, expert: usize) -> usize {
        layer * self.experts + expert
    }

    /// The policy.
    pub fn policy(&mut self) -> &mut P {
        &mut self.policy
    }

    /// Whether `layer` can get a frame without an eviction, and without one of the reserve.
    pub fn has_free(&self, layer: usize) -> bool {
        self.classes[self.class_of[layer]].free.len() > self.reserve
    }

    /// The frame of an expert.
    pub fn frame(&self, number: usize) -> Option<usize> {
        Some(self.frame_of[number]).filter(|&frame| frame != NONE).map(|frame| frame as usize)
    }

    /// The expert of a frame.
    pub fn expert(&self, frame: usize) -> Option<usize> {
        Some(self.frames[frame].expert).filter(|&expert| expert != NONE).map(|e| e as usize)
    }

    /// Values have changed: victims are ranked again when one is needed.
    pub fn rank_again(&mut self) {
        self.classes.iter_mut().for_each(|class| class.victims.clear());
    }

    /// Gives an expert a frame.
    pub fn place(&mut self, number: usize) -> Place {
        if let Some(frame) = self.frame(number) {
            return Place::Resident(frame);
        }
        let layer = number / self.experts;
        let class = self.class_of[layer];
        let free = if self.has_free(layer) { self.classes[class].free.pop() } else { None };
        let found = free.or_else(|| self.victim(class)).or_else(|| self.classes[class].free.pop());
        found.map_or(Place::Full, |frame| self.give(frame, number))
    }

    /// Gives a free frame to an expert that has not been chosen; evicts none for it.
    pub fn place_free(&mut self, number: usize) -> Place {
        if let Some(frame) = self.frame(number) {
            return Place::Resident(frame);
        }
        let free = self.classes[self.class_of[number / self.experts]].free.pop();
        free.map_or(Place::Full, |frame| self.give(frame, number))
    }

    fn give(&mut self, frame: u32, number: usize) -> Place {
        self.vacate(frame as usize);
        self.frames[frame as usize].expert = number as u32;
        self.frame_of[number] = frame;
        self.in_layer[number / self.experts] += 1;
        Place::Assigned(frame as usize)
    }

    /// Evicts the least valuable experts until the reserve is free again, after prefetched experts
    /// of `layer` were chosen and stay.
    pub fn restore(&mut self, layer: usize) {
        let class = self.class_of[layer];
        while self.classes[class].free.len() < self.reserve
            && let Some(frame) = self.victim(class)
        {
            self.remove(frame as usize);
        }
    }

    /// Evicts the expert of a frame, which is free afterwards.
    pub fn remove(&mut self, frame: usize) {
        if self.vacate(frame) {
            let class = self.frames[frame].class as usize;
            self.classes[class].free.push(frame as u32);
        }
    }

    fn vacate(&mut self, frame: usize) -> bool {
        let Some(expert) = self.expert(frame) else { return false };
        self.frames[frame].expert = NONE;
        self.frame_of[expert] = NONE;
        self.in_layer[expert / self.experts] -= 1;
        true
    }

    /// Takes a free frame, or the least valuable expert's, out of use.
    pub fn retire(&mut self, class: usize) -> Option<usize> {
        let frame = self.classes[class].free.pop().or_else(|| self.victim(class))? as usize;
        self.vacate(frame);
        self.frames[frame].pins = u32::MAX / 2;
        Some(frame)
    }

    /// Undoes [`Residency::retire`]: the frame is free.
    pub fn revive(&mut self, frame: usize) {
        self.frames[frame].pins = 0;
        let class = self.frames[frame].class as usize;
        self.classes[class].free.push(frame as u32);
    }

    /// Keeps an expert in its frame until it is unpinned as often.
    pub fn pin(&mut self, frame: usize) {
        self.frames[frame].pins += 1;
    }

    /// Undoes one [`Residency::pin`].
    pub fn unpin(&mut self, frame: usize) {
        self.frames[frame].pins -= 1;
    }

    /// The frame with the least valuable expert that is not pinned.
    fn victim(&mut self, class: usize) -> Option<u32> {
        for _ in 0..2 {
            while let Some(frame) = self.classes[class].victims.pop() {
                let Frame { pins, expert, .. } = self.frames[frame as usize];
                if pins == 0 && expert != NONE {
                    return Some(frame);
                }
            }
            self.rank(class);
        }
        None
    }

    /// Fills the list of victims.
    fn rank(&mut self, class: usize) {
        let Self { policy, experts, floor, frames, in_layer, classes, .. } = self;
        let Class { first, count, victims, ranked, .. } = &mut classes[class];
        ranked.clear();
        for (frame, at) in frames[*first..*first + *count].iter().zip(*first as u32..) {
            if frame.pins == 0 && frame.expert != NONE {
                let expert = frame.expert as usize;
                // Layers at their floor come last.
                let at_floor = in_layer[expert / *experts] <= *floor;
                let worth = policy.worth(expert) + if at_floor { 1e30 } else { 0.0 };
                ranked.push((worth, at));
            }
        }
        let batch = BATCH.min(ranked.len());
        if batch > 0 {
            ranked
                .select_nth_unstable_by(batch - 1, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            ranked.truncate(batch);
            ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
        }
        victims.clear();
        victims.extend(ranked.iter().map(|&(_, frame)| frame));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::{Frequency, Lru};

    fn lru(layers: usize, experts: usize, frames: usize, floor: usize) -> Residency<Lru> {
        let frames =
            Frames { experts, class_of: vec![0; layers], counts: vec![frames], floor, reserve: 0 };
        Residency::new(&frames, Lru::new(layers * experts))
    }

    fn pick(residency: &mut Residency<Lru>, number: usize) -> Place {
        residency.policy().touch(number, 0);
        residency.rank_again();
        residency.place(number)
    }

    #[test]
    fn the_least_recent_leaves_unless_it_is_pinned() {
        let mut residency = lru(1, 8, 2, 0);
        assert_eq!(pick(&mut residency, 0), Place::Assigned(0));
        assert_eq!(pick(&mut residency, 1), Place::Assigned(1));
        assert_eq!(pick(&mut residency, 0), Place::Resident(0));
        assert_eq!(pick(&mut residency, 2), Place::Assigned(1));
        assert_eq!(residency.frame(1), None);
        residency.pin(0);
        assert_eq!(pick(&mut residency, 3), Place::Assigned(1), "0 is older, but pinned");
        residency.pin(1);
        assert_eq!(pick(&mut residency, 4), Place::Full);
        residency.unpin(0);
        assert_eq!(pick(&mut residency, 4), Place::Assigned(0));
        residency.remove(0);
        assert_eq!((residency.frame(4), residency.expert(0)), (None, None));
        assert_eq!(pick(&mut residency, 5), Place::Assigned(0), "what is free is taken first");
    }

    #[test]
    fn a_layer_keeps_its_floor_while_others_have_more() {
        let mut residency = lru(2, 8, 4, 1);
        for number in [0, 8, 9, 10, 11, 12, 13] {
            pick(&mut residency, number);
        }
        assert_eq!(residency.frame(0), Some(0), "the oldest, and the only one of its layer");
    }

    #[test]
    fn what_is_guessed_takes_free_frames_only_and_these_are_made_by_picks() {
        let frames = Frames { reserve: 1, ..Frames::of_one_class(1, 8, 0, 3) };
        let mut residency = Residency::new(&frames, Lru::new(8));
        for (number, frame) in [(0, 0), (1, 1), (2, 0)] {
            assert_eq!(pick(&mut residency, number), Place::Assigned(frame), "one stays free");
        }
        assert_eq!(residency.place_free(3), Place::Assigned(2));
        assert_eq!(residency.place_free(4), Place::Full, "nobody leaves for a prefetch");
        assert_eq!(pick(&mut residency, 3), Place::Resident(2));
        residency.restore(0);
        assert_eq!(residency.frame(1), None, "the oldest has left for what was picked");
        assert_eq!(residency.place_free(4), Place::Assigned(1));
    }

    #[test]
    fn retired_frames_are_never_given() {
        let mut residency = lru(1, 8, 3, 0);
        (0..3).for_each(|number| assert!(pick(&mut residency, number) != Place::Full));
        assert_eq!(residency.retire(0), Some(0));
        assert_eq!(residency.frame(0), None);
        for number in 3..8 {
            assert_ne!(pick(&mut residency, number), Place::Assigned(0));
        }
    }

    proptest! {
        /// Experts and frames stay paired, whatever happens, and pinned experts stay.
        #[test]
        fn frames_and_experts_stay_paired(
            steps in prop::collection::vec((0usize..48, 0u8..4), 1..300),
        ) {
            let (class_of, counts) = (vec![0, 1, 0], vec![6, 4]);
            let frames = Frames { experts: 16, class_of, counts, floor: 1, reserve: 0 };
            let mut residency = Residency::new(&frames, Frequency::new(48));
            let mut pinned: Vec<(usize, usize)> = Vec::new();
            for (number, what) in steps {
                residency.policy().touch(number, 0);
                residency.rank_again();
                match (residency.place(number), what) {
                    (Place::Resident(frame) | Place::Assigned(frame), 0) => {
                        residency.pin(frame);
                        pinned.push((number, frame));
                    }
                    (Place::Resident(frame) | Place::Assigned(frame), 1) => {
                        if pinned.iter().all(|&(_, other)| other != frame) {
                            residency.remove(frame);
                        }
                    }
                    (_, 2) => pinned.drain(..).for_each(|(_, frame)| residency.unpin(frame)),
                    _ => residency.policy().advance(1),
                }
                for &(number, frame) in &pinned {
                    prop_assert_eq!(residency.frame(number), Some(frame));
                }
                let there = (0..48).filter_map(|number| Some((number, residency.frame(number)?)));
                let there: Vec<_> = there.collect();
                for &(number, frame) in &there {
                    prop_assert_eq!(residency.expert(frame), Some(number));
                    let in_first = number / 16 != 1;
                    prop_assert_eq!(frame < 6, in_first, "frames of its class");
                }
                let taken = (0..10).filter(|&frame| residency.expert(frame).is_some()).count();
                prop_assert_eq!(there.len(), taken);
            }
        }
    }
}
