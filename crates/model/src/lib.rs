//! The forward pass: tokens to hidden states to logits.
//!
//! A [`Model`] is a row of [`Stage`]s that take a [`Batch`] through the layers. Two seams let other
//! hardware take part: a [`Stage`] computes some of the layers on any device, and [`Experts`] hold
//! the routed experts. Everything is checked when weights are bound: the forward pass can fail only
//! where experts are read, and allocates nothing after the first tokens.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use cachalot_gguf::KvType;
//! # use cachalot_kernels::{Cpu, Tier};
//! # use cachalot_model::{Batch, Model, ModelOptions, Phase, Segment, Wanted};
//! # use cachalot_store::{Placement, Weights};
//! let weights = Weights::open("model.gguf", Placement::Mapped)?;
//! let cpu = Arc::new(Cpu::new(8, Tier::detect()));
//! let mut model = Model::load(&weights, &cpu, &ModelOptions::default())?;
//! model.reserve_pages(64, KvType::F16)?;
//! let segment = Segment {
//!     seq: 0,
//!     start: 0,
//!     rows: 0..3,
//!     pages: &[0],
//!     phase: Phase::Prefill,
//!     want: Wanted::Last,
//! };
//! let batch = Batch { tokens: &[0, 671, 6102], segments: &[segment] };
//! let output = model.forward(&batch, &mut |_| true)?;
//! let best = output.logits(0).iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Text, sampling and HTTP are in other crates.
#![forbid(unsafe_code)]

mod arch;
mod bind;
mod error;
mod experts;
mod kv;
mod mlp;
mod model;
mod precision;
mod rope;
mod routing;
mod scratch;
mod seam;

pub use arch::deepseek2::config::{Config, ExpertConfig, ExpertGroups, Gate, Groups, Temperature};
#[cfg(feature = "oracle")]
pub use arch::deepseek2::reference;
pub use arch::{check_header, cpu_stage};
pub use error::Error;
pub use experts::resident::Resident;
pub use experts::streamed::Streamed;
pub use experts::traced::Traced;
pub use experts::{ExpertShape, slice_bytes};
pub use mlp::Mlp;
pub use model::{Model, ModelOptions, Output, Progress};
pub use precision::Precision;
pub use rope::Scaling;
pub use routing::{ExpertBatch, Routing};
pub use seam::{
    Batch, ExpertCall, Experts, FailedRows, Failure, PAGE_ROWS, PageId, Phase, Residency, Rows,
    Segment, SeqId, Stage, StageSpec, Wanted,
};
