//! llama-server's own API.

pub(crate) mod completion;
pub(crate) mod completion_stream;
pub(crate) mod facts;
pub(crate) mod prompt;
pub(crate) mod slots;
pub(crate) mod tokens;
