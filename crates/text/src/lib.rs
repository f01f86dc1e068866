//! Text to tokens and back.
//!
//! ```text
//! messages --ChatTemplate--> Prompt --Prompt::tokens--> tokens --(the model)--> tokens
//!   --Vocab::token_bytes--> bytes --Utf8Stream--> text --ReasoningParser--> reasoning | answer
//!   answer --StopStrings--> shown
//! ```
//!
//! The tables and the template of a file are not trusted: they may cause an error, but no panic and
//! no endless loop. This crate knows nothing of models, HTTP, or the JSON of any API.

#![forbid(unsafe_code)]

mod byte_level;
mod error;
mod message;
mod pretokenizer;
mod prompt;
mod reasoning;
mod specials;
mod stop;
mod stream;
mod template;
mod tools;
mod vocab;

pub use error::{Error, Result};
pub use message::{Message, Tool, ToolCall};
pub use prompt::{Prompt, Tail};
pub use reasoning::{Event, ReasoningParser, Think, strip_reasoning};
pub use stop::{Filtered, StopStrings};
pub use stream::Utf8Stream;
pub use template::{ChatTemplate, RenderOptions};
pub use tools::{Channel, ToolChoice, ToolEvent, ToolFormat, ToolParser};
pub use vocab::{Vocab, VocabParts};
