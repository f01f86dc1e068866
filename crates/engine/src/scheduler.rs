//! Which sequences compute how many tokens in the next step.
//!
//! Sequences that generate come first, with one token each; a step's tokens of prompts are divided
//! into equal shares. Where there are fewer shares than prompts, they take turns, and none has a
//! second one before all others that waited had theirs. When pages run out, the sequence that was
//! admitted last gives up its own and waits at the head of the queue; so the oldest one always gets
//! ahead, and every other one becomes the oldest some day.

use std::collections::VecDeque;

use cachalot_model::{PAGE_ROWS, Phase};

use crate::blocks::{PageId, Pages};
use crate::sequence::Sequence;

/// The smallest share of a step that a prompt gets: fewer tokens hardly share the reading of
/// weights.
pub(crate) const SHARE_MIN: usize = 16;

/// The sequences of an engine.
pub(crate) struct Scheduler {
    /// Those that wait for their turn, in its order.
    pub(crate) waiting: VecDeque<Sequence>,
    /// Those that are answered, in the order of their admission.
    pub(crate) running: Vec<Sequence>,
    pub(crate) pages: Pages,
    parallel: usize,
    /// The last turn that was given to a sequence.
    turn: u64,
    shares: Vec<usize>,  // [running]
    prompts: Vec<usize>, // indices of `running`, in the order of their turns
    pub(crate) preempted: u64,
}

/// Tokens of one sequence that are computed in a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Work {
    /// The sequence, as an index of [`Scheduler::running`].
    pub(crate) index: usize,
    pub(crate) count: usize,
    pub(crate) phase: Phase,
}

/// What a step computes.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Pages to be copied first, from and to, in this order.
    pub(crate) copies: Vec<(PageId, PageId)>,
    /// Tokens, by ascending index.
    pub(crate) work: Vec<Work>,
}

impl Scheduler {
    pub(crate) fn new(pages: usize, parallel: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            running: Vec::new(),
            pages: Pages::new(pages),
            parallel,
            turn: 0,
            shares: Vec::new(),
            prompts: Vec::new(),
            preempted: 0,
        }
    }

    /// Whether sequences generate that a long step would keep waiting.
    pub(crate) fn is_decoding(&self) -> bool {
        self.running.iter().any(|sequence| sequence.is_decoding() && !sequence.is_paused)
    }

    /// Plans the next step, with at most `prompt_max` tokens of prompts.
    pub(crate) fn plan(&mut self, prompt_max: usize, plan: &mut Plan) {
        plan.copies.clear();
        plan.work.clear();
        self.admit(&mut plan.copies);
        self.share(prompt_max);
        let mut index = 0;
        while index < self.running.len() {
            let is_decoding = self.running[index].is_decoding();
            let count = match self.shares[index] {
                0 => 0,
                share => self.find_room(index, share),
            };
            if count > 0 {
                let phase = if is_decoding { Phase::Decode } else { Phase::Prefill };
                plan.work.push(Work { index, count, phase });
            }
            index += 1;
        }
    }

    /// Lets sequences in while there is a place, and room for all of their tokens and one more
    /// page.
    fn admit(&mut self, copies: &mut Vec<(PageId, PageId)>) {
        while self.running.len() < self.parallel {
            if self.waiting.front().is_some_and(|sequence| sequence.is_loading) {
                break;
            }
            let Some(mut sequence) = self.waiting.pop_front() else { break };
            let copy = sequence.adopt(&mut self.pages);
            let needed = sequence.lacks(sequence.pending() + 1);
            if !self.running.is_empty() && self.pages.available() < needed {
                // Nothing of it is new, and its last page was not copied.
                sequence.release(false, &mut self.pages);
                self.waiting.push_front(sequence);
                break;
            }
            copies.extend(copy);
            self.turn += 1;
            sequence.turn = self.turn;
            self.running.push(sequence);
        }
    }

    /// Finds the tokens that each running sequence computes if there are pages for them.
    fn share(&mut self, prompt_max: usize) {
        let Self { running, shares, prompts, .. } = self;
        shares.clear();
        shares.resize(running.len(), 0);
        prompts.clear();
        for (index, sequence) in running.iter().enumerate().filter(|(_, s)| !s.is_paused) {
            if sequence.is_decoding() {
                shares[index] = 1;
            } else {
                prompts.push(index);
            }
        }
        prompts.sort_unstable_by_key(|index| running[*index].turn);
        let (mut left, mut served) = (prompt_max, 0);
        while left > 0 && served < prompts.len() {
            let index = prompts[served];
            let fair = left.div_ceil(prompts.len() - served).max(SHARE_MIN.min(left));
            shares[index] = running[index].pending().min(fair);
            left -= shares[index];
            served += 1;
        }
        // Those that got nothing come next, then the others, of which the first, whose share may
        // have been larger, is the last.
        let served = &mut prompts[..served];
        if !served.is_empty() {
            served.rotate_left(1);
        }
        for index in served {
            self.turn += 1;
            running[*index].turn = self.turn;
        }
    }

    /// Finds pages for up to `count` more tokens; returns for how many.
    fn find_room(&mut self, index: usize, count: usize) -> usize {
        while self.running[index].lacks(count) > self.pages.available() {
            let youngest = self.running.len() - 1;
            if youngest > index {
                self.preempt(youngest);
                continue;
            }
            let sequence = &self.running[index];
            let held = (sequence.pages.len() + self.pages.available()) * PAGE_ROWS;
            let fits = held.saturating_sub(sequence.computed).min(count);
            if fits == 0 {
                self.preempt(index);
                return 0;
            }
            return self.grow(index, fits);
        }
        self.grow(index, count)
    }

    fn grow(&mut self, index: usize, count: usize) -> usize {
        for _ in 0..self.running[index].lacks(count) {
            let page = self.pages.take().expect("as many are available");
            self.running[index].pages.push(page);
        }
        count
    }

    fn preempt(&mut self, index: usize) {
        let mut sequence = self.running.remove(index);
        sequence.release(true, &mut self.pages);
        self.preempted += 1;
        self.waiting.push_front(sequence);
    }

    /// `work` was computed.
    pub(crate) fn advance(&mut self, work: &Work) {
        self.running[work.index].advance(work.count, &mut self.pages);
    }

    /// Takes a running sequence out. What its pages hold stays findable, unless it is not sound.
    pub(crate) fn remove(&mut self, index: usize, is_sound: bool) -> Sequence {
        let mut sequence = self.running.remove(index);
        sequence.release(is_sound, &mut self.pages);
        sequence
    }
}
