//! What can be wrong with a file's tokenizer or chat template, and what to do about it.

/// Why a vocabulary cannot be built, a text encoded, or a conversation rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the messages describe the variants and their fields
pub enum Error {
    #[error(transparent)]
    Metadata(#[from] cachalot_gguf::Error),
    #[error(
        "tokenizer.ggml.model is `{model}`: only `gpt2` (byte-level BPE, used by the DeepSeek \
         family) is supported"
    )]
    Model { model: String },
    #[error("tokenizer.ggml.pre is `{pre}`, an unknown pre-tokenizer. Supported are: {known}")]
    PreTokenizer { pre: String, known: String },
    #[error("tokenizer.ggml.{key}: {fault}. The file is damaged or was converted incorrectly")]
    Table { key: &'static str, fault: String },
    #[error("the text could not be split into words: {0}")]
    Split(#[from] Box<fancy_regex::Error>),
    #[error("the words could not be encoded: {0}")]
    Encode(String),

    #[error(
        "the file has no chat template, and its vocabulary has the tags of neither DeepSeek nor \
         Kimi: give one with --chat-template FILE"
    )]
    NoTemplate,
    #[error("the chat template is not used: {0}")]
    TemplateTooLarge(String),
    #[error("the chat template has a syntax error: {0}")]
    TemplateSyntax(String),
    #[error("the chat template failed on this conversation: {0}")]
    TemplateRender(String),
    /// The template called `raise_exception`: the conversation, not the file, is at fault.
    #[error("the chat template rejects this conversation: {0}")]
    Refused(String),
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;
