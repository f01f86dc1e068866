//! The engine's thread: take requests in, schedule, compute, sample, send.

use std::ops::Range;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

use cachalot_kernels::{Cpu, recycle};
use cachalot_model::{Batch, PAGE_ROWS, Phase, Progress, Segment, Wanted};

use crate::Error;
use crate::blocks::PageId;
use crate::event::{Event, FinishReason};
use crate::handle::Shared;
use crate::pages::{Disk, Store};
use crate::sampler::Scratch;
use crate::scheduler::{Plan, SHARE_MIN, Scheduler, Work};
use crate::sequence::Sequence;
use crate::status::{KvStatus, ModelInfo, SequencePhase, SequenceStatus};

#[cfg(test)]
mod tests;

/// How long a step may keep running answers waiting for prompts, where the machine can do that.
const STALL_TARGET: Duration = Duration::from_millis(250);
/// The time of choosing from some logits, as a multiple of that of copying them.
const CHOICE_COST: usize = 8;
/// Between two reports of how far a prompt is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);
/// How often paused requests look whether their readers are back.
const PAUSE_INTERVAL: Duration = Duration::from_millis(20);

/// What computes a step: the model, or a stand-in of tests.
pub(crate) trait Compute: Send {
    /// Copies a page of the KV cache.
    fn copy_page(&mut self, from: PageId, to: PageId);

    /// Computes a batch.
    fn forward(
        &mut self,
        batch: &Batch<'_>,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(), cachalot_model::Error>;

    /// Where the logits that a segment of the last batch wanted are in [`Compute::logits`], or why
    /// it failed.
    fn result(&self, segment: usize) -> Computed;

    /// The logits of the last batch.
    fn logits(&self) -> &[f32];

    /// The threads that choose tokens.
    fn cpu(&self) -> &Cpu;

    /// Keys and values of a page.
    fn read_page(&self, page: PageId) -> Vec<u8>;

    /// Replaces a page by what [`Compute::read_page`] gave, of the same model and type.
    fn write_page(&mut self, page: PageId, bytes: &[u8]);

    /// Bytes of a page.
    fn page_bytes(&self) -> u64;

    /// Called between steps.
    fn rest(&mut self) {}
}

/// The range of logits `[vocabulary]`, empty if none were wanted, or why there are none.
pub(crate) type Computed = Result<Range<usize>, Arc<cachalot_model::Error>>;

/// The engine.
pub(crate) struct Core<'a, C> {
    shared: &'a Shared,
    info: Arc<ModelInfo>,
    compute: C,
    scheduler: Scheduler,
    disk: Disk,
    /// The most tokens of prompts in a step, and how many of them running answers can wait for.
    micro_batch: usize,
    chunk: usize,
    /// What sampling needs, for each thread.
    scratch: Vec<Mutex<Scratch>>,
    // Lists of a step, which keep their memory.
    plan: Plan,
    tokens: Vec<u32>,
    segments: Vec<Segment<'static>>,
}

/// How a sequence goes on after a step.
enum Next {
    Continues,
    Ends(FinishReason, usize),
    Fails(Error),
}

/// Sizes of an engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Pages of the KV cache.
    pub(crate) pages: usize,
    /// The most tokens of prompts in a step.
    pub(crate) micro_batch: usize,
}

impl<'a, C: Compute> Core<'a, C> {
    pub(crate) fn new(shared: &'a Shared, compute: C, sizes: Sizes, store: Option<Store>) -> Self {
        let info = Arc::clone(&shared.info);
        let mut scheduler = Scheduler::new(sizes.pages, shared.limits.parallel);
        let disk = Disk::new(store, &mut scheduler.pages);
        let micro_batch = sizes.micro_batch.max(1);
        let chunk = micro_batch.min(256);
        let threads = compute.cpu().pool().threads();
        let scratch = std::iter::repeat_with(Mutex::default).take(threads).collect();
        Self {
            shared,
            info,
            compute,
            scheduler,
            disk,
            micro_batch,
            chunk,
            scratch,
            plan: Plan::default(),
            tokens: Vec::new(),
            segments: Vec::new(),
        }
    }

    /// Answers requests until the engine is shut down.
    pub(crate) fn run(mut self) {
        self.publish(); // The KV cache has pages before the first request.
        while self.receive(true) {
            self.step();
        }
        self.disk.finish(&mut self.scheduler.pages, &self.compute);
    }

    /// Takes in what was submitted, waiting for it if there is nothing to do; returns whether the
    /// engine goes on.
    pub(crate) fn receive(&mut self, may_wait: bool) -> bool {
        let Scheduler { waiting, running, .. } = &self.scheduler;
        let is_empty = waiting.is_empty() && running.is_empty();
        let is_loading = running.is_empty() && waiting.front().is_some_and(|s| s.is_loading);
        let is_paused = !running.is_empty() && running.iter().all(|s| s.is_paused);
        let looks_again = is_loading || is_paused || self.disk.is_behind();
        let pause = looks_again.then_some(PAUSE_INTERVAL);
        let is_idle = is_empty || is_paused || is_loading;
        for submission in self.shared.receive(may_wait && is_idle, pause) {
            let mut sequence = Sequence::new(submission, &self.info);
            self.disk.begin(&mut sequence, &mut self.scheduler.pages);
            self.scheduler.waiting.push_back(sequence);
        }
        for job in self.shared.take_jobs() {
            job.run(&mut self.scheduler.pages, &mut self.compute);
        }
        self.disk.step(&mut self.scheduler, &mut self.compute);
        self.sweep();
        let is_empty = self.scheduler.waiting.is_empty() && self.scheduler.running.is_empty();
        !(is_empty && self.shared.closing().is_some())
    }

    /// Ends what was cancelled, and pauses what is not read.
    fn sweep(&mut self) {
        let closed = self.shared.closing().is_some_and(|deadline| Instant::now() >= deadline);
        let end = |sequence: &mut Sequence| {
            let behind = sequence.ticket.is_behind();
            sequence.paused_at = behind.then(|| sequence.paused_at.unwrap_or_else(Instant::now));
            sequence.is_paused = behind;
            let timeout = sequence.answer.reader_timeout();
            let waited = sequence.paused_at.map(|since| since.elapsed());
            if closed || sequence.ticket.is_cancelled() {
                Some(FinishReason::Cancelled)
            } else {
                let stalled = waited.zip(timeout).is_some_and(|(waited, most)| waited >= most);
                stalled.then_some(FinishReason::ReaderStalled)
            }
        };
        let mut ended = Vec::new();
        for index in (0..self.scheduler.waiting.len()).rev() {
            if let Some(reason) = end(&mut self.scheduler.waiting[index]) {
                let sequence = self.scheduler.waiting.remove(index);
                ended.extend(sequence.map(|sequence| (sequence, Next::Ends(reason, 0))));
            }
        }
        for index in (0..self.scheduler.running.len()).rev() {
            if let Some(reason) = end(&mut self.scheduler.running[index]) {
                ended.push((self.scheduler.remove(index, true), Next::Ends(reason, 0)));
            }
        }
        if !ended.is_empty() {
            self.conclude(ended);
        }
    }

    /// One pass through the model.
    pub(crate) fn step(&mut self) {
        self.compute.rest();
        let is_decoding = self.scheduler.is_decoding();
        let mut plan = std::mem::take(&mut self.plan);
        self.scheduler.plan(if is_decoding { self.chunk } else { self.micro_batch }, &mut plan);
        plan.copies.iter().for_each(|&(from, to)| self.compute.copy_page(from, to));
        self.announce();
        let mut ended = Vec::new();
        if !plan.work.is_empty() {
            let begun = Instant::now();
            let failure = self.pass(&plan.work).err().map(Arc::new);
            self.account(&plan.work, is_decoding, begun.elapsed());
            for work in plan.work.iter().rev() {
                let next = match &failure {
                    // All were cancelled, and end before the next step.
                    Some(error) if matches!(**error, cachalot_model::Error::Stopped) => continue,
                    Some(error) => Next::Fails(Error::Computation(Arc::clone(error))),
                    None => self.accept(work),
                };
                if !matches!(next, Next::Continues) {
                    let is_sound = !matches!(next, Next::Fails(_));
                    ended.push((self.scheduler.remove(work.index, is_sound), next));
                }
            }
        }
        self.plan = plan;
        self.conclude(ended);
    }

    /// Admits sequences to their statistics, and tells the others their places.
    fn announce(&mut self) {
        for sequence in &mut self.scheduler.running {
            if !std::mem::replace(&mut sequence.was_admitted, true) {
                sequence.answer.admitted(sequence.computed, &self.info);
                self.shared.admitted();
            }
        }
        for (position, sequence) in self.scheduler.waiting.iter_mut().enumerate() {
            if !sequence.was_admitted && sequence.position != Some(position) {
                sequence.position = Some(position);
                sequence.answer.events().send(Event::Queued { position });
            }
        }
    }

    /// Computes `work` and chooses the tokens that follow.
    fn pass(&mut self, work: &[Work]) -> Result<(), cachalot_model::Error> {
        let Self { scheduler, compute, tokens, .. } = self;
        let running = &scheduler.running;
        tokens.clear();
        let mut segments: Vec<Segment<'_>> = recycle(std::mem::take(&mut self.segments));
        for &Work { index, count, phase } in work {
            let sequence = &running[index];
            let (start, rows) = (sequence.computed, tokens.len()..tokens.len() + count);
            let end = start + count;
            tokens.extend_from_slice(&sequence.tokens[start..end]);
            let want = if end == sequence.tokens.len() { Wanted::Last } else { Wanted::None };
            let (seq, pages) = (sequence.ticket.id.0, &sequence.pages[..]);
            segments.push(Segment { seq, start, rows, pages, phase, want });
        }
        let batch = Batch { tokens, segments: &segments };
        let mut reporter = Reporter::new(self.shared, running, work);
        let computed = compute.forward(&batch, &mut |progress| reporter.report(progress));
        self.segments = recycle(segments);
        computed?;
        scheduler.running.iter_mut().for_each(|sequence| sequence.logits = 0..0);
        for (at, work) in work.iter().enumerate() {
            match compute.result(at) {
                Ok(range) => {
                    scheduler.advance(work);
                    scheduler.running[work.index].logits = range;
                }
                Err(error) => {
                    let failure = Err(Error::Computation(error));
                    scheduler.running[work.index].chosen = Some(failure);
                }
            }
        }
        let (cpu, logits) = (compute.cpu(), compute.logits());
        choose(cpu, &mut scheduler.running, logits, &self.scratch, &self.info);
        Ok(())
    }

    /// Takes the token that was chosen for a sequence, if one was.
    fn accept(&mut self, work: &Work) -> Next {
        let sequence = &mut self.scheduler.running[work.index];
        let token = match sequence.chosen.take() {
            None => return Next::Continues, // its prompt goes on
            Some(Ok(_)) if sequence.answer.is_full() => return Next::Ends(FinishReason::Length, 0),
            Some(Ok(None)) => return Next::Ends(FinishReason::Stop, 0),
            Some(Ok(Some(token))) => token,
            Some(Err(error)) => return Next::Fails(error),
        };
        sequence.tokens.push(token.id);
        let is_full = sequence.computed >= self.info.context.tokens;
        match sequence.answer.accept(token, &self.info) {
            Err(error) => Next::Fails(error),
            Ok(Some((reason, stop))) => Next::Ends(reason, stop),
            Ok(None) if is_full => Next::Ends(FinishReason::ContextFull, 0),
            Ok(None) => Next::Continues,
        }
    }

    fn account(&mut self, work: &[Work], is_decoding: bool, time: Duration) {
        let prompts = || work.iter().filter(|work| work.phase == Phase::Prefill);
        let count: usize = prompts().map(|work| work.count).sum();
        let has_prompts = count > 0;
        // As much of prompts as the time allows, in steps of half and double.
        if is_decoding && count * 2 > self.chunk {
            let ratio = STALL_TARGET.as_secs_f64() / time.as_secs_f64().max(1e-6);
            let chunk = (self.chunk as f64 * ratio.clamp(0.5, 2.0)) as usize;
            self.chunk = chunk.clamp(SHARE_MIN.min(self.micro_batch), self.micro_batch);
        }
        self.shared.publish(|status| {
            let totals = &mut status.totals;
            totals.prompt_computed += count as u64;
            if has_prompts {
                totals.prefill_time += time;
            } else {
                totals.decode_time += time;
            }
        });
    }

    /// Ends sequences that have left the scheduler. The status is published first, so that a
    /// receiver of an end no longer sees its request there.
    fn conclude(&mut self, ended: Vec<(Sequence, Next)>) {
        self.shared.publish(|status| {
            let totals = &mut status.totals;
            for (sequence, next) in &ended {
                let usage = sequence.answer.usage();
                let cancelled = matches!(next, Next::Ends(FinishReason::Cancelled, _));
                totals.requests += 1;
                totals.failed += u64::from(matches!(next, Next::Fails(_)));
                totals.cancelled += u64::from(cancelled);
                totals.prompt_cached += usage.cached as u64;
                totals.generated += usage.generated as u64;
                totals.running_time += sequence.answer.running_time();
            }
        });
        self.publish();
        for (Sequence { ticket, answer, was_admitted, .. }, next) in ended {
            if !was_admitted {
                self.shared.admitted();
            }
            self.shared.ended(ticket.id);
            match next {
                Next::Fails(error) => answer.fail(error),
                Next::Ends(reason, stop) => answer.finish(reason, stop, &self.info),
                Next::Continues => unreachable!("it has left the scheduler"),
            }
        }
    }

    fn publish(&self) {
        let Scheduler { waiting, running, pages, preempted, .. } = &self.scheduler;
        let kv = KvStatus {
            page_tokens: PAGE_ROWS,
            page_bytes: self.compute.page_bytes(),
            pages: pages.len(),
            used: pages.len() - pages.available(),
            cached: pages.idle(),
        };
        let state = |sequence: &Sequence, phase| {
            let usage = sequence.answer.usage();
            SequenceStatus {
                id: sequence.ticket.id,
                phase,
                prompt: usage.prompt,
                cached: usage.cached,
                generated: usage.generated,
                rate: sequence.answer.rate(),
            }
        };
        let running = running.iter().map(|sequence| {
            let phase = match sequence {
                _ if sequence.is_paused => SequencePhase::Paused,
                _ if !sequence.is_decoding() => SequencePhase::Prefill { done: sequence.computed },
                _ if sequence.answer.is_reasoning() => SequencePhase::Reasoning,
                _ => SequencePhase::Answer,
            };
            state(sequence, phase)
        });
        let waiting = waiting.iter().enumerate();
        let waiting = waiting.map(|(position, s)| state(s, SequencePhase::Queued { position }));
        self.shared.publish(|status| {
            status.kv = kv;
            status.totals.preempted = *preempted;
            status.sequences.clear();
            status.sequences.extend(running.chain(waiting));
        });
    }
}

/// Chooses the tokens that follow: sequences in parallel, where the vocabulary is large enough.
fn choose(
    cpu: &Cpu,
    running: &mut [Sequence],
    logits: &[f32],
    scratch: &[Mutex<Scratch>],
    info: &ModelInfo,
) {
    cpu.for_costly_rows(running, 1, info.vocab.len() * CHOICE_COST, |_, row| {
        let [sequence] = row else { return };
        let logits = &logits[sequence.logits.clone()];
        if logits.is_empty() {
            return;
        }
        // There is one for each thread.
        let mut free = scratch.iter().cycle().filter_map(|scratch| match scratch.try_lock() {
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Ok(scratch) => Some(scratch),
        });
        if let Some(mut scratch) = free.next() {
            sequence.chosen = Some(sequence.answer.choose(&mut scratch, logits, info));
        }
    });
}

/// Tells prompts how far they are, and whether a pass is still wanted.
struct Reporter<'a> {
    shared: &'a Shared,
    running: &'a [Sequence],
    work: &'a [Work],
    reported: Option<Instant>,
}

impl<'a> Reporter<'a> {
    fn new(shared: &'a Shared, running: &'a [Sequence], work: &'a [Work]) -> Self {
        Self { shared, running, work, reported: None }
    }

    fn report(&mut self, Progress { done, layers }: Progress) -> bool {
        let is_due = self.reported.is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL);
        if is_due || done == layers {
            self.reported = Some(Instant::now());
            for &Work { index, count, phase } in self.work {
                let sequence = &self.running[index];
                // What is computed again after a preemption is not news.
                if phase == Phase::Prefill && sequence.answer.usage().generated == 0 {
                    let (total, cached) = (sequence.prompt, sequence.answer.usage().cached);
                    let done = sequence.computed + count * done / layers.max(1);
                    sequence.answer.events().send(Event::Prefill { done, total, cached });
                }
            }
        }
        let closed = self.shared.closing().is_some_and(|deadline| Instant::now() >= deadline);
        let wanted = |work: &Work| !self.running[work.index].ticket.is_cancelled();
        !closed && self.work.iter().any(wanted)
    }
}
