//! One answer in the making: logits in, tokens and events out.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::{Duration, Instant};

use crate::event::{Event, ExpertReads, FinishReason, Finished, Kind, Timings, Token, Usage};
use crate::handle::{EventSender, Submission};
use crate::info::ModelInfo;
use crate::output::Output;
use crate::{CacheStats, Error, Sampler};

/// How the templates of the R1 family end a thought.
const THOUGHT_END: &str = "\n</think>\n\n";

/// The state of an answer from its admission to its end.
pub(crate) struct Answer {
    sampler: Sampler,
    output: Output,
    events: EventSender,
    stop: Vec<String>,
    reader_timeout: Option<Duration>,
    limit: usize,
    ignore_eos: bool,
    /// Tokens that a thought may still have, its end not counted.
    thinking_left: usize,
    /// Tokens that come next, whatever the model computes.
    forced: VecDeque<u32>,
    usage: Usage,
    seed: u64,
    queued: Instant,
    admitted: Instant,
    first: Option<Instant>,
    reads: [Option<CacheStats>; 2], // at admission and at the first token
}

impl Answer {
    /// Begins the answer of a request that is admitted now, with `cached` tokens of its prompt reused.
    pub(crate) fn new(submission: Submission, cached: usize, info: &ModelInfo) -> (Self, Vec<u32>) {
        let Submission { request, events, since, .. } = submission;
        let seed = request.seed.unwrap_or_else(random_seed);
        let mut sampler = Sampler::new(request.sampling, seed, info.vocab.len());
        request.prompt.iter().for_each(|&token| sampler.accept(token));
        let answer = Self {
            sampler,
            output: Output::new(request.thought, info.thought_tags, &request.stop),
            events,
            stop: request.stop,
            reader_timeout: request.reader_timeout,
            limit: request.max_tokens.unwrap_or(usize::MAX),
            ignore_eos: request.ignore_eos,
            thinking_left: request.thinking_budget.unwrap_or(usize::MAX),
            forced: VecDeque::new(),
            usage: Usage { prompt: request.prompt.len(), cached, ..Usage::default() },
            seed,
            queued: since,
            admitted: Instant::now(),
            first: None,
            reads: [reads(info), None],
        };
        answer.events.ticket.set_thinking(answer.output.is_reasoning());
        (answer, request.prompt)
    }

    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    pub(crate) fn events(&self) -> &EventSender {
        &self.events
    }

    pub(crate) fn reader_timeout(&self) -> Option<Duration> {
        self.reader_timeout
    }

    pub(crate) fn is_reasoning(&self) -> bool {
        self.output.is_reasoning()
    }

    /// Whether nothing may be generated at all.
    pub(crate) fn is_full(&self) -> bool {
        self.usage.generated >= self.limit
    }

    /// The next token by the logits `[vocabulary]` after the tokens so far.
    ///
    /// # Errors
    /// If the logits are not finite.
    pub(crate) fn choose(&mut self, logits: &[f32], info: &ModelInfo) -> Result<u32, Error> {
        if self.first.is_none() {
            self.first = Some(Instant::now());
            self.reads[1] = reads(info);
        }
        self.close_thought(info)?;
        let chosen = self.sampler.sample(logits).ok_or(Error::NotFinite)?;
        Ok(self.forced.pop_front().unwrap_or(chosen))
    }

    /// Ends the thought as the template would, if its budget is used up or the caller wants that.
    fn close_thought(&mut self, info: &ModelInfo) -> Result<(), Error> {
        if !self.output.is_reasoning() || !self.forced.is_empty() {
            return Ok(());
        }
        if self.events.ticket.take_end_thinking() || self.thinking_left == 0 {
            self.forced.extend(info.vocab.encode(THOUGHT_END, true)?);
        }
        self.thinking_left = self.thinking_left.saturating_sub(1);
        Ok(())
    }

    /// Takes the token that was chosen, and sends what that makes certain; returns why the answer ends
    /// with it, if it does.
    pub(crate) fn accept(&mut self, token: u32, info: &ModelInfo) -> Option<(FinishReason, usize)> {
        if info.vocab.is_end(token) && !self.ignore_eos {
            return Some((FinishReason::Stop, 0));
        }
        self.usage.generated += 1;
        self.sampler.accept(token);
        let token = Token { id: token, logprob: None, top: Vec::new() };
        let bytes = info.vocab.token_bytes(token.id);
        let (usage, events) = (&mut self.usage, &self.events);
        let stop = self.output.push(token, bytes, &mut |event| {
            usage.reasoning += if event.kind == Kind::Reasoning { event.tokens.len() } else { 0 };
            events.send(Event::Token(event));
        });
        self.events.ticket.set_thinking(self.output.is_reasoning());
        if let Some(stop) = stop {
            return Some((FinishReason::StopText, stop));
        }
        self.is_full().then_some((FinishReason::Length, 0))
    }

    /// Ends the answer.
    pub(crate) fn finish(mut self, reason: FinishReason, stop: usize, info: &ModelInfo) -> Usage {
        let (usage, events) = (&mut self.usage, &self.events);
        if reason != FinishReason::StopText {
            self.output.finish(&mut |event| {
                usage.reasoning +=
                    if event.kind == Kind::Reasoning { event.tokens.len() } else { 0 };
                events.send(Event::Token(event));
            });
        }
        let now = Instant::now();
        let first = self.first.unwrap_or(now);
        let stop_text = (reason == FinishReason::StopText).then(|| self.stop.swap_remove(stop));
        self.events.send(Event::Finished(Box::new(Finished {
            reason,
            stop_text,
            usage: self.usage,
            timings: Timings {
                queued: self.admitted - self.queued,
                prefill: first - self.admitted,
                decode: now - first,
            },
            seed: self.seed,
            experts: self.experts(info),
        })));
        self.usage
    }

    /// Ends the answer with an error.
    pub(crate) fn fail(self, error: Error) {
        self.events.send(Event::Failed(error));
    }

    fn experts(&self, info: &ModelInfo) -> Option<ExpertReads> {
        let (begun, now) = (self.reads[0]?, reads(info)?);
        let first = self.reads[1].unwrap_or(now);
        Some(ExpertReads { prefill: first.since(&begun), decode: now.since(&first) })
    }

    /// How long the answer has been running, and its rate so far.
    pub(crate) fn rate(&self) -> f64 {
        let time = self.first.map(|first| first.elapsed()).unwrap_or_default();
        crate::event::rate(self.usage.generated.saturating_sub(1), time)
    }
}

fn reads(info: &ModelInfo) -> Option<CacheStats> {
    info.streaming.as_ref().map(|streaming| streaming.stats())
}

/// A seed for a request without one: the standard library's source of hash keys is the system's.
pub(crate) fn random_seed() -> u64 {
    // 53 bits, so that every program that reads JSON can hand the number back.
    RandomState::new().build_hasher().finish() >> 11
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_differ() {
        assert_ne!(super::random_seed(), super::random_seed());
    }
}
