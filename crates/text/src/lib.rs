//! Text to tokens and back.
//!
//! ```text
//! messages --ChatTemplate--> prompt --Vocab::encode_prompt--> tokens --(the model)--> tokens
//!   --Vocab::token_bytes--> bytes --Utf8Stream--> text --StopStrings--> --ReasoningParser--> reasoning | answer
//! ```
//!
//! Everything that a file says (its tables, its template) is distrusted here: it ends in an error, not
//! in a panic and not in a loop. What this crate does not know: models, HTTP, JSON shapes of any API.

#![forbid(unsafe_code)]

mod byte_level;
mod error;
mod pretokenizer;
mod reasoning;
mod stop;
mod stream;
mod template;
mod vocab;

pub use error::{Error, Result};
pub use reasoning::{Event, ReasoningParser, Think, strip_reasoning};
pub use stop::{Passed, StopStrings};
pub use stream::Utf8Stream;
pub use template::{ChatTemplate, Message, RenderOptions, ToolCall};
pub use vocab::{Vocab, VocabParts};
