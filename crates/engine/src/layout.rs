//! Where a model will be, and what puts it there: from a file to an engine that can be started.
//!
//! [`LoadPlan::of`] asks the planner for a [`Layout`], which says what each device holds, to the
//! byte; [`LoadPlan::load`] makes what it says. [`Engine::start`] then answers requests.

mod device;
mod engine;
mod feed;
mod load_plan;
mod options;
mod verdict;

pub use cachalot_plan::Layout;
pub use device::{Device, PROCESSOR_ALONE, Processor, Site};
pub use engine::Engine;
#[doc(hidden)]
pub use feed::Feed;
pub use load_plan::LoadPlan;
pub use options::{Options, PrefixCache, Source};
pub use verdict::{Verdict, verdict};
