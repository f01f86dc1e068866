//! The forward pass: tokens to hidden states to logits.
//!
//! A [`Model`] is an embedding, some [`Stage`]s and a head. There are two seams, and only two, where
//! other hardware comes in: a [`Stage`] computes some of the layers wherever it likes, and
//! [`Experts`] hold the weights that do not fit. Everything is checked when weights are bound: the
//! forward pass can fail only where weights are elsewhere, and after the first token it allocates nothing.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use cachalot_kernels::{Cpu, Tier};
//! # use cachalot_model::{KvType, Logits, Model, ModelOptions};
//! # use cachalot_store::{Placement, Weights};
//! let weights = Weights::open("model.gguf", Placement::Mapped)?;
//! let cpu = Arc::new(Cpu::new(8, Tier::detect()));
//! let mut model = Model::load(&weights, &cpu, &ModelOptions::default())?;
//! let mut cache = model.cache(4096, KvType::F16)?;
//! let logits = model.forward(&mut cache, &[0, 671, 6102], Logits::Last, &mut |_| true)?;
//! let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Text, sampling and HTTP are other crates' affairs.
#![forbid(unsafe_code)]

mod arch;
mod bind;
mod error;
mod experts;
mod kv;
mod mlp;
mod model;
mod rope;
mod routing;
mod rows;
mod scratch;

use std::any::Any;
use std::ops::Range;

use cachalot_gguf::KvType;
use cachalot_kernels::{Activations, Cpu};

pub use arch::deepseek2::config::{Config, ExpertConfig, ExpertGroups, Gate, Groups};
#[cfg(feature = "oracle")]
pub use arch::deepseek2::reference;
pub use error::Error;
pub use experts::ExpertShape;
pub use experts::resident::Resident;
pub use experts::streamed::Streamed;
pub use experts::traced::Traced;
pub use kv::KvCache;
pub use mlp::Mlp;
pub use model::{Logits, Model, ModelOptions};
pub use rope::Scaling;
pub use routing::{ExpertBatch, Routing};

/// What a [`Stage`] remembers of one sequence: made by [`Stage::cache`], understood by that stage
/// alone, freed by being dropped.
pub type StageCache = Box<dyn Any + Send>;

/// Layers `i..j` of a model, computed wherever the implementation likes: here, on a GPU, on another
/// machine.
pub trait Stage: Send {
    /// The layers, counted from the model's first.
    fn layers(&self) -> Range<usize>;

    /// Room for the keys and values of one sequence of up to `capacity` tokens in these layers.
    ///
    /// # Errors
    /// If there is no memory for it, or rows of this model cannot be stored in this type.
    fn cache(&self, capacity: usize, kind: KvType) -> Result<StageCache, Error>;

    /// Bytes that [`Stage::cache`] takes for each token.
    fn cache_bytes(&self, kind: KvType) -> usize;

    /// Takes the hidden rows `[tokens, hidden]` of consecutive tokens through the layers, in place.
    /// The first token stands at position `past`; the cache holds the positions before it and gets
    /// those of the batch, in place of whatever was stored there.
    ///
    /// `keep_going` is called after every layer; once it returns `false` the stage stops at its earliest
    /// convenience.
    ///
    /// # Errors
    /// [`Error::Stopped`], or what kept experts from being had. `hidden` and the cache's new rows are
    /// unfinished then; the stage itself can go on with another call.
    ///
    /// # Panics
    /// If the cache was made by another stage or has no room for the batch.
    fn forward(
        &mut self,
        cache: &mut StageCache,
        past: usize,
        hidden: &mut [f32],
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error>;
}

/// Where the routed experts of some layers are: all in memory, in a cache over NVMe, on other ranks.
///
/// The router's choice is told as early as possible, so that whatever must be fetched arrives while
/// the shared expert is computed.
pub trait Experts: Send {
    /// The router of `layer` has chosen; [`Experts::apply`] follows with the same routing.
    fn request(&mut self, layer: usize, routing: &Routing);

    /// Adds to each row of `out` `[tokens, hidden]` the weighted outputs of the experts picked for
    /// the row of `x` `[tokens, hidden]`, and the output of the `shared` expert with weight 1.
    ///
    /// `shared` stands here, rather than before, because with everything at hand it belongs in the
    /// same two work lists as the others, while a streaming implementation computes it first, as its
    /// reads run. Experts are added in ascending order, the shared one last, whatever came in first.
    ///
    /// # Errors
    /// If an expert cannot be had, with `out` unfinished; another call may have better luck.
    fn apply(
        &mut self,
        cpu: &Cpu,
        layer: usize,
        x: &mut Activations,
        routing: &Routing,
        shared: Option<Mlp<'_>>,
        out: &mut [f32],
    ) -> Result<(), Error>;

    /// The experts that `layer` will probably ask for, guessed before its turn. Demand comes first.
    fn prefetch(&mut self, layer: usize, prefetches: &Routing) {
        let _ = (layer, prefetches);
    }

    /// Whether prefetches are worth computing.
    fn wants_prefetch(&self) -> bool {
        false
    }

    /// Whether routers are to prefer experts that are at hand. This changes results, so nobody does
    /// that unasked.
    fn is_cache_aware(&self) -> bool {
        false
    }

    /// Whether an expert is at hand, without reading or asking others.
    fn is_resident(&self, layer: usize, expert: usize) -> bool {
        let _ = (layer, expert);
        true
    }
}
