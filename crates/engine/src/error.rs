//! What can keep a request from being answered, said so that the reader can act on it.

use std::path::PathBuf;
use std::sync::Arc;

/// Why a model cannot be put together or an answer not be computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the messages say what the variants and their fields are
pub enum Error {
    #[error(transparent)]
    Gguf(#[from] cachalot_gguf::Error),
    #[error(transparent)]
    Store(#[from] cachalot_store::Error),
    #[error(transparent)]
    Model(#[from] cachalot_model::Error),
    #[error(transparent)]
    Text(#[from] cachalot_text::Error),
    #[error(transparent)]
    Fit(#[from] cachalot_plan::PlacementError),
    #[error(transparent)]
    Computation(Arc<cachalot_model::Error>),
    #[error("{}: {source}", path.display())]
    InFile { path: PathBuf, source: Box<Self> },

    #[error(
        "the file has a vocabulary of {tokens} tokens, but its head computes {logits} logits: it was \
         converted wrongly"
    )]
    Vocabulary { tokens: usize, logits: usize },
    #[error("the file holds no weights, only a description or a vocabulary: it cannot answer")]
    NoWeights,
    #[error(
        "the file's header does not say how many layers there are, how wide, and for what context"
    )]
    Header,
    #[error(
        "the prompt has {prompt} tokens, but the context holds {context}, and the answer needs room \
         too: shorten the prompt or ask for a longer context"
    )]
    PromptTooLong { prompt: usize, context: usize },
    #[error(
        "the model's logits are not finite: the file is damaged, or its KV-cache data type does not \
         suit it"
    )]
    NotFinite,

    #[error("the prompt has no tokens")]
    PromptEmpty,
    #[error("token {token} is not in the vocabulary of {vocabulary} tokens")]
    Token { token: u32, vocabulary: usize },
    #[error("the constraint of the answer is not valid: {fault}")]
    Constraint { fault: String },
    #[error("the constraint of the answer cannot be followed any further: {fault}")]
    ConstraintStuck { fault: String },
    #[error("neither the constraint nor the logit bias leaves a token that may come next")]
    NoToken,
    #[error("the engine has stopped: an internal error, see its log")]
    EngineGone,

    #[error("the layout names the device `{device}`, which this program was not given")]
    Device { device: String },
    #[error("no thread can be started for the engine: {source}")]
    Thread { source: std::io::Error },
    #[error("the model's files cannot be read to tell them from others: {source}")]
    Fingerprint { source: std::io::Error },
    #[error("{}: the prefix cache cannot be opened: {source}", folder.display())]
    PrefixCache { folder: PathBuf, source: std::io::Error },
    #[error("no thread can be started to read the model: {source}")]
    Reader { source: std::io::Error },
    #[error("the model has not arrived: {source}")]
    Arriving { source: std::io::Error },
    #[error("{}: the trace cannot be written: {source}", path.display())]
    Trace { path: PathBuf, source: std::io::Error },

    #[error("{name} is {value}, but must be {kind} from {min} to {max}")]
    ParameterRange { name: &'static str, value: f64, kind: &'static str, min: f64, max: f64 },
    #[error(
        "unknown parameter `{name}`: use temperature, top_p, top_k, min_p, repeat_penalty, \
         presence_penalty, frequency_penalty, repeat_last_n, typical_p, xtc_probability, \
         xtc_threshold, dry_multiplier, dry_base, dry_allowed_length or dry_penalty_last_n"
    )]
    ParameterName { name: String },
    #[error("the file's own recommendation `{key}` cannot be followed: {source}")]
    ParameterKey { key: String, source: Box<Self> },
}
