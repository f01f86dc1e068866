//! Shapes that several of OpenAI's APIs share: usage, timings, log probabilities.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::generate::{Live, Probed};

/// Tokens of a request.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: usize,
    pub(crate) completion_tokens: usize,
    pub(crate) total_tokens: usize,
    pub(crate) prompt_tokens_details: PromptDetails,
    pub(crate) completion_tokens_details: CompletionDetails,
}

/// Where a prompt's tokens came from.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct PromptDetails {
    /// Tokens found in the cache.
    pub(crate) cached_tokens: usize,
}

/// What a completion's tokens are.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct CompletionDetails {
    /// Tokens of thoughts.
    pub(crate) reasoning_tokens: usize,
}

impl Usage {
    /// The sum over all answers to one prompt.
    pub(crate) fn of(lives: &[Live]) -> Self {
        let first = lives.first().copied().unwrap_or_default();
        let completion = lives.iter().map(|live| live.generated).sum();
        Self {
            prompt_tokens: first.prompt,
            completion_tokens: completion,
            total_tokens: first.prompt + completion,
            prompt_tokens_details: PromptDetails { cached_tokens: first.cached },
            completion_tokens_details: CompletionDetails {
                reasoning_tokens: lives.iter().map(|live| live.reasoning).sum(),
            },
        }
    }
}

/// llama-server's timings.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Timings {
    cache_n: usize,
    prompt_n: usize,
    prompt_ms: f64,
    prompt_per_token_ms: f64,
    prompt_per_second: f64,
    predicted_n: usize,
    predicted_ms: f64,
    predicted_per_token_ms: f64,
    predicted_per_second: f64,
}

impl Timings {
    /// Those of a prompt of which `done` tokens are computed.
    pub(crate) fn of_prompt(live: &Live, done: usize) -> Self {
        Self::of(&Live { prompt: done, generated: 0, decode: Duration::ZERO, ..*live })
    }

    pub(crate) fn of(live: &Live) -> Self {
        let prompt_n = live.prompt.saturating_sub(live.cached);
        let (prompt_ms, predicted_ms) =
            (live.prefill.as_secs_f64() * 1e3, live.decode.as_secs_f64() * 1e3);
        // The first token comes with the prompt's time.
        let timed = live.generated.saturating_sub(1);
        let over = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
        Self {
            cache_n: live.cached,
            prompt_n,
            prompt_ms,
            prompt_per_token_ms: over(prompt_ms, prompt_n as f64),
            prompt_per_second: over(prompt_n as f64 * 1e3, prompt_ms),
            predicted_n: live.generated,
            predicted_ms,
            predicted_per_token_ms: over(predicted_ms, timed as f64),
            predicted_per_second: over(timed as f64 * 1e3, predicted_ms),
        }
    }
}

/// Progress of a prompt.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Progress {
    pub(crate) total: usize,
    pub(crate) cache: usize,
    pub(crate) processed: usize,
    pub(crate) time_ms: f64,
}

/// Log probabilities of an answer's tokens.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Logprobs {
    /// Those of the answer, tool calls included.
    pub(crate) content: Vec<Logprob>,
    /// Null: nothing is refused here.
    #[schema(value_type = Option<Vec<Logprob>>)]
    pub(crate) refusal: Option<()>,
    /// Those of the thought.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) reasoning_content: Vec<Logprob>,
}

/// One token.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Logprob {
    id: u32,
    /// Its text; bytes that are not UTF-8 became U+FFFD.
    token: String,
    /// Its exact bytes.
    bytes: Vec<u8>,
    logprob: f32,
    top_logprobs: Vec<TopLogprob>,
}

/// One of the most likely tokens.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct TopLogprob {
    id: u32,
    token: String,
    bytes: Vec<u8>,
    logprob: f32,
}

/// JSON has no infinity: a token that cannot be has a very small probability.
fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { -9999.0 }
}

/// The tokens of a text.
pub(crate) fn logprobs(tokens: &[Probed]) -> Vec<Logprob> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let one = |token: &Probed| Logprob {
        id: token.id,
        token: text(&token.bytes),
        bytes: token.bytes.clone(),
        logprob: finite(token.logprob.unwrap_or_default()),
        top_logprobs: token
            .top
            .iter()
            .map(|(id, bytes, logprob)| TopLogprob {
                id: *id,
                token: text(bytes),
                bytes: bytes.clone(),
                logprob: finite(*logprob),
            })
            .collect(),
    };
    tokens.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_counts_all_answers_and_the_prompt_once() {
        let live = Live { prompt: 10, cached: 4, generated: 3, reasoning: 1, ..Live::default() };
        let usage = Usage::of(&[live, live]);
        assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (10, 6, 16));
        assert_eq!(usage.completion_tokens_details.reasoning_tokens, 2);
        assert_eq!(usage.prompt_tokens_details.cached_tokens, 4);
    }

    #[test]
    fn timings_are_rates_and_never_infinite() {
        let (prefill, decode) = (Duration::from_secs(2), Duration::from_secs(1));
        let live = Live { prompt: 10, generated: 5, prefill, decode, ..Live::default() };
        let timings = Timings::of(&live);
        assert_eq!((timings.prompt_per_second, timings.predicted_per_second), (5.0, 4.0));
        let nothing = serde_json::to_string(&Timings::of(&Live::default())).unwrap();
        assert!(!nothing.contains("null"), "{nothing}");
    }

    #[test]
    fn bytes_that_are_no_text_stay_bytes() {
        let token = Probed {
            id: 1,
            bytes: vec![0xF0, 0x9F],
            logprob: Some(f32::NEG_INFINITY),
            top: vec![],
        };
        let json = serde_json::to_value(logprobs(&[token])).unwrap();
        assert_eq!(json[0]["bytes"], serde_json::json!([0xF0, 0x9F]));
        assert_eq!(json[0]["token"], "\u{FFFD}");
        assert_eq!(json[0]["logprob"], -9999.0);
    }
}
