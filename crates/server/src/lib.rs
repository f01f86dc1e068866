//! HTTP APIs of OpenAI, Anthropic, Ollama and llama-server over the engine's [`Handle`].
//!
//! ```text
//! connection -> log -> errors in the family's shape -> gate (Host, Origin, key) -> route
//!   body --dialect--> Chat, Options --template, vocabulary--> Request
//!   --Handle::submit--> Generation
//!   events --generate::Source--> Piece --respond::Dialect--> bytes of the stream, or one body
//! ```
//!
//! Rendering and tokenizing run apart from the tasks that serve connections; a dropped body drops
//! its generation. What this crate does not know: files of models, terminals, the environment.
#![forbid(unsafe_code)]

mod anthropic;
mod anthropic_stream;
mod app;
mod ask;
mod chat;
mod error;
mod generate;
mod http;
mod listen;
mod metrics;
mod models;
mod native;
mod ollama;
mod openai;
mod openapi;
mod options;
mod respond;
mod routes;
mod slots;
mod status;
mod streams;
mod tools;

pub use app::{App, Config, Defaults};
pub use http::auth::Keys;
pub use http::log::log;
pub use http::tls::TlsFiles;
pub use listen::{Address, Listener, Server, notify};
pub use models::{Arriving, Models, Refusal, Stored};
pub use openapi::document;
pub use routes::router;
pub use status::{Advice, ExpertCounts, Facts, MemoryFacts, Place, Prediction};

pub use cachalot_engine::Handle;

/// Reads a body as every dialect would, without a model: what is wrong with it is an error, never a
/// panic. For tests with arbitrary bytes.
pub fn read_bodies(bytes: &[u8]) {
    if let Ok(object) = http::body::object(bytes) {
        let _ = openai::chat::parse(&object);
        let _ = openai::responses::parse(&object);
        let _ = anthropic::parse(&object);
        let _ = ollama::chat::parse(&object);
    }
}
