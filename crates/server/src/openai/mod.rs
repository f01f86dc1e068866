//! OpenAI's APIs, with what llama-server added to them.

pub(crate) mod chat;
pub(crate) mod chat_stream;
pub(crate) mod completions;
pub(crate) mod models;
pub(crate) mod responses;
pub(crate) mod responses_stream;
pub(crate) mod wire;
