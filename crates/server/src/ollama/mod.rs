//! Ollama's API: newline-delimited JSON, durations in nanoseconds, one model.

pub(crate) mod chat;
pub(crate) mod generate;
pub(crate) mod library;
pub(crate) mod options;
pub(crate) mod show;
pub(crate) mod stream;
