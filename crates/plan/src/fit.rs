//! Places a model: graphics memory, main memory, drive. Pure arithmetic on bytes.
//!
//! Non-expert weights come first, in the fastest memory that holds all of them with the KV cache;
//! routed experts fill the rest, and those that memory does not hold are streamed from the drive
//! through a cache. The default is a context of 32,768 tokens in f16; the KV cache goes to q8_0,
//! and then to the longest context that fits, only where the model would not fit otherwise.

use cachalot_gguf::KvType;
use serde::Serialize;

use crate::buffers::BatchSize;
use crate::layout::PAGE_TOKENS;
use crate::machine::Machine;
use crate::model::ModelFacts;
use crate::units;

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

/// Memory that may be used, in bytes: free memory minus [`headroom`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MemoryBudget {
    /// Of all graphics cards together.
    pub vram: u64,
    /// Main memory.
    pub ram: u64,
    /// Whether there is a drive to stream from.
    pub drive: bool,
    /// Threads that compute, each with buffers of its own.
    pub threads: u64,
    /// Where the number for main memory comes from.
    pub origin: BudgetOrigin,
}

/// Where a budget comes from, so that errors can say what was kept back and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetOrigin {
    /// A plain number.
    #[default]
    Stated,
    /// The user's limit.
    Asked {
        /// The limit.
        asked: u64,
        /// Kept for the program itself.
        reserved: u64,
        /// Graphics memory besides.
        vram: u64,
    },
    /// What is free now.
    Free {
        /// Free bytes.
        available: u64,
        /// Left free for the system.
        headroom: u64,
        /// Graphics memory besides.
        vram: u64,
    },
}

impl std::fmt::Display for BudgetOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let vram = match *self {
            Self::Stated => return Ok(()),
            Self::Asked { asked, reserved, vram } => {
                let [asked, reserved] = [asked, reserved].map(units::bytes);
                write!(f, " (of the {asked} asked for, {reserved} are reserved for the program ")?;
                write!(f, "itself: code, vocabulary, stacks")?;
                vram
            }
            Self::Free { available, headroom, vram } => {
                let [available, headroom] = [available, headroom].map(units::bytes);
                write!(f, " (of {available} available, {headroom} are left for the system")?;
                vram
            }
        };
        if vram > 0 {
            write!(f, "; {} are graphics memory", units::bytes(vram))?;
        }
        f.write_str(")")
    }
}

/// Memory of the program itself, with a vocabulary of 129,280 tokens and stacks of threads.
const PROGRAM_BYTES: u64 = 96 << 20;

/// Bytes of a limit of `memory` that are reserved for the program itself: less where the limit is
/// small, since only small models, with small vocabularies, are run so.
pub fn program_bytes(memory: u64) -> u64 {
    PROGRAM_BYTES.min(memory / 2)
}

/// Bytes of a card taken by its driver and by scratch buffers, and the usable percentage of the
/// card (the rest is lost to fragmentation).
const CARD_OWN: u64 = 3 << 29;
const CARD_SHARE: (u64, u64) = (95, 100);
/// The part of unified memory that the GPU may use.
const UNIFIED_SHARE: (u64, u64) = (7, 8);

impl MemoryBudget {
    /// The main memory of a machine of which `available` bytes are free, without graphics cards.
    pub fn free(available: u64) -> Self {
        let headroom = headroom(available);
        let origin = BudgetOrigin::Free { available, headroom, vram: 0 };
        Self { ram: available - headroom, vram: 0, drive: true, threads: 0, origin }
    }

    /// A limit that the user set, without graphics cards.
    pub fn limited(asked: u64) -> Self {
        let reserved = program_bytes(asked);
        let origin = BudgetOrigin::Asked { asked, reserved, vram: 0 };
        Self { ram: asked - reserved, vram: 0, drive: true, threads: 0, origin }
    }

    /// What `machine` offers, with the user's limit if there is one.
    pub fn of(machine: &Machine, limit: Option<u64>) -> Self {
        // A drive of unknown rate is a drive: prediction asks for its rate.
        let drive = !machine.drives.is_empty();
        let threads = machine.processor.cores().unwrap_or(0).into();
        let share = |bytes: u64, (part, whole): (u64, u64)| bytes / whole * part;
        if let Some(gpu) = machine.unified() {
            let all = gpu.memory_bytes.saturating_mul(gpu.count.into());
            let vram = share(all, UNIFIED_SHARE).min(limit.unwrap_or(u64::MAX));
            return Self { vram, ram: 0, drive, threads, ..Self::default() };
        }
        let card = |memory| share(memory, CARD_SHARE).saturating_sub(CARD_OWN);
        let cards =
            machine.gpus.iter().map(|gpu| card(gpu.memory_bytes).saturating_mul(gpu.count.into()));
        let vram = cards.fold(0, u64::saturating_add);
        let mut main = match limit {
            Some(limit) => Self::limited(limit),
            None => Self::free(machine.memory.usable().unwrap_or(0)),
        };
        if let BudgetOrigin::Free { vram: of, .. } | BudgetOrigin::Asked { vram: of, .. } =
            &mut main.origin
        {
            *of = vram;
        }
        Self { vram, drive, threads, ..main }
    }
}

/// Bytes of `available` memory to leave free. Close to the limit the kernel reclaims pages of this
/// process, and everything slows down several times; streaming engines leave about 6 %. Small
/// containers, which hold small models, need less than a desktop with its other programs.
pub fn headroom(available: u64) -> u64 {
    (available / 16).clamp((available / 8).min(256 << 20), 8 << 30)
}

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

/// Why a model cannot be placed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// Not even non-expert weights and a few experts fit.
    #[error(
        "{model} needs at least {} of memory ({} of non-expert weights, {} of KV cache for {context} \
         tokens, {} of buffers and a few experts), but only {} may be used{origin}: close other programs, \
         allow more with `--memory`, or take a smaller quantization",
        units::bytes(*.needed), units::bytes(*.dense), units::bytes(*.kv),
        units::bytes(.needed - .dense - .kv), units::bytes(*.budget)
    )]
    Memory {
        /// The model.
        model: String,
        /// Least memory needed.
        needed: u64,
        /// Of this, non-expert weights.
        dense: u64,
        /// Of this, KV cache.
        kv: u64,
        /// Tokens of context.
        context: u64,
        /// Memory that may be used.
        budget: u64,
        /// Where that number comes from.
        origin: BudgetOrigin,
    },
    /// The KV cache of the requested context is too large.
    #[error(
        "a context of {asked} tokens takes {} of memory, but {model} leaves {} for it{origin}: {possible} \
         tokens would fit. A KV cache in q8_0 takes half of one in f16",
        units::bytes(*.needed), units::bytes(*.budget)
    )]
    ContextMemory {
        /// The model.
        model: String,
        /// Tokens asked for.
        asked: u64,
        /// Memory that they need.
        needed: u64,
        /// Memory left for them.
        budget: u64,
        /// Where that number comes from.
        origin: BudgetOrigin,
        /// Tokens that would fit.
        possible: u64,
    },
    /// It would have to be streamed, and there is no drive, or streaming is off.
    #[error(
        "{model} needs {} of memory, {} may be used{origin}, and there is no drive to stream from",
        units::bytes(*.needed), units::bytes(*.budget)
    )]
    NoDrive {
        /// The model.
        model: String,
        /// Memory needed.
        needed: u64,
        /// Memory that may be used.
        budget: u64,
        /// Where that number comes from.
        origin: BudgetOrigin,
    },
    /// The requested context is longer than the model supports.
    #[error("{model} supports at most {most} tokens of context; {asked} were requested")]
    Context {
        /// The model.
        model: String,
        /// Tokens asked for.
        asked: u64,
        /// Tokens possible.
        most: u64,
    },
}

impl PlacementError {
    /// Bytes of memory that are missing, if that is what is missing.
    pub fn missing(&self) -> Option<u64> {
        match self {
            Self::Memory { needed, budget, .. }
            | Self::NoDrive { needed, budget, .. }
            | Self::ContextMemory { needed, budget, .. } => Some(needed.saturating_sub(*budget)),
            Self::Context { .. } => None,
        }
    }
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

fn placement_error(
    model: &ModelFacts,
    budget: MemoryBudget,
    constraints: Constraints,
) -> PlacementError {
    let (name, origin) = (model.name.clone(), budget.origin);
    let context = constraints.context.unwrap_or(CONTEXT_MIN.min(model.context));
    let choice = Choice {
        context,
        parallel: constraints.parallel.max(1),
        cache_type: constraints.cache_type.unwrap_or(KvType::Q8_0),
        reduced: false,
        reproducible: constraints.reproducible,
    };
    let per_token = model.cache_bytes_per_token(choice.cache_type);
    let per_token = per_token.saturating_mul(constraints.parallel.max(1));
    let kv = per_token.saturating_mul(whole_pages(context));
    let buffers = model.buffers(choice.batch(MICRO_BATCH_MIN, budget));
    let (weights, experts) = match constraints.stream {
        Stream::Never => (0, 0),
        _ if !budget.drive || model.routed == 0 => (model.size, 0),
        _ => (model.dense, cache_min(model)),
    };
    let fixed = [buffers, experts].iter().fold(weights, |sum, n| sum.saturating_add(*n));
    let needed = fixed.saturating_add(kv);
    let all = budget.ram.saturating_add(budget.vram);
    let shorter = Constraints { context: None, ..constraints };
    if constraints.context.is_some() && fit(model, budget, shorter).is_ok() {
        let left = all.saturating_sub(fixed);
        let possible = left / per_token.max(1) / PAGE_TOKENS * PAGE_TOKENS;
        let possible = possible.min(model.context);
        return PlacementError::ContextMemory {
            model: name,
            asked: context,
            needed: kv,
            budget: left,
            origin,
            possible,
        };
    }
    if weights == model.size {
        return PlacementError::NoDrive { model: name, needed, budget: all, origin };
    }
    let budget = budget.ram;
    PlacementError::Memory { model: name, needed, dense: weights, kv, context, budget, origin }
}

#[cfg(test)]
mod tests;
