//! What the scheduler has to do, said in the slowest and plainest way: there is one list of
//! requests, in the order of their submission, and those that run are its beginning.
//!
//! The list implies most of what is promised. None overtakes another, so requests are admitted in
//! the order of their submission, and those that lost their pages return in that order, too. Pages
//! are taken from the end of what runs, so the oldest request never loses its own. What is left to
//! say is who computes in a step, and how long a prompt may go without.

use std::collections::HashMap;

use cachalot_model::{PAGE_ROWS, Phase};

use super::super::{Compute, Core};
use crate::scheduler::{SHARE_MIN, Work};
use crate::sequence::Sequence;

/// A request as it was before a step, or after it.
#[derive(Clone, Copy)]
struct Seen {
    id: u64,
    computed: usize,
    is_decoding: bool,
    is_paused: bool,
}

/// All requests that have not ended, in the order of their turn.
struct List {
    seen: Vec<Seen>,
    /// How many of them run: the first ones.
    running: usize,
    preempted: u64,
}

impl List {
    fn of<C: Compute>(core: &Core<'_, C>) -> Self {
        let scheduler = &core.scheduler;
        let seen = |sequence: &Sequence| Seen {
            id: sequence.ticket.id.0,
            computed: sequence.computed,
            is_decoding: sequence.is_decoding(),
            is_paused: sequence.is_paused,
        };
        Self {
            seen: scheduler.running.iter().chain(&scheduler.waiting).map(seen).collect(),
            running: scheduler.running.len(),
            preempted: scheduler.preempted,
        }
    }

    fn find(&self, id: u64) -> Option<Seen> {
        self.seen.iter().find(|seen| seen.id == id).copied()
    }
}

/// How long a prompt has gone without a share.
struct Wait {
    /// Prompts that ran when it last had one, or was admitted; itself among them.
    prompts: usize,
    /// Shares that others have had since: at least as many as there were for certain.
    shares: usize,
}

/// Looks at every step of an engine.
#[derive(Default)]
pub(super) struct SlowModel {
    waits: HashMap<u64, Wait>,
    /// Steps of each request as the oldest.
    as_oldest: HashMap<u64, usize>,
}

impl SlowModel {
    /// Runs a step of `core` and asserts that it was one that the scheduler may take. `context` is
    /// the most tokens of a sequence, and `parallel` the most sequences that run.
    pub(super) fn step<C: Compute>(
        &mut self,
        core: &mut Core<'_, C>,
        context: usize,
        parallel: usize,
    ) {
        let before = List::of(core);
        assert!(before.seen.is_sorted_by(|a, b| a.id < b.id), "the order is that of submission");
        let prompt_max = match core.scheduler.is_decoding() {
            true => core.chunk,
            false => core.micro_batch,
        };
        core.step();
        let after = List::of(core);
        assert!(after.seen.is_sorted_by(|a, b| a.id < b.id), "none overtakes another");

        let ended = before.seen.iter().filter(|seen| after.find(seen.id).is_none());
        let ended: Vec<u64> = ended.map(|seen| seen.id).collect();
        // What ran is the beginning of the list; some of it may have ended by the step.
        let ran = after.running + ended.len();
        let (those, others) = before.seen.split_at(ran);
        assert!(ended.iter().all(|id| those.iter().any(|seen| seen.id == *id)));
        let lost = (after.preempted - before.preempted) as usize;
        let admitted = ran + lost;
        assert!((before.running..=parallel).contains(&admitted), "{admitted} were admitted");
        assert!(ran > 0 || before.seen.is_empty(), "the oldest always runs");
        if core.scheduler.pages.len() >= parallel * context.div_ceil(PAGE_ROWS) {
            let places = parallel.min(before.seen.len());
            assert_eq!((admitted, lost), (places, 0), "there is room for all");
        }
        for seen in others {
            assert_eq!(after.find(seen.id).map(|seen| seen.computed), Some(0), "it has no pages");
            self.waits.remove(&seen.id);
        }

        let work = &core.plan.work;
        assert!(work.is_sorted_by(|a, b| a.index < b.index));
        assert!(work.iter().all(|work| work.count > 0 && work.index < ran));
        let prompts = work.iter().filter(|work| work.phase == Phase::Prefill);
        assert!(prompts.map(|work| work.count).sum::<usize>() <= prompt_max);
        let of = |index: usize| work.iter().find(|work| work.index == index).copied();
        // Shares that there are for certain, and prompts that want one.
        let shares = (prompt_max / SHARE_MIN).max(1);
        let prompts = before.seen[..admitted].iter().filter(|seen| !seen.is_decoding).count();
        for (index, seen) in those.iter().enumerate() {
            let was_running = index < before.running;
            let now = after.find(seen.id);
            progresses(*seen, now, of(index), was_running);
            let wants = !seen.is_paused && !now.is_some_and(|now| now.is_decoding);
            self.waits(seen.id, wants.then_some(of(index).is_some()), prompts, shares);
        }
        self.ages(&before, context * parallel);
        for id in ended {
            self.waits.remove(&id);
            self.as_oldest.remove(&id);
        }
    }

    /// A prompt waits until each of those beside it has had at most one share.
    fn waits(&mut self, id: u64, served: Option<bool>, prompts: usize, shares: usize) {
        let wait = self.waits.entry(id).or_insert(Wait { prompts, shares: 0 });
        match served {
            None => {}
            Some(true) => *wait = Wait { prompts, shares: 0 },
            Some(false) => {
                wait.shares += shares;
                let Wait { prompts, shares } = wait;
                assert!(
                    shares < prompts,
                    "{shares} shares went to {prompts} prompts but not to it"
                );
            }
        }
    }

    /// The oldest request, if its reader keeps up, has an end in sight: every other one will be the
    /// oldest, too.
    fn ages(&mut self, list: &List, most: usize) {
        if let Some(oldest) = list.seen.first().filter(|seen| !seen.is_paused) {
            let steps = self.as_oldest.entry(oldest.id).or_default();
            *steps += 1;
            assert!(*steps <= most, "the oldest request does not end");
        }
    }
}

/// A paused sequence computes nothing, and one that decodes a token in every step. `now` is `None`
/// if it has ended.
fn progresses(seen: Seen, now: Option<Seen>, work: Option<Work>, was_running: bool) {
    let count = work.map_or(0, |work| work.count);
    if seen.is_paused {
        assert_eq!(count, 0, "its reader is behind");
    } else if was_running && seen.is_decoding {
        let is_one = count == 1 && work.is_some_and(|work| work.phase == Phase::Decode);
        assert!(is_one, "an answer gets one token in every step");
    }
    if let Some(now) = now {
        assert!(
            count > 0 || seen.is_paused || !now.is_decoding,
            "an answer that was admitted gets its token, too"
        );
        assert!(!was_running || now.computed == seen.computed + count);
    } else {
        assert!(count > 0, "it ended by what was computed");
    }
}
