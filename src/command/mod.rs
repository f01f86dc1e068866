//! One module per command.

pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod cp;
pub(crate) mod import;
pub(crate) mod list;
pub(crate) mod logits;
pub(crate) mod perplexity;
pub(crate) mod plan;
pub(crate) mod prune;
pub(crate) mod ps;
pub(crate) mod pull;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod shell;
pub(crate) mod show;
pub(crate) mod stop;
pub(crate) mod tokenize;
pub(crate) mod verify;
