//! What the engine is doing, published after every step, and what there is to know about its model.

mod describe;
mod experts;
mod fingerprint;
mod info;
mod streaming;

use std::time::Duration;

use cachalot_store::CacheStats;

use crate::handle::Limits;
use crate::request::RequestId;

pub use describe::describe;
pub(crate) use describe::model_info;
pub(crate) use experts::Counted;
pub use experts::ExpertUse;
pub use fingerprint::Fingerprint;
pub use info::{Context, ModelInfo};
pub use streaming::Streaming;

/// A snapshot of the engine.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Requests that wait for their turn.
    pub queued: usize,
    /// How many may run and wait.
    pub limits: Limits,
    /// No requests are accepted any more.
    pub is_shutting_down: bool,
    /// Requests that are being answered, and those that wait, in the order of their turn.
    pub sequences: Vec<SequenceStatus>,
    /// Memory for keys and values.
    pub kv: KvStatus,
    /// Sums since the start.
    pub totals: Totals,
    /// What was read of experts since the start, if they are streamed.
    pub experts: Option<CacheStats>,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SequenceStatus {
    /// Its name.
    pub id: RequestId,
    /// What happens to it.
    pub phase: SequencePhase,
    /// Tokens of its prompt.
    pub prompt: usize,
    /// Those of them that were in the cache.
    pub cached: usize,
    /// Tokens generated so far.
    pub generated: usize,
    /// Tokens generated per second; 0 before the second one.
    pub rate: f64,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequencePhase {
    /// It waits.
    Queued {
        /// Requests before it.
        position: usize,
    },
    /// Its prompt is being computed.
    Prefill {
        /// Tokens done, cached ones included.
        done: usize,
    },
    /// It thinks.
    Reasoning,
    /// It answers.
    Answer,
    /// Its reader is behind.
    Paused,
}

/// Memory for keys and values, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvStatus {
    /// Tokens of a page.
    pub page_tokens: usize,
    /// Bytes of a page, over all layers.
    pub page_bytes: u64,
    /// All pages.
    pub pages: usize,
    /// Pages of running requests.
    pub used: usize,
    /// Pages of past requests, kept for prompts that begin as they did.
    pub cached: usize,
}

/// Sums since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Requests that ended, by whatever reason.
    pub requests: u64,
    /// Those that were cancelled.
    pub cancelled: u64,
    /// Those that failed.
    pub failed: u64,
    /// Prompt tokens that were computed.
    pub prompt_computed: u64,
    /// Prompt tokens that were in the cache.
    pub prompt_cached: u64,
    /// Tokens generated.
    pub generated: u64,
    /// Sequences that gave their memory up to older ones and were computed again.
    pub preempted: u64,
    /// Time in passes that computed prompts, with or without decoding.
    pub prefill_time: Duration,
    /// Time in passes that only decoded.
    pub decode_time: Duration,
    /// Time from admission to the end, over all requests.
    pub running_time: Duration,
}

impl Status {
    /// When a place in the queue is probably free: the mean time of a request, over the places.
    pub(crate) fn turnover(&self) -> Duration {
        const UNKNOWN: Duration = Duration::from_secs(10);
        let ended = u32::try_from(self.totals.requests).unwrap_or(u32::MAX);
        let mean = self.totals.running_time.checked_div(ended).unwrap_or(UNKNOWN);
        (mean / self.limits.parallel.max(1) as u32).max(Duration::from_secs(1))
    }
}
