//! What happens to a request: the events that its [`crate::handle::Generation`] receives.

use std::time::Duration;

use cachalot_store::CacheStats;

use crate::Error;

/// Something that happened. After [`Event::Finished`] or [`Event::Failed`] nothing follows.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The request waits; sent again whenever its position changes.
    Queued {
        /// Requests before it.
        position: usize,
    },
    /// The prompt is being computed.
    Prefill {
        /// Tokens whose keys and values are in the cache, the reused ones included.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
        /// Tokens that were in the cache already.
        cached: usize,
    },
    /// More text.
    Token(TokenEvent),
    /// The answer is complete.
    Finished(Box<Finished>),
    /// The request ended with an error; others are not concerned.
    Failed(Error),
}

/// Text whose place is certain, and the tokens that it came from.
///
/// Joined, the texts of one kind are that part of the output. A token's text can be part of several
/// characters, tags or stop texts, so an event can hold several tokens, or tokens without text, as
/// those of a tag. Every token that was generated is in exactly one event, except those that end an
/// answer and those that are nothing but a stop text.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenEvent {
    /// What the text is part of.
    pub kind: Kind,
    /// Whole characters; bytes that are not UTF-8 became U+FFFD.
    pub text: String,
    /// The tokens that ended with this text.
    pub tokens: Vec<Token>,
}

/// The parts of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The thought before the answer. Its tags, and the white space around them, are not text.
    Reasoning,
    /// The answer.
    Answer,
}

/// A token that was generated. Its bytes are [`cachalot_text::Vocab::token_bytes`].
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its number in the vocabulary.
    pub id: u32,
    /// The natural logarithm of its probability as the model computed it, before temperature and
    /// filters; `None` unless [`crate::Request::logprobs`] asked for it.
    pub logprob: Option<f32>,
    /// The most likely tokens at its place, the likeliest first, as many as were asked for.
    pub top: Vec<TopToken>,
}

/// One of the likeliest tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopToken {
    /// Its number in the vocabulary.
    pub id: u32,
    /// The natural logarithm of its probability.
    pub logprob: f32,
}

/// How an answer ended, and what it took.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Why it ended.
    pub reason: FinishReason,
    /// The stop text that ended it, if one did.
    pub stop_text: Option<String>,
    /// Tokens.
    pub usage: Usage,
    /// Times.
    pub timings: Timings,
    /// The seed that gives the same text again.
    pub seed: u64,
    /// What was read of experts meanwhile, by this request or others, if they are streamed.
    pub experts: Option<ExpertReads>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model ended it, or its constraint is complete.
    Stop,
    /// A text of [`crate::Request::stop`] did.
    StopText,
    /// It has as many tokens as the request allows.
    Length,
    /// The context is full.
    ContextFull,
    /// The caller cancelled it, or the engine was shut down.
    Cancelled,
    /// Its events were not received in time.
    ReaderStalled,
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Those of them whose keys and values were in the cache.
    pub cached: usize,
    /// Tokens generated, those of thoughts included; the one that ends an answer is not counted.
    pub generated: usize,
    /// Tokens of thoughts, with their tags.
    pub reasoning: usize,
}

impl Usage {
    /// Tokens of the prompt that were computed.
    pub fn computed(&self) -> usize {
        self.prompt - self.cached
    }
}

/// Where the time of a request went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Waiting in the queue.
    pub queued: Duration,
    /// From its admission to its first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
}

impl Timings {
    /// Tokens of the prompt computed per second; 0 if there were none.
    pub fn prefill_rate(&self, usage: &Usage) -> f64 {
        rate(usage.computed(), self.prefill)
    }

    /// Tokens generated per second, without the first, which the prompt's time includes.
    pub fn decode_rate(&self, usage: &Usage) -> f64 {
        rate(usage.generated.saturating_sub(1), self.decode)
    }
}

/// Reads of experts while a request ran.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertReads {
    /// Until its first token.
    pub prefill: CacheStats,
    /// After that.
    pub decode: CacheStats,
}

pub(crate) fn rate(tokens: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { tokens as f64 / time.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_count_what_the_time_was_spent_on() {
        let usage = Usage { prompt: 100, cached: 90, generated: 7, reasoning: 0 };
        let timings = Timings {
            prefill: Duration::from_secs(2),
            decode: Duration::from_secs(3),
            ..Timings::default()
        };
        assert_eq!((timings.prefill_rate(&usage), timings.decode_rate(&usage)), (5.0, 2.0));
        let (none, never) = (Usage::default(), Timings::default());
        assert_eq!((never.prefill_rate(&none), never.decode_rate(&none)), (0.0, 0.0));
    }
}
