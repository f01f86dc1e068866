//! The engine's thread: takes requests in turn and answers them.
//!
//! The cache keeps what the last prompt and answer left in it. A new prompt that begins with the same
//! tokens computes only the rest; thoughts of earlier turns are not part of it, so what is common
//! usually ends where the last answer began.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use cachalot_model::{KvCache, Logits};

use crate::answer::Answer;
use crate::event::{Event, FinishReason};
use crate::handle::{EventSender, Shared, Submission};
use crate::request::RequestId;
use crate::status::{KvStatus, SequencePhase, SequenceStatus};
use crate::{Engine, Error};

/// Between two reports of how far a prompt is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);
/// How often a paused request looks whether its reader is back.
const PAUSE_INTERVAL: Duration = Duration::from_millis(20);

pub(crate) struct Worker<'a> {
    shared: &'a Shared,
    engine: Engine,
    cache: KvCache,
    /// The tokens whose keys and values the cache holds.
    tokens: Vec<u32>,
    queue: VecDeque<Submission>,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(shared: &'a Shared, engine: Engine, cache: KvCache) -> Self {
        Self { shared, engine, tokens: Vec::new(), queue: VecDeque::new(), cache }
    }

    /// Answers requests until the engine is shut down.
    pub(crate) fn run(mut self) {
        loop {
            self.receive(true);
            let Some(submission) = self.queue.pop_front() else {
                if self.shared.closing().is_some() {
                    return;
                }
                continue;
            };
            self.shared.admitted();
            let (id, cancelled) = (submission.ticket.id, submission.ticket.is_cancelled());
            let reuse = submission.request.cache_prompt && !cancelled;
            let cached = if reuse { self.keep_common(&submission.request.prompt) } else { 0 };
            self.truncate(cached);
            let (answer, prompt) = Answer::new(submission, cached, self.engine.info());
            self.answer(answer, &prompt, id);
            self.shared.ended(id);
        }
    }

    /// Takes in what was submitted; cancelled requests leave the queue.
    fn receive(&mut self, idle: bool) {
        let before = self.queue.len();
        self.queue.extend(self.shared.receive(idle && before == 0, None));
        let mut waiting = std::mem::take(&mut self.queue);
        let closed = self.shared.closing().is_some_and(|deadline| Instant::now() >= deadline);
        let is_over = |submission: &Submission| submission.ticket.is_cancelled() || closed;
        let (over, waiting): (Vec<_>, Vec<_>) = waiting.drain(..).partition(is_over);
        for submission in over {
            let id = submission.ticket.id;
            self.shared.admitted();
            let (answer, _) = Answer::new(submission, 0, self.engine.info());
            answer.finish(FinishReason::Cancelled, 0, self.engine.info());
            self.shared.ended(id);
        }
        self.queue = waiting.into();
        for (position, submission) in self.queue.iter().enumerate().skip(if idle { 1 } else { 0 }) {
            if position >= before || self.queue.len() != before {
                submission.events.send(Event::Queued { position });
            }
        }
    }

    /// How many tokens the cache has in common with `prompt`. The last token is always computed anew,
    /// for its logits.
    fn keep_common(&self, prompt: &[u32]) -> usize {
        let common = self.tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        common.min(prompt.len().saturating_sub(1))
    }

    fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.cache.truncate(len);
    }

    fn answer(&mut self, mut answer: Answer, prompt: &[u32], id: RequestId) {
        let cached = answer.usage().cached;
        let outcome = self.compute(&mut answer, prompt, id);
        let (failed, cancelled) =
            (outcome.is_err(), matches!(outcome, Ok((FinishReason::Cancelled, _))));
        let usage = match outcome {
            Ok((reason, stop)) => answer.finish(reason, stop, self.engine.info()),
            Err(error) => {
                let usage = answer.usage();
                answer.fail(error);
                usage
            }
        };
        self.shared.publish(|status| {
            status.sequences.clear();
            let totals = &mut status.totals;
            totals.requests += 1;
            totals.failed += u64::from(failed);
            totals.cancelled += u64::from(cancelled);
            totals.prompt_cached += cached as u64;
            totals.prompt_computed += usage.computed() as u64;
            totals.generated += usage.generated as u64;
        });
    }

    fn compute(
        &mut self,
        answer: &mut Answer,
        prompt: &[u32],
        id: RequestId,
    ) -> Result<(FinishReason, usize), Error> {
        if answer.is_full() {
            return Ok((FinishReason::Length, 0));
        }
        let cached = answer.usage().cached;
        let begun = Instant::now();
        let Some(mut token) = self.step(answer, &prompt[cached..], prompt.len())? else {
            return Ok((FinishReason::Cancelled, 0));
        };
        self.shared.publish(|status| status.totals.prefill_time += begun.elapsed());
        loop {
            if let Some(end) = answer.accept(token, self.engine.info()) {
                return Ok(end);
            }
            if self.cache.len() == self.cache.capacity() {
                return Ok((FinishReason::ContextFull, 0));
            }
            if let Some(reason) = self.pause(answer) {
                return Ok((reason, 0));
            }
            self.publish(answer, id);
            let begun = Instant::now();
            match self.step(answer, &[token], 0)? {
                Some(next) => token = next,
                None => return Ok((FinishReason::Cancelled, 0)),
            }
            self.shared.publish(|status| status.totals.decode_time += begun.elapsed());
        }
    }

    /// Waits while the reader is behind.
    fn pause(&mut self, answer: &Answer) -> Option<FinishReason> {
        let begun = Instant::now();
        let (ticket, timeout) = (&answer.events().ticket, answer.reader_timeout());
        while ticket.is_behind() {
            if ticket.is_cancelled() || self.shared.closing().is_some() {
                return Some(FinishReason::Cancelled);
            }
            if timeout.is_some_and(|timeout| begun.elapsed() >= timeout) {
                return Some(FinishReason::ReaderStalled);
            }
            std::thread::sleep(PAUSE_INTERVAL);
        }
        None
    }

    /// Computes `tokens` and chooses the one that follows; `None` if that was cancelled. `prompt` is
    /// the length of the prompt that they end, if they do.
    fn step(
        &mut self,
        answer: &mut Answer,
        tokens: &[u32],
        prompt: usize,
    ) -> Result<Option<u32>, Error> {
        self.receive(false);
        self.engine.respond_to_pressure();
        let (past, events) = (self.cache.len(), answer.events());
        let deadline = self.shared.closing();
        let mut reported: Option<Instant> = None;
        let computed = self.engine.model.forward_sequence(
            &mut self.cache,
            tokens,
            Logits::Last,
            &mut |done| {
                let is_due = reported.is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL);
                if prompt > 0 && (is_due || done == tokens.len()) {
                    reported = Some(Instant::now());
                    prefilled(events, past, past + done, prompt);
                }
                let closed = deadline.is_some_and(|deadline| Instant::now() >= deadline);
                !events.ticket.is_cancelled() && !closed
            },
        );
        // A cancelled prompt leaves as much in the cache as was computed.
        let chosen = match computed {
            Ok(logits) => {
                let info = self.engine.info.clone();
                answer.choose(logits, &info).map(Some)
            }
            Err(cachalot_model::Error::Stopped) => Ok(None),
            Err(error) => Err(error.into()),
        };
        self.tokens.extend(&tokens[..self.cache.len() - past]);
        chosen
    }

    fn publish(&self, answer: &Answer, id: RequestId) {
        let (usage, cache) = (answer.usage(), &self.cache);
        let kv = KvStatus {
            page_tokens: 1,
            page_bytes: cache.bytes_per_token() as u64,
            pages: cache.capacity(),
            used: cache.len(),
            cached: 0,
        };
        let phase = match answer.is_reasoning() {
            true => SequencePhase::Reasoning,
            false => SequencePhase::Answer,
        };
        let sequence = SequenceStatus {
            id,
            phase,
            prompt: usage.prompt,
            cached: usage.cached,
            generated: usage.generated,
            rate: answer.rate(),
        };
        self.shared.publish(|status| {
            status.kv = kv;
            status.sequences.clear();
            status.sequences.push(sequence);
        });
    }
}

fn prefilled(events: &EventSender, cached: usize, done: usize, total: usize) {
    events.send(Event::Prefill { done, total, cached });
}
