//! What a caller asks of the engine, and why it may be refused before anything is computed.

mod prompt;
mod sampling;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::Error;
use crate::status::ModelInfo;

#[doc(hidden)]
pub use crate::constraint::fuzz_gbnf;
pub(crate) use prompt::vocab_of;
pub use prompt::{PromptText, embedded_vocab, open_vocab, render};
pub use sampling::{PARAMETERS, Parameter, Sampling};

/// Names a request for as long as its engine runs; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One completion: a prompt in tokens, and how to continue it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The tokens of the prompt, at least one. Chat templates are rendered by the caller.
    pub prompt: Vec<u32>,
    /// Whether the prompt ends inside a thought, after one, or leaves that to the model.
    pub thought: ThoughtState,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The same seed gives the same text; `None` takes a random one, which
    /// [`Finished`](crate::event::Finished) reports.
    pub seed: Option<u64>,
    /// Texts that end the answer and are not part of it. Thoughts are not searched for them.
    pub stop: Vec<String>,
    /// The most tokens to generate, thoughts included; `None` is as many as the context holds. 0
    /// computes the prompt, which is then cached, and generates nothing.
    pub max_tokens: Option<usize>,
    /// The most tokens of a thought; then it is closed and the answer begins. `None` is no limit.
    pub thinking_budget: Option<usize>,
    /// What the answer must look like. It applies from the end of the thought on.
    pub constraint: Option<Constraint>,
    /// Added to the logits of these tokens; `-inf` forbids one.
    pub logit_bias: Vec<(u32, f32)>,
    /// Report the log probability of each token, and of this many of the most likely ones beside
    /// it.
    pub logprobs: Option<usize>,
    /// Continue past the tokens that end an answer.
    pub ignore_eos: bool,
    /// Reuse the KV cache of an earlier request that begins with the same tokens.
    pub cache_prompt: bool,
    /// How long a reader may be behind ([`UNREAD_MAX`]) until its request is cancelled. Generation
    /// pauses meanwhile. `None` waits for ever, as a program does whose output is being paged.
    pub reader_timeout: Option<Duration>,
    /// Setting this flag cancels the request, as a signal handler can.
    pub cancel: Option<Arc<AtomicBool>>,
}

/// Bytes of events that wait to be received; beyond it, generation pauses.
pub const UNREAD_MAX: usize = 1 << 20;

/// [`Request::reader_timeout`] by default.
pub const READER_TIMEOUT: Duration = Duration::from_secs(60);

impl Default for Request {
    fn default() -> Self {
        Self {
            prompt: Vec::new(),
            thought: ThoughtState::default(),
            sampling: Sampling::default(),
            seed: None,
            stop: Vec::new(),
            max_tokens: None,
            thinking_budget: None,
            constraint: None,
            logit_bias: Vec::new(),
            logprobs: None,
            ignore_eos: false,
            cache_prompt: true,
            reader_timeout: Some(READER_TIMEOUT),
            cancel: None,
        }
    }
}

impl Request {
    /// Whether this request makes sense for this model.
    pub(crate) fn check(&self, info: &ModelInfo) -> Result<(), SubmitError> {
        let (n_prompt, n_ctx) = (self.prompt.len(), info.context.tokens);
        if n_prompt >= n_ctx {
            return Err(SubmitError::PromptTooLong { n_prompt, n_ctx });
        }
        if n_prompt == 0 {
            return Err(Error::PromptEmpty.into());
        }
        let vocabulary = info.vocab.len();
        let biased = self.logit_bias.iter().map(|(token, _)| token);
        let unknown = |token: &&u32| **token as usize >= vocabulary;
        if let Some(&token) = self.prompt.iter().chain(biased).find(unknown) {
            return Err(Error::Token { token, vocabulary }.into());
        }
        Ok(())
    }
}

/// Where the end of a prompt leaves the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ThoughtState {
    /// The model decides: if it begins with `<think>`, a thought follows.
    #[default]
    Undecided,
    /// The prompt ends in `<think>`.
    Open,
    /// The prompt ends in `</think>`.
    Closed,
    /// Thoughts are not told apart: all text is the answer, tags included.
    Ignored,
}

impl From<cachalot_text::Tail> for ThoughtState {
    fn from(tail: cachalot_text::Tail) -> Self {
        match tail {
            cachalot_text::Tail::Plain => Self::Undecided,
            cachalot_text::Tail::OpenThought => Self::Open,
            cachalot_text::Tail::ClosedThought => Self::Closed,
        }
    }
}

/// What an answer must look like. Whitespace between the parts of JSON is bounded.
#[derive(Clone, Debug, PartialEq)]
pub enum Constraint {
    /// Valid against this JSON schema.
    JsonSchema(serde_json::Value),
    /// Any JSON object.
    JsonObject,
    /// Matched as a whole by this regular expression (syntax of the `regex` crate, without
    /// look-around).
    Regex(String),
    /// A Lark grammar in llguidance's dialect; its start rule is `start`.
    Lark(String),
    /// A grammar in llama.cpp's GBNF; its start rule is `root`.
    Gbnf(String),
}

/// Why a request was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// As many requests wait as the queue holds.
    #[error("{position} requests are waiting already: try again in {} s", retry_after.as_secs())]
    QueueFull {
        /// Requests that wait.
        position: usize,
        /// When a place will probably be free.
        retry_after: Duration,
    },
    /// The prompt does not fit into the context together with one token of an answer.
    #[error(
        "the prompt has {n_prompt} tokens, but the context holds {n_ctx}, and the answer needs room \
         too: shorten the prompt or start with a longer context"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        n_prompt: usize,
        /// Tokens of the context.
        n_ctx: usize,
    },
    /// The request makes no sense.
    #[error(transparent)]
    Invalid(#[from] Error),
    /// The engine is shutting down.
    #[error("the engine is shutting down and accepts no requests")]
    ShuttingDown,
}
