//! Places a model: graphics memory, main memory, drive. Pure arithmetic on bytes.
//!
//! Non-expert weights come first, in the fastest memory that holds all of them with the KV cache;
//! routed experts fill the rest, and those that memory does not hold are streamed from the drive
//! through a cache. The default is a context of 32,768 tokens in f16; the KV cache goes to q8_0,
//! and then to the longest context that fits, only where the model would not fit otherwise.

mod budget;
mod error;
#[cfg(test)]
mod tests;

use cachalot_gguf::KvType;
use serde::Serialize;

use crate::buffers::BatchSize;
use crate::layout::PAGE_TOKENS;
use crate::model::ModelFacts;

pub use self::budget::{BudgetOrigin, MemoryBudget, headroom, program_bytes};
pub use self::error::PlacementError;
use self::error::placement_error;

/// The longest context without `--ctx`: a longer one takes memory that is rarely used.
pub const CONTEXT_DEFAULT_MAX: u64 = 32_768;
/// A default context is not reduced below this to keep all experts in memory.
const CONTEXT_RESIDENT_MIN: u64 = 8_192;
/// Nor below this to make room for a cache of experts.
const CONTEXT_STREAMED_MIN: u64 = 4_096;
/// No default is reduced below this, however little memory there is.
const CONTEXT_MIN: u64 = 512;
/// Reduced contexts are multiples of this.
const CONTEXT_STEP: u64 = 256;
/// Tokens of a prompt that are computed at once. Below the first, too few tokens share each expert
/// that is read; above the last, there is no further gain.
const MICRO_BATCH_MIN: u64 = 64;
const MICRO_BATCH_CARD: u64 = 512;
const MICRO_BATCH_MAX: u64 = 2048;
/// One part in this many of the expert cache may go to a longer micro-batch instead.
const MICRO_BATCH_SHARE: u64 = 8;
/// Layers whose experts the smallest cache holds at once: the one being computed, and the one being
/// read.
const LAYERS_IN_FLIGHT: u64 = 2;

/// Whether to stream experts from a drive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stream {
    /// If the model does not fit into memory.
    #[default]
    Auto,
    /// Even if it does.
    Always,
    /// Never: the operating system pages the mapped file in and out.
    Never,
}

/// What the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Constraints {
    /// Tokens of context.
    pub context: Option<u64>,
    /// Data type of the KV cache.
    pub cache_type: Option<KvType>,
    /// Whether experts are streamed.
    pub stream: Stream,
    /// Limit of main memory, instead of what is free.
    pub memory: Option<u64>,
    /// Sequences at a time, each with the whole context.
    pub parallel: u64,
    /// Whether every row is computed as in decoding.
    pub reproducible: bool,
}

impl Default for Constraints {
    fn default() -> Self {
        Self {
            context: None,
            cache_type: None,
            stream: Stream::Auto,
            memory: None,
            parallel: 1,
            reproducible: false,
        }
    }
}

/// How routed experts are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// All of them are in memory.
    Resident,
    /// They are read from the drive into a cache.
    Streamed {
        /// Bytes of the cache in main memory.
        cache: u64,
    },
}

/// A kind of memory that weights are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryTier {
    /// Graphics memory.
    Vram,
    /// Main memory.
    Ram,
}

/// Where a model is placed. Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Placement {
    /// How routed experts are held.
    pub mode: Mode,
    /// Where non-expert weights and the KV cache are.
    pub dense_in: MemoryTier,
    /// Routed experts in graphics memory.
    pub routed_vram: u64,
    /// Routed experts in main memory; if streamed, the cache.
    pub routed_ram: u64,
    /// Routed experts that are on the drive only.
    pub routed_disk: u64,
    /// Tokens of context.
    pub context: u64,
    /// Whether the default context is shorter than the model allows.
    pub context_reduced: bool,
    /// Data type of the KV cache.
    #[serde(serialize_with = "as_variant")]
    pub cache_type: KvType,
    /// Sequences at a time.
    pub parallel: u64,
    /// KV cache of full contexts of all sequences.
    pub kv: u64,
    /// Tokens of a prompt that are computed at once.
    pub micro_batch: u64,
    /// Scratch buffers.
    pub buffers: u64,
    /// Main memory in all.
    pub ram: u64,
    /// Graphics memory in all.
    pub vram: u64,
}

/// The name of the variant, which JSON has had from the beginning.
fn as_variant<S: serde::Serializer>(ty: &KvType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{ty:?}"))
}

/// Finds a place for everything.
///
/// # Errors
/// If there is none, with what is missing.
pub fn fit(
    model: &ModelFacts,
    budget: MemoryBudget,
    constraints: Constraints,
) -> Result<Placement, PlacementError> {
    if let Some(asked) = constraints.context.filter(|asked| *asked > model.context) {
        return Err(PlacementError::Context {
            model: model.name.clone(),
            asked,
            most: model.context,
        });
    }
    let of = |context_min: u64, place: &dyn Fn(Choice) -> Option<Placement>| {
        let wanted = wanted(model, constraints).find_map(place);
        wanted.or_else(|| most_tokens(model, constraints, context_min, place))
    };
    let resident = |choice| resident(model, budget, choice);
    let streamed = |least: u64| move |choice| streamed(model, budget, least, choice);
    // A cache smaller than what one token reads evicts each expert before it is used again.
    let by_drive = || {
        of(CONTEXT_STREAMED_MIN, &streamed(model.routed_per_token))
            .or_else(|| of(CONTEXT_MIN, &streamed(cache_min(model))))
    };
    let found = match constraints.stream {
        Stream::Never => of(CONTEXT_MIN, &|choice| paged(model, budget, choice)),
        Stream::Always if model.routed > 0 => by_drive(),
        _ => of(CONTEXT_RESIDENT_MIN, &resident).or_else(by_drive),
    };
    found.ok_or_else(|| placement_error(model, budget, constraints))
}

/// Bytes of the smallest cache of experts that works at all.
pub fn cache_min(model: &ModelFacts) -> u64 {
    model.routed_per_token / model.moe_layers.max(1) * LAYERS_IN_FLIGHT
}

/// A context and how it is stored.
#[derive(Clone, Copy)]
struct Choice {
    context: u64,
    parallel: u64,
    cache_type: KvType,
    reduced: bool,
    reproducible: bool,
}

impl Choice {
    /// The batches of this choice, with micro-batches of `micro_batch` tokens.
    fn batch(self, micro_batch: u64, budget: MemoryBudget) -> BatchSize {
        let Self { context, parallel, reproducible, .. } = self;
        BatchSize { micro_batch, parallel, context, threads: budget.threads, reproducible }
    }
}

/// The requested or default context, with the most precise KV cache first.
fn wanted(model: &ModelFacts, constraints: Constraints) -> impl Iterator<Item = Choice> {
    let context = constraints.context.unwrap_or(model.context.min(CONTEXT_DEFAULT_MAX));
    let parallel = constraints.parallel.max(1);
    let types = match constraints.cache_type {
        Some(ty) => [Some(ty), None],
        None => [Some(KvType::F16), Some(KvType::Q8_0)],
    };
    let reduced = constraints.context.is_none() && context < model.context;
    types.into_iter().flatten().map(move |cache_type| Choice {
        context,
        parallel,
        cache_type,
        reduced,
        reproducible: constraints.reproducible,
    })
}

/// The longest context of at least `context_min` tokens that fits, where none was requested.
fn most_tokens(
    model: &ModelFacts,
    constraints: Constraints,
    context_min: u64,
    place: &dyn Fn(Choice) -> Option<Placement>,
) -> Option<Placement> {
    let most = model.context.min(CONTEXT_DEFAULT_MAX);
    if constraints.context.is_some() || context_min >= most {
        return None;
    }
    let cache_type = constraints.cache_type.unwrap_or(KvType::Q8_0);
    let parallel = constraints.parallel.max(1);
    let reproducible = constraints.reproducible;
    let at = |context| place(Choice { context, parallel, cache_type, reduced: true, reproducible });
    let mut found = at(context_min)?;
    let (mut fits, mut too_many) = (context_min, most);
    while too_many - fits > CONTEXT_STEP {
        let middle = (fits + too_many) / 2 / CONTEXT_STEP * CONTEXT_STEP;
        match at(middle).filter(|_| middle > fits) {
            Some(fit) => (found, fits) = (fit, middle),
            None => too_many = middle.max(fits + 1),
        }
    }
    Some(found)
}

/// Tokens, rounded up to whole pages.
fn whole_pages(tokens: u64) -> u64 {
    tokens.div_ceil(PAGE_TOKENS).saturating_mul(PAGE_TOKENS)
}

/// Places non-expert weights and KV cache in the fastest memory that holds all of them. Returns the
/// placement so far, without experts, and the remaining budget.
fn place_dense(
    model: &ModelFacts,
    budget: MemoryBudget,
    choice: Choice,
) -> Option<(Placement, MemoryBudget)> {
    let kv = model.cache_bytes_per_token(choice.cache_type);
    let kv = kv.saturating_mul(whole_pages(choice.context)).saturating_mul(choice.parallel);
    let buffers = |micro_batch| model.buffers(choice.batch(micro_batch, budget));
    let needed = |micro_batch| model.dense.checked_add(kv)?.checked_add(buffers(micro_batch));
    let mut fit = Placement {
        mode: Mode::Resident,
        dense_in: MemoryTier::Ram,
        routed_vram: 0,
        routed_ram: 0,
        routed_disk: 0,
        context: choice.context,
        context_reduced: choice.reduced,
        cache_type: choice.cache_type,
        parallel: choice.parallel,
        kv,
        micro_batch: MICRO_BATCH_CARD,
        buffers: buffers(MICRO_BATCH_CARD),
        ram: 0,
        vram: 0,
    };
    let on_card = needed(MICRO_BATCH_CARD)?;
    if let Some(vram) = budget.vram.checked_sub(on_card) {
        (fit.dense_in, fit.vram) = (MemoryTier::Vram, on_card);
        return Some((fit, MemoryBudget { vram, ..budget }));
    }
    (fit.micro_batch, fit.buffers) = (MICRO_BATCH_MIN, buffers(MICRO_BATCH_MIN));
    fit.ram = needed(MICRO_BATCH_MIN)?;
    // A card that cannot hold attention does not speed up experts either: each layer would wait.
    Some((fit, MemoryBudget { ram: budget.ram.checked_sub(fit.ram)?, vram: 0, ..budget }))
}

impl Placement {
    /// Grows a micro-batch in main memory into `spare` bytes; returns the bytes taken.
    fn grow(&mut self, spare: u64, buffers: impl Fn(u64) -> u64) -> u64 {
        if self.dense_in == MemoryTier::Vram {
            return 0;
        }
        let most = self.buffers.saturating_add(spare);
        let (mut fits, mut too_many) = (self.micro_batch, MICRO_BATCH_MAX + 1);
        while too_many - fits > 1 {
            let middle = fits.midpoint(too_many);
            if buffers(middle) <= most { fits = middle } else { too_many = middle }
        }
        self.micro_batch = fits;
        let taken = buffers(fits) - self.buffers;
        self.buffers += taken;
        self.ram += taken;
        taken
    }
}

fn resident(model: &ModelFacts, budget: MemoryBudget, choice: Choice) -> Option<Placement> {
    let (mut fit, left) = place_dense(model, budget, choice)?;
    fit.routed_vram = model.routed.min(left.vram);
    fit.routed_ram = model.routed - fit.routed_vram;
    fit.vram += fit.routed_vram;
    fit.ram += fit.routed_ram;
    let spare = left.ram.checked_sub(fit.routed_ram)?;
    fit.grow(spare, |micro_batch| model.buffers(choice.batch(micro_batch, budget)));
    Some(fit)
}

/// With weights in the page cache, which the operating system evicts and reads again.
fn paged(model: &ModelFacts, budget: MemoryBudget, choice: Choice) -> Option<Placement> {
    let weightless = ModelFacts { dense: 0, routed: 0, ..model.clone() };
    let fit = resident(&weightless, MemoryBudget { vram: 0, ..budget }, choice)?;
    Some(Placement { routed_ram: model.routed, ram: fit.ram + model.dense + model.routed, ..fit })
}

fn streamed(
    model: &ModelFacts,
    budget: MemoryBudget,
    least: u64,
    choice: Choice,
) -> Option<Placement> {
    if !budget.drive || model.routed == 0 {
        return None;
    }
    let (mut fit, left) = place_dense(model, budget, choice)?;
    fit.routed_vram = model.routed.min(left.vram);
    let elsewhere = model.routed - fit.routed_vram;
    // Experts in graphics memory count as cached.
    let cached = least.max(cache_min(model)).min(elsewhere).saturating_sub(fit.routed_vram);
    let spare = left.ram.checked_sub(cached)?;
    let buffers = |micro_batch| model.buffers(choice.batch(micro_batch, budget));
    let taken = fit.grow(spare.min(left.ram / MICRO_BATCH_SHARE), buffers);
    let cache = elsewhere.min(left.ram - taken);
    fit.mode = Mode::Streamed { cache };
    fit.routed_ram = cache;
    fit.routed_disk = model.routed - fit.routed_vram - cache;
    fit.vram += fit.routed_vram;
    fit.ram += cache;
    Some(fit)
}
