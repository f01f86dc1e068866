//! What there is to know about a loaded model; it does not change while the engine runs.

use std::time::Duration;

use cachalot_gguf::{KvType, Metadata};
use cachalot_kernels::Tier;
use cachalot_plan::Layout;
use cachalot_store::Weights;
use cachalot_text::{ChatTemplate, Vocab};

use super::fingerprint::Fingerprint;
use super::streaming::Streaming;
use crate::output::ThoughtTags;
use crate::request::Sampling;

/// A loaded model's description.
#[derive(Debug)]
pub struct ModelInfo {
    /// The model's own name, or its file's.
    pub name: String,
    /// The weights, with their description; those that are streamed have no bytes.
    pub weights: Weights,
    /// Text <-> tokens.
    pub vocab: Vocab,
    /// Messages -> prompts.
    pub template: ChatTemplate,
    /// What is ignored or replaced in the file: sentences without a full stop.
    pub warnings: Vec<String>,
    /// How many tokens a sequence can hold.
    pub context: Context,
    /// How keys and values are stored.
    pub kv_type: KvType,
    /// Which model this is, and with which options it is computed.
    pub fingerprint: Fingerprint,
    /// The defaults of sampling, with what the file recommends.
    pub recommended: Sampling,
    /// Threads that compute.
    pub threads: usize,
    /// Threads that the system refused to start.
    pub threads_missing: usize,
    /// The instructions that they use.
    pub tier: Tier,
    /// What is streamed, if anything is.
    pub streaming: Option<Streaming>,
    /// Which device holds what.
    pub layout: Layout,
    /// How long loading took.
    pub load_time: Duration,
    pub(crate) thought_tags: Option<ThoughtTags>,
}

impl ModelInfo {
    /// The key-value pairs of the file.
    pub fn metadata(&self) -> &Metadata {
        self.weights.metadata()
    }
}

/// How many tokens a sequence can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Tokens of a sequence.
    pub tokens: usize,
    /// Tokens that the model was made for.
    pub model: usize,
    /// Bytes that the KV cache of a full sequence takes.
    pub bytes: u64,
    /// Fewer tokens than the model was made for, without having been asked for: memory, or the
    /// default's limit, decided it.
    pub reduced: bool,
}
