//! Requests -> token streams.
//!
//! [`Engine::load`] puts a model together; a [`Session`] of it answers conversations:
//!
//! ```text
//! messages --template--> prompt --vocabulary--> tokens --model--> logits --Sampler--> token
//!   --> bytes --> whole characters --> thoughts | answer --> Event
//! ```
//!
//! What this crate does not know: terminals, HTTP, and hardware other than this machine's cores.
#![forbid(unsafe_code)]

mod assemble;
mod error;
mod metrics;
mod place;
mod random;
mod sampler;
mod sampling;
mod session;
mod stream;

pub use assemble::{Context, Engine, Options, Source, open_vocab, processor};
pub use error::Error;
pub use metrics::Stats;
pub use place::{Placed, constraints, described, memory_budget, place};
pub use sampler::Sampler;
pub use sampling::{PARAMETERS, Parameter, Sampling};
pub use session::{Ending, Event, Request, Session};
pub use stream::Streaming;

pub use cachalot_gguf::KvType;
pub use cachalot_kernels::{Tier, TierName};
pub use cachalot_model::{ExpertGroups, Groups};
pub use cachalot_plan::Stream;
pub use cachalot_probe::system as host;
pub use cachalot_store::{CacheStats, ReadRate};
pub use cachalot_text::{Message, Think, Vocab};
