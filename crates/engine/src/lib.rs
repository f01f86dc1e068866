//! Requests -> token streams.
//!
//! [`LoadPlan::of`] says where a model will be, [`LoadPlan::load`] puts it there, and
//! [`Engine::start`] gives a [`Handle`] that answers requests:
//!
//! ```text
//! messages --template--> prompt --vocabulary--> Request --Handle::submit--> Generation --> Event
//!   in the engine's thread: tokens --model--> logits --Sampler--> token --> bytes
//!   --> whole characters --> thought | answer --> Event
//! ```
//!
//! What this crate does not know: terminals, HTTP, and hardware other than this machine's cores.
#![forbid(unsafe_code)]

mod answer;
mod assemble;
mod blocks;
mod chat;
mod constraint;
mod describe;
mod device;
mod dry;
mod error;
mod event;
mod experts;
mod feed;
mod fingerprint;
mod handle;
mod info;
mod load_plan;
mod options;
mod output;
mod pages;
mod random;
mod request;
mod sampler;
mod sampling;
mod scheduler;
mod sequence;
mod status;
mod step;
mod stream;
mod verdict;

pub use assemble::{Engine, embedded_vocab, open_vocab, processor};
pub use chat::{PromptText, render};
#[doc(hidden)]
pub use constraint::fuzz_gbnf;
pub use describe::describe;
pub use device::{Device, PROCESSOR_ALONE, Processor, Site};
pub use error::Error;
pub use event::{
    Event, ExpertReads, FinishReason, Finished, Kind, Timings, Token, TokenEvent, TopToken, Usage,
};
pub use experts::ExpertUse;
#[doc(hidden)]
pub use feed::Feed;
pub use fingerprint::Fingerprint;
pub use handle::{Generation, Handle, Limits};
pub use info::{Context, ModelInfo};
pub use load_plan::LoadPlan;
pub use options::{Options, Source};
pub use pages::{PrefixCache, SaveError, Saved};
pub use request::{
    Constraint, READER_TIMEOUT, Request, RequestId, SubmitError, ThoughtState, UNREAD_MAX,
};
pub use sampling::{PARAMETERS, Parameter, Sampling};
pub use status::{KvStatus, SequencePhase, SequenceStatus, Status, Totals};
pub use stream::Streaming;
pub use verdict::{Verdict, verdict};

pub use cachalot_gguf::KvType;
pub use cachalot_kernels::{Pinning, Tier, TierName};
pub use cachalot_model::{ExpertGroups, Groups};
#[doc(hidden)]
pub use cachalot_model::{Phase, Wanted};
pub use cachalot_plan::{Layout, Stream};
pub use cachalot_probe::system as host;
pub use cachalot_store::{CacheStats, FileRange, Ranges, ReadRate};
pub use cachalot_text::{Message, Think, Vocab};
