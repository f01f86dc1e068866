//! One module per command.

pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod logits;
pub(crate) mod perplexity;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod shell;
pub(crate) mod show;
pub(crate) mod tokenize;
