//! Errors of loading and of calls; every message names the place and what to do.

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the messages say what the variants and their fields are
pub enum Error {
    #[error(transparent)]
    Metadata(#[from] cachalot_gguf::Error),
    #[error("the key `{key}` is {found}; {expected} was expected")]
    Key { key: String, expected: String, found: String },
    #[error("the file holds a model of architecture `{found}`; supported: {supported}")]
    Architecture { found: String, supported: String },
    #[error(
        "`{name}` is a distilled model: a {arch} trained on DeepSeek-R1's answers, not DeepSeek-R1 \
         itself. cachalot runs DeepSeek-R1 and related models (architecture {supported})"
    )]
    Distilled { name: String, arch: String, supported: String },

    #[error("the tensor `{tensor}` is missing: is this a complete {arch} model?")]
    MissingTensor { tensor: String, arch: String },
    #[error("tensor `{tensor}` has the shape {found:?}; {expected:?} was expected")]
    Shape { tensor: String, expected: Vec<u64>, found: Vec<u64> },
    #[error("tensor `{tensor}` has the type {found}, which is not supported: {advice}")]
    Format { tensor: String, found: &'static str, advice: &'static str },
    #[error("the key `{key}` is {found}: this part of the computation is not implemented")]
    UnimplementedKey { key: String, found: String },
    #[error(
        "tensor `{tensor}` is not part of the computation that is implemented: the results would be \
         wrong without it"
    )]
    UnknownTensor { tensor: String },
    #[error("tensor `{tensor}`: {source}")]
    Matrix { tensor: String, source: cachalot_kernels::Error },

    #[error("{asked} active experts per token were requested; this model supports 1 to {count}")]
    ActiveExperts { asked: usize, count: usize },
    #[error("this model has no experts, so their number cannot be set")]
    NoExperts,
    #[error(
        "{used} of {groups} expert groups were requested; {count} experts, {active} of them active, \
         need groups of equal size, and in the groups used at least {active} experts; \
         --expert-groups off chooses among all experts"
    )]
    ExpertGroups { groups: usize, used: usize, count: usize, active: usize },

    #[error("rows of {width} numbers cannot be stored as {kind}: use f16 for the KV cache")]
    CacheType { width: usize, kind: cachalot_gguf::KvType },
    #[error(
        "no memory for a context of {capacity} tokens ({bytes} bytes): use a shorter one, or a \
         smaller KV cache type"
    )]
    CacheMemory { capacity: usize, bytes: usize },
    #[error("token {token} is not in the vocabulary of {vocabulary} tokens")]
    Token { token: u32, vocabulary: usize },
    #[error(
        "the hidden state is not finite: a damaged file, or an overflow of the KV cache in f16"
    )]
    NotFinite,
    #[error("the trace of routing cannot be written: {0}")]
    Trace(std::io::Error),
    #[error(transparent)]
    Store(#[from] cachalot_store::Error),
    #[error("stopped")]
    Stopped,
}
