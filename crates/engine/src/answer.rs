//! One answer in the making: logits in, tokens and events out.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::{Duration, Instant};

use cachalot_store::CacheStats;

use crate::Error;
use crate::constraint::Constrained;
use crate::event::{Event, ExpertReads, FinishReason, Finished, Kind, Timings, Token, Usage};
use crate::handle::{EventSender, Submission};
use crate::output::Output;
use crate::sampler::{Sampled, Sampler, Scratch, Unsampled};
use crate::status::ModelInfo;

/// How the templates of the R1 family end a thought.
const THOUGHT_END: &str = "\n</think>\n\n";

/// How the templates of the R1 family separate it from the answer.
const ANSWER_START: &str = "\n\n";

/// The state of an answer, from when its request was submitted to its end.
pub(crate) struct Answer {
    sampler: Sampler,
    constraint: Option<Constrained>,
    /// The constraint is satisfied, and nothing can follow.
    is_complete: bool,
    output: Output,
    events: EventSender,
    stop: Vec<String>,
    reader_timeout: Option<Duration>,
    limit: usize,
    ignore_eos: bool,
    logprobs: Option<usize>,
    /// Tokens that a thought may still have, its end not counted.
    thinking_left: usize,
    /// Tokens that come next, whatever the model computes.
    forced: VecDeque<u32>,
    usage: Usage,
    seed: u64,
    submitted: Instant,
    admitted: Option<Instant>,
    first: Option<Instant>,
    reads: [Option<CacheStats>; 2], // at admission and at the first token
}

impl Answer {
    /// The answer of a request that waits, after the tokens of its prompt.
    pub(crate) fn new(submission: Submission, prompt: &[u32], info: &ModelInfo) -> Self {
        let Submission { request, constraint, events, since, .. } = submission;
        let seed = request.seed.unwrap_or_else(random_seed);
        let mut bias = request.logit_bias;
        if request.ignore_eos {
            let ends = (0..info.vocab.len() as u32).filter(|id| info.vocab.is_end(*id));
            bias.extend(ends.map(|id| (id, f32::NEG_INFINITY)));
        }
        let mut sampler = Sampler::new(request.sampling, seed, bias);
        prompt.iter().for_each(|&token| sampler.accept(token, info.vocab.token_bytes(token)));
        Self {
            sampler,
            constraint,
            is_complete: false,
            output: Output::new(request.thought, info.thought_tags, &request.stop),
            events,
            stop: request.stop,
            reader_timeout: request.reader_timeout,
            limit: request.max_tokens.unwrap_or(usize::MAX),
            ignore_eos: request.ignore_eos,
            logprobs: request.logprobs,
            thinking_left: request.thinking_budget.unwrap_or(usize::MAX),
            forced: VecDeque::new(),
            usage: Usage { prompt: prompt.len(), ..Usage::default() },
            seed,
            submitted: since,
            admitted: None,
            first: None,
            reads: [None; 2],
        }
    }

    /// Its turn has come, with `cached` tokens of its prompt in the cache. Only the first time
    /// counts.
    pub(crate) fn admitted(&mut self, cached: usize, info: &ModelInfo) {
        if self.admitted.is_none() {
            self.admitted = Some(Instant::now());
            self.usage.cached = cached.min(self.usage.prompt);
            self.reads[0] = reads(info);
            self.events.ticket.set_thinking(self.output.is_reasoning());
        }
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

    /// Whether no further token may be generated.
    pub(crate) fn is_full(&self) -> bool {
        self.usage.generated >= self.limit
    }

    /// The next token by the logits `[vocabulary]` after the tokens so far; `None` if the answer is
    /// complete.
    ///
    /// # Errors
    /// If the logits are not finite, or the constraint leaves nothing.
    pub(crate) fn choose(
        &mut self,
        scratch: &mut Scratch,
        logits: &[f32],
        info: &ModelInfo,
    ) -> Result<Option<Token>, Error> {
        if self.first.is_none() {
            self.first = Some(Instant::now());
            self.reads[1] = reads(info);
        }
        self.close_thought(info)?;
        if let Some(id) = self.forced.pop_front() {
            let sampled = scratch.given(id, logits, self.logprobs).ok_or(Error::NotFinite)?;
            return Ok(Some(sampled.into()));
        }
        // Only as the first token, and only if a thought may have any.
        let may_think = self.usage.generated == 0 && self.thinking_left > 0;
        let opening = self.output.may_open_thought().filter(|_| may_think);
        let mut mask = match &mut self.constraint {
            Some(constraint) if !self.output.is_reasoning() => Some(constraint.mask()?),
            _ => None,
        };
        if let (Some(mask), Some(open)) = (&mut mask, opening) {
            mask.allow_token(open);
        }
        match self.sampler.sample(scratch, logits, mask.as_ref(), self.logprobs) {
            // The answer that the constraint describes is still to come: only the thought ends.
            Ok(sampled) if self.ends_in_thought(sampled.id, info) => {
                self.forced.extend(info.vocab.encode(THOUGHT_END, true)?);
                let id = self.forced.pop_front().unwrap_or(sampled.id);
                let given = scratch.given(id, logits, self.logprobs).ok_or(Error::NotFinite)?;
                Ok(Some(given.into()))
            }
            Ok(sampled) => {
                let is_answer = mask.is_some() && Some(sampled.id) != opening;
                if let Some(constraint) = self.constraint.as_mut().filter(|_| is_answer) {
                    self.is_complete = constraint.accept(sampled.id)?;
                }
                Ok(Some(sampled.into()))
            }
            Err(Unsampled::NotFinite) => Err(Error::NotFinite),
            // Only an end could follow, and the caller does not want one.
            Err(Unsampled::Nothing) if self.ignore_eos && mask.is_some() => Ok(None),
            Err(Unsampled::Nothing) => Err(Error::NoToken),
        }
    }

    /// Whether a token would end a constrained answer before its thought has ended.
    fn ends_in_thought(&self, id: u32, info: &ModelInfo) -> bool {
        let owes = self.constraint.is_some() && self.output.is_reasoning();
        owes && info.vocab.is_end(id) && !self.ignore_eos
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

    /// Takes the token that was chosen, and sends what that makes certain; returns why the answer
    /// ends with it, if it does, and which stop text ended it.
    ///
    /// # Errors
    /// If the template's white space has no tokens, which is not so for any known vocabulary.
    pub(crate) fn accept(
        &mut self,
        token: Token,
        info: &ModelInfo,
    ) -> Result<Option<(FinishReason, usize)>, Error> {
        if info.vocab.is_end(token.id) && !self.ignore_eos {
            return Ok(Some((FinishReason::Stop, 0)));
        }
        let bytes = info.vocab.token_bytes(token.id);
        self.usage.generated += 1;
        self.sampler.accept(token.id, bytes);
        let was_reasoning = self.output.is_reasoning();
        let (usage, events) = (&mut self.usage, &self.events);
        let stop = self.output.push(token, bytes, &mut |event| {
            usage.reasoning += if event.kind == Kind::Reasoning { event.tokens.len() } else { 0 };
            events.send(Event::Token(event));
        });
        let thinks = self.output.is_reasoning();
        self.events.ticket.set_thinking(thinks);
        // A constraint leaves no room for the white space that models write here.
        let begins = was_reasoning && !thinks && self.constraint.is_some();
        if begins && info.thought_tags.is_some() && self.forced.is_empty() {
            self.forced.extend(info.vocab.encode(ANSWER_START, false)?);
        }
        if let Some(stop) = stop {
            return Ok(Some((FinishReason::StopText, stop)));
        }
        if self.is_complete {
            return Ok(Some((FinishReason::Stop, 0)));
        }
        Ok(self.is_full().then_some((FinishReason::Length, 0)))
    }

    /// Ends the answer.
    pub(crate) fn finish(mut self, reason: FinishReason, stop: usize, info: &ModelInfo) {
        let (usage, events) = (&mut self.usage, &self.events);
        if reason != FinishReason::StopText {
            self.output.finish(&mut |event| {
                usage.reasoning +=
                    if event.kind == Kind::Reasoning { event.tokens.len() } else { 0 };
                events.send(Event::Token(event));
            });
        }
        let now = Instant::now();
        let admitted = self.admitted.unwrap_or(now);
        let first = self.first.unwrap_or(now);
        let stop_text = (reason == FinishReason::StopText).then(|| self.stop.swap_remove(stop));
        self.events.send(Event::Finished(Box::new(Finished {
            reason,
            stop_text,
            usage: self.usage,
            timings: Timings {
                queued: admitted - self.submitted,
                prefill: first - admitted,
                decode: now - first,
            },
            seed: self.seed,
            experts: self.experts(info),
        })));
    }

    /// Ends the answer with an error.
    pub(crate) fn fail(self, error: Error) {
        self.events.send(Event::Failed(error));
    }

    /// How long it has been running.
    pub(crate) fn running_time(&self) -> Duration {
        self.admitted.map(|admitted| admitted.elapsed()).unwrap_or_default()
    }

    fn experts(&self, info: &ModelInfo) -> Option<ExpertReads> {
        let (begun, now) = (self.reads[0]?, reads(info)?);
        let first = self.reads[1].unwrap_or(now);
        Some(ExpertReads { prefill: first.since(&begun), decode: now.since(&first) })
    }

    /// Tokens generated per second so far.
    pub(crate) fn rate(&self) -> f64 {
        let time = self.first.map(|first| first.elapsed()).unwrap_or_default();
        crate::event::rate(self.usage.generated.saturating_sub(1), time)
    }
}

impl From<Sampled> for Token {
    fn from(Sampled { id, logprob, top }: Sampled) -> Self {
        Self { id, logprob, top }
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
