//! Why a model cannot be loaded or a call not be made; every message names its place and what to do.

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
         itself. cachalot runs DeepSeek-R1 and its kin (architecture {supported})"
    )]
    Distilled { name: String, arch: String, supported: String },

    #[error("the file has no tensor `{tensor}`: is it a complete {arch} model?")]
    MissingTensor { tensor: String, arch: &'static str },
    #[error("tensor `{tensor}` has the shape {found:?}; {expected:?} was expected")]
    Shape { tensor: String, expected: Vec<u64>, found: Vec<u64> },
    #[error("tensor `{tensor}` is stored as {found}, for which there are no kernels: {advice}")]
    Format { tensor: String, found: &'static str, advice: &'static str },
    #[error("tensor `{tensor}`: {source}")]
    Matrix { tensor: String, source: cachalot_kernels::Error },

    #[error("{asked} active experts per token were asked for; this model has 1 to {count}")]
    ActiveExperts { asked: usize, count: usize },
    #[error("this model has no experts, so their number cannot be set")]
    NoExperts,
    #[error(
        "{used} of {groups} groups of experts were asked for; {count} experts, {active} of them \
         active, need groups of equal size that together hold as many"
    )]
    ExpertGroups { groups: usize, used: usize, count: usize, active: usize },

    #[error("rows of {width} numbers cannot be stored as {kind}: take f16 for the cache")]
    CacheType { width: usize, kind: crate::KvType },
    #[error(
        "no memory for a context of {capacity} tokens ({bytes} bytes): ask for a shorter one, or \
         a smaller type of cache"
    )]
    CacheMemory { capacity: usize, bytes: usize },
    #[error("the context holds {capacity} tokens, {len} of them in use: {more} more do not fit")]
    ContextFull { capacity: usize, len: usize, more: usize },
    #[error("there is no token {token}: the vocabulary has {vocabulary}")]
    Token { token: u32, vocabulary: usize },
    #[error("the trace of routing cannot be written: {0}")]
    Trace(std::io::Error),
    #[error(transparent)]
    Store(#[from] cachalot_store::Error),
    #[error("stopped")]
    Stopped,
}
