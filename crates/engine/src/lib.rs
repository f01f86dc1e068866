//! Requests -> token streams.
//!
//! Five modules are what its users see, each named after its concept:
//!
//! | module | concept |
//! |---|---|
//! | [`layout`] | [`Layout`]: where a model will be; planning, loading and starting it |
//! | [`handle`] | [`Handle`]: a running engine, which takes requests from any thread |
//! | [`request`] | [`Request`]: a prompt, and how to continue it; rendering prompts, sampling |
//! | [`event`] | [`Event`]: what happens to a request, until it has ended |
//! | [`status`] | [`Status`]: what the engine is doing, and what its model is |
//!
//! [`layout::LoadPlan::of`] says where a model will be, [`layout::LoadPlan::load`] puts it there,
//! and [`layout::Engine::start`] gives a [`Handle`] that answers requests:
//!
//! ```text
//! messages --template--> prompt --vocabulary--> Request --Handle::submit--> Generation --> Event
//!   in the engine's thread: tokens --model--> logits --Sampler--> token --> bytes
//!   --> whole characters --> thought | answer --> Event
//! ```
//!
//! What this crate does not know: terminals, HTTP, and hardware other than this machine's cores.
#![forbid(unsafe_code)]

pub mod event;
pub mod handle;
pub mod layout;
pub mod request;
pub mod status;

mod answer;
mod blocks;
mod constraint;
mod dry;
mod error;
mod output;
mod pages;
mod random;
mod sampler;
mod scheduler;
mod sequence;
mod step;

pub use error::Error;
pub use event::Event;
pub use handle::Handle;
pub use layout::Layout;
pub use request::Request;
pub use status::Status;
