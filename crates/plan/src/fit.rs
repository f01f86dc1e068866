//! What of a model lies where: graphics memory, main memory, a drive. Pure arithmetic on bytes.
//!
//! Everything that each token reads comes first and goes into the fastest memory that holds all of
//! it; routed experts fill what is left, and what memory does not hold is read from the drive when it
//! is needed, through a cache. A context of 32,768 tokens in f16 is wanted; the cache of keys and
//! values takes fewer bits, and then the most tokens that fit, only where the model would not otherwise.

use serde::Serialize;

use crate::machine::Machine;
use crate::model::Model;
use crate::units;
use cachalot_gguf::KvType;

/// Nobody gets a longer context without asking: its memory is rarely used, and is not free.
pub const CONTEXT_DEFAULT_MAX: u64 = 32_768;
/// A default context is not reduced below this to keep all experts in memory.
const CONTEXT_RESIDENT_MIN: u64 = 8_192;
/// Nor below this to make room for a cache of experts.
const CONTEXT_STREAMED_MIN: u64 = 4_096;
/// No default is reduced below this, however little memory there is.
const CONTEXT_MIN: u64 = 512;
/// Reduced contexts are multiples of this.
const CONTEXT_STEP: u64 = 256;
/// Tokens of a prompt that are computed at once: with fewer than the first, each reads too many experts
/// alone; with more than the last, nothing gains.
const MICRO_BATCH_MIN: u64 = 64;
const MICRO_BATCH_CARD: u64 = 512;
const MICRO_BATCH_MAX: u64 = 2048;
/// The share of what a cache of experts would have that a longer micro-batch may take.
const MICRO_BATCH_SHARE: u64 = 8;
/// Layers whose experts the smallest cache must hold at once: the one that is computed, and the one
/// that is read for.
const LAYERS_IN_FLIGHT: u64 = 2;

/// Memory that may be used, in bytes: what is free, less [`headroom`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Room {
    /// Of all graphics cards that are used.
    pub vram: u64,
    /// Main memory.
    pub ram: u64,
    /// Whether there is a drive to stream from.
    pub drive: bool,
}

/// Bytes of a card that its driver and the buffers of a computation take, and a share that cannot be
/// used for want of contiguous memory.
const CARD_OWN: u64 = 3 << 29;
const CARD_SHARE: (u64, u64) = (95, 100);
/// Of a memory that processor and graphics share, what the latter may have.
const UNIFIED_SHARE: (u64, u64) = (7, 8);

impl Room {
    /// What a machine has to offer.
    pub fn of(machine: &Machine) -> Self {
        let drive = machine.drive().is_some();
        let share = |bytes: u64, (part, whole): (u64, u64)| bytes / whole * part;
        if let Some(gpu) = machine.unified() {
            let all = gpu.memory_bytes.saturating_mul(gpu.count.into());
            return Self { vram: share(all, UNIFIED_SHARE), ram: 0, drive };
        }
        let card = |memory| share(memory, CARD_SHARE).saturating_sub(CARD_OWN);
        let cards =
            machine.gpus.iter().map(|gpu| card(gpu.memory_bytes).saturating_mul(gpu.count.into()));
        let vram = cards.fold(0, u64::saturating_add);
        let free = machine.memory.usable().unwrap_or(0);
        Self { vram, ram: free - headroom(free), drive }
    }
}

/// Bytes of `available` memory to leave alone. At the brink, the kernel reclaims pages of this very
/// process, and everything is slower by a factor: 6 % is what streaming engines have found.
pub fn headroom(available: u64) -> u64 {
    (available / 16).clamp(256 << 20, 8 << 30).min(available)
}

/// Whether to stream experts from a drive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stream {
    /// If the model does not fit into memory.
    #[default]
    Auto,
    /// Even if it does.
    Always,
    /// Not even if it does not: the system pages it in and out.
    Never,
}

/// What a user insists on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wish {
    /// Tokens of context.
    pub context: Option<u64>,
    /// How the cache of keys and values stores numbers.
    pub cache_type: Option<KvType>,
    /// Whether experts are streamed.
    pub stream: Stream,
}

/// How routed experts get to where they are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// All of them are in memory.
    Resident,
    /// They are read from the drive into a cache of so many bytes.
    Streamed {
        /// Bytes of the cache in main memory.
        cache: u64,
    },
}

/// Where weights lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Graphics memory.
    Vram,
    /// Main memory.
    Ram,
}

/// A model in its places. Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Fit {
    /// How routed experts are held.
    pub mode: Mode,
    /// Where all that every token reads lies, with keys and values.
    pub dense_in: Tier,
    /// Routed experts in graphics memory.
    pub routed_vram: u64,
    /// Routed experts in main memory; if streamed, the cache.
    pub routed_ram: u64,
    /// Routed experts that are on the drive only.
    pub routed_disk: u64,
    /// Tokens of context.
    pub context: u64,
    /// Whether nobody asked for a context this short.
    pub context_reduced: bool,
    /// How keys and values are stored.
    #[serde(serialize_with = "as_variant")]
    pub cache_type: KvType,
    /// Keys and values of a full context.
    pub kv: u64,
    /// Tokens of a prompt that are computed at once.
    pub micro_batch: u64,
    /// The buffers in which that is done.
    pub buffers: u64,
    /// Main memory that all of this takes.
    pub ram: u64,
    /// Graphics memory that all of this takes.
    pub vram: u64,
}

/// Files of plans have had the name of the variant.
fn as_variant<S: serde::Serializer>(ty: &KvType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{ty:?}"))
}

/// Why a model does not fit, and how much is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Not even the weights that each token reads, and a few experts.
    #[error(
        "{model} needs at least {} of memory ({} of weights that every token reads, {} for {context} tokens \
         of context, {} of buffers and a few experts), but only {} may be used: close other programs, \
         allow more with `--memory`, or take a smaller quantization",
        units::bytes(*.needed), units::bytes(*.dense), units::bytes(*.kv),
        units::bytes(.needed - .dense - .kv), units::bytes(*.room)
    )]
    Memory {
        /// What was to fit.
        model: String,
        /// Memory needed at the least.
        needed: u64,
        /// Of this, weights that every token reads.
        dense: u64,
        /// Of this, keys and values.
        kv: u64,
        /// Tokens of context.
        context: u64,
        /// Memory that may be used.
        room: u64,
    },
    /// The context asked for takes too much.
    #[error(
        "a context of {asked} tokens takes {} of memory, but {model} leaves {} for it: {possible} tokens \
         would fit. Keys and values in q8_0 take half of f16",
        units::bytes(*.needed), units::bytes(*.room)
    )]
    ContextMemory {
        /// What was to fit.
        model: String,
        /// Tokens asked for.
        asked: u64,
        /// Memory that they need.
        needed: u64,
        /// Memory that is left for them.
        room: u64,
        /// Tokens that would fit.
        possible: u64,
    },
    /// It would have to stream, and there is nothing to stream from, or the user refused.
    #[error(
        "{model} needs {} of memory, {} may be used, and there is no drive to stream from",
        units::bytes(*.needed), units::bytes(*.room)
    )]
    NoDrive {
        /// What was to fit.
        model: String,
        /// Memory needed.
        needed: u64,
        /// Memory that may be used.
        room: u64,
    },
    /// The context asked for is longer than the model was made for.
    #[error("{model} was made for at most {most} tokens of context, not for {asked}")]
    Context {
        /// What was to fit.
        model: String,
        /// Tokens asked for.
        asked: u64,
        /// Tokens possible.
        most: u64,
    },
}

impl Misfit {
    /// Bytes of memory that are missing, if that is what is missing.
    pub fn missing(&self) -> Option<u64> {
        match self {
            Self::Memory { needed, room, .. }
            | Self::NoDrive { needed, room, .. }
            | Self::ContextMemory { needed, room, .. } => Some(needed.saturating_sub(*room)),
            Self::Context { .. } => None,
        }
    }
}

/// Finds a place for everything.
///
/// # Errors
/// If there is none, with what is missing.
pub fn fit(model: &Model, room: Room, wish: Wish) -> Result<Fit, Misfit> {
    if let Some(asked) = wish.context.filter(|asked| *asked > model.context) {
        return Err(Misfit::Context { model: model.name.clone(), asked, most: model.context });
    }
    let of = |context_min: u64, place: &dyn Fn(Choice) -> Option<Fit>| {
        let wanted = wanted(model, wish).find_map(place);
        wanted.or_else(|| most_tokens(model, wish, context_min, place))
    };
    let resident = |choice| resident(model, room, choice);
    let streamed = |least: u64| move |choice| streamed(model, room, least, choice);
    // A cache smaller than what one token reads has forgotten an expert before it is used again.
    let by_drive = || {
        of(CONTEXT_STREAMED_MIN, &streamed(model.routed_per_token))
            .or_else(|| of(CONTEXT_MIN, &streamed(cache_min(model))))
    };
    let found = match wish.stream {
        Stream::Never => of(CONTEXT_MIN, &|choice| paged(model, room, choice)),
        Stream::Always if model.routed > 0 => by_drive(),
        _ => of(CONTEXT_RESIDENT_MIN, &resident).or_else(by_drive),
    };
    found.ok_or_else(|| misfit(model, room, wish))
}

/// Bytes of the smallest cache of experts that works at all.
pub fn cache_min(model: &Model) -> u64 {
    model.routed_per_token / model.moe_layers.max(1) * LAYERS_IN_FLIGHT
}

/// A context and how it is stored.
#[derive(Clone, Copy)]
struct Choice {
    context: u64,
    cache_type: KvType,
    reduced: bool,
}

/// The context that was asked for, or a long one, in numbers of as many bits as possible.
fn wanted(model: &Model, wish: Wish) -> impl Iterator<Item = Choice> {
    let context = wish.context.unwrap_or(model.context.min(CONTEXT_DEFAULT_MAX));
    let types = match wish.cache_type {
        Some(ty) => [Some(ty), None],
        None => [Some(KvType::F16), Some(KvType::Q8_0)],
    };
    let reduced = wish.context.is_none() && context < model.context;
    types.into_iter().flatten().map(move |cache_type| Choice { context, cache_type, reduced })
}

/// The longest context, of at least so many tokens, that has a place, where nobody asked for one.
fn most_tokens(
    model: &Model,
    wish: Wish,
    context_min: u64,
    place: &dyn Fn(Choice) -> Option<Fit>,
) -> Option<Fit> {
    let most = model.context.min(CONTEXT_DEFAULT_MAX);
    if wish.context.is_some() || context_min >= most {
        return None;
    }
    let cache_type = wish.cache_type.unwrap_or(KvType::Q8_0);
    let at = |context| place(Choice { context, cache_type, reduced: true });
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

/// All that a token reads whatever the router says, in the fastest memory that holds all of it.
/// Returns the fit so far, without experts, and the room that is left.
fn place_dense(model: &Model, room: Room, choice: Choice) -> Option<(Fit, Room)> {
    let kv = model.cache_bytes_per_token(choice.cache_type).saturating_mul(choice.context);
    let needed = |micro_batch| model.dense.checked_add(kv)?.checked_add(model.buffers(micro_batch));
    let mut fit = Fit {
        mode: Mode::Resident,
        dense_in: Tier::Ram,
        routed_vram: 0,
        routed_ram: 0,
        routed_disk: 0,
        context: choice.context,
        context_reduced: choice.reduced,
        cache_type: choice.cache_type,
        kv,
        micro_batch: MICRO_BATCH_CARD,
        buffers: model.buffers(MICRO_BATCH_CARD),
        ram: 0,
        vram: 0,
    };
    let on_card = needed(MICRO_BATCH_CARD)?;
    if let Some(vram) = room.vram.checked_sub(on_card) {
        (fit.dense_in, fit.vram) = (Tier::Vram, on_card);
        return Some((fit, Room { vram, ..room }));
    }
    (fit.micro_batch, fit.buffers) = (MICRO_BATCH_MIN, model.buffers(MICRO_BATCH_MIN));
    fit.ram = needed(MICRO_BATCH_MIN)?;
    // A card that cannot hold attention does not speed up experts either: each would wait for it.
    Some((fit, Room { ram: room.ram.checked_sub(fit.ram)?, vram: 0, ..room }))
}

impl Fit {
    /// Lets a micro-batch in main memory grow into `spare` bytes; returns what it took.
    fn grow(&mut self, model: &Model, spare: u64) -> u64 {
        if self.dense_in == Tier::Vram {
            return 0;
        }
        let more = spare / model.buffers(1).max(1);
        self.micro_batch = self.micro_batch.saturating_add(more).min(MICRO_BATCH_MAX);
        let taken = model.buffers(self.micro_batch) - self.buffers;
        self.buffers += taken;
        self.ram += taken;
        taken
    }
}

fn resident(model: &Model, room: Room, choice: Choice) -> Option<Fit> {
    let (mut fit, left) = place_dense(model, room, choice)?;
    fit.routed_vram = model.routed.min(left.vram);
    fit.routed_ram = model.routed - fit.routed_vram;
    fit.vram += fit.routed_vram;
    fit.ram += fit.routed_ram;
    let spare = left.ram.checked_sub(fit.routed_ram)?;
    fit.grow(model, spare);
    Some(fit)
}

/// With weights that the system takes from the file, and gives back to it, as memory allows.
fn paged(model: &Model, room: Room, choice: Choice) -> Option<Fit> {
    let weightless = Model { dense: 0, routed: 0, ..model.clone() };
    let fit = resident(&weightless, Room { vram: 0, ..room }, choice)?;
    Some(Fit { routed_ram: model.routed, ram: fit.ram + model.dense + model.routed, ..fit })
}

fn streamed(model: &Model, room: Room, least: u64, choice: Choice) -> Option<Fit> {
    if !room.drive || model.routed == 0 {
        return None;
    }
    let (mut fit, left) = place_dense(model, room, choice)?;
    fit.routed_vram = model.routed.min(left.vram);
    let elsewhere = model.routed - fit.routed_vram;
    // What lies in graphics memory is found there as well.
    let cached = least.max(cache_min(model)).min(elsewhere).saturating_sub(fit.routed_vram);
    let spare = left.ram.checked_sub(cached)?;
    let taken = fit.grow(model, spare.min(left.ram / MICRO_BATCH_SHARE));
    let cache = elsewhere.min(left.ram - taken);
    fit.mode = Mode::Streamed { cache };
    fit.routed_ram = cache;
    fit.routed_disk = model.routed - fit.routed_vram - cache;
    fit.vram += fit.routed_vram;
    fit.ram += cache;
    Some(fit)
}

fn misfit(model: &Model, room: Room, wish: Wish) -> Misfit {
    let name = model.name.clone();
    let context = wish.context.unwrap_or(CONTEXT_MIN.min(model.context));
    let per_token = model.cache_bytes_per_token(wish.cache_type.unwrap_or(KvType::Q8_0));
    let kv = per_token.saturating_mul(context);
    let buffers = model.buffers(MICRO_BATCH_MIN);
    let (weights, experts) = match wish.stream {
        Stream::Never => (0, 0),
        _ if !room.drive || model.routed == 0 => (model.size, 0),
        _ => (model.dense, cache_min(model)),
    };
    let fixed = [buffers, experts].iter().fold(weights, |sum, n| sum.saturating_add(*n));
    let needed = fixed.saturating_add(kv);
    let all = room.ram.saturating_add(room.vram);
    let shorter = Wish { context: None, ..wish };
    if wish.context.is_some() && fit(model, room, shorter).is_ok() {
        let left = all.saturating_sub(fixed);
        let possible = (left / per_token.max(1)).min(model.context);
        return Misfit::ContextMemory {
            model: name,
            asked: context,
            needed: kv,
            room: left,
            possible,
        };
    }
    if weights == model.size {
        return Misfit::NoDrive { model: name, needed, room: all };
    }
    Misfit::Memory { model: name, needed, dense: weights, kv, context, room: room.ram }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Decoding;

    const GIB: u64 = 1 << 30;

    /// R1 UD-Q2_K_XL: 211 GiB.
    fn r1() -> Model {
        Model {
            name: "R1".to_owned(),
            size: 211 * GIB,
            routed: 201 * GIB,
            routed_per_token: 201 * GIB / 32,
            dense: 10 * GIB,
            dense_per_token: 9 * GIB,
            routed_formats: Vec::new(),
            dense_formats: Vec::new(),
            routed_products: 20_435_000_000,
            dense_products: 15_000_000_000,
            layers: 61,
            moe_layers: 58,
            experts: 256,
            experts_used: 8,
            heads: 128,
            hidden: 7168,
            context: 163_840,
            cache_f32: 140_544,
            cache_f16: 70_272,
            cache_q8_0: 37_332,
            cache_expanded: 4_997_120,
            attention_flops: 17e6,
            decoding: Decoding::Plain,
        }
    }

    fn ram(gib: u64) -> Room {
        Room { ram: gib * GIB, vram: 0, drive: true }
    }

    #[test]
    fn a_roomy_machine_holds_everything() {
        let fit = fit(&r1(), ram(256), Wish::default()).unwrap();
        assert_eq!((fit.mode, fit.dense_in), (Mode::Resident, Tier::Ram));
        assert_eq!((fit.routed_ram, fit.routed_disk), (201 * GIB, 0));
        assert_eq!((fit.context, fit.cache_type), (32_768, KvType::F16));
        assert!(fit.context_reduced, "the model has 163,840");
    }

    #[test]
    fn fewer_bits_of_keys_and_values_come_before_a_shorter_context_and_both_before_the_drive() {
        let model = r1();
        let at = |extra: u64| {
            let ram = model.size + model.buffers(MICRO_BATCH_MIN) + extra;
            let fit = fit(&model, Room { ram, vram: 0, drive: true }, Wish::default()).unwrap();
            (matches!(fit.mode, Mode::Resident), fit.context, fit.cache_type)
        };
        assert_eq!(at(70_272 * 32_768), (true, 32_768, KvType::F16));
        assert_eq!(at(70_272 * 32_768 - 1), (true, 32_768, KvType::Q8_0));
        assert_eq!(at(37_332 * 32_768 - 1), (true, 32_512, KvType::Q8_0), "the most that fits");
        assert_eq!(at(37_332 * 8192), (true, 8192, KvType::Q8_0));
        assert_eq!(at(0), (false, 32_768, KvType::F16), "a little streaming, a whole context");
    }

    #[test]
    fn what_memory_does_not_hold_is_streamed() {
        let fit = fit(&r1(), ram(96), Wish::default()).unwrap();
        let Mode::Streamed { cache } = fit.mode else { panic!("{fit:?}") };
        assert_eq!(fit.ram, 96 * GIB);
        assert_eq!(cache, 96 * GIB - 10 * GIB - fit.kv - fit.buffers);
        assert_eq!(fit.routed_disk, 201 * GIB - cache);
    }

    #[test]
    fn a_small_machine_gets_a_shorter_context_for_its_experts() {
        let fit = fit(&r1(), ram(17), Wish::default()).unwrap();
        assert!(fit.context < 32_768 && fit.context >= CONTEXT_STREAMED_MIN, "{fit:?}");
        let error = super::fit(&r1(), ram(8), Wish::default()).unwrap_err();
        assert!(error.missing().unwrap() > 2 * GIB, "{error}");
        assert!(
            error.to_string().contains("10.0 GiB of weights that every token reads"),
            "{error}"
        );
        let nothing = Room { drive: false, ..ram(96) };
        let error = super::fit(&r1(), nothing, Wish::default()).unwrap_err().to_string();
        assert!(error.contains("no drive"), "{error}");
    }

    #[test]
    fn a_card_takes_what_every_token_reads_then_experts() {
        let with =
            |vram| fit(&r1(), Room { vram: vram * GIB, ..ram(256) }, Wish::default()).unwrap();
        assert_eq!((with(8).dense_in, with(8).vram), (Tier::Ram, 0), "too small for attention");
        assert_eq!(with(24).dense_in, Tier::Vram);
        assert_eq!(with(24).vram, 24 * GIB);
        let all = with(640);
        assert_eq!((all.routed_vram, all.ram), (201 * GIB, 0));
    }

    #[test]
    fn wishes_are_kept_or_refused() {
        let wish = |context, stream| Wish { context, stream, cache_type: None };
        let all = fit(&r1(), ram(256), wish(Some(163_840), Stream::Auto)).unwrap();
        assert_eq!((all.context, all.context_reduced), (163_840, false));
        let asked = fit(&r1(), ram(256), wish(None, Stream::Always)).unwrap();
        assert_eq!(asked.mode, Mode::Streamed { cache: 201 * GIB });
        let paged = fit(&r1(), ram(24), wish(None, Stream::Never)).unwrap();
        assert_eq!((paged.mode, paged.context), (Mode::Resident, 32_768));
        let error = fit(&r1(), ram(256), wish(Some(200_000), Stream::Auto)).unwrap_err();
        assert!(matches!(error, Misfit::Context { most: 163_840, .. }), "{error}");
        let error = fit(&r1(), ram(15), wish(Some(163_840), Stream::Auto)).unwrap_err();
        let Misfit::ContextMemory { possible, .. } = error else { panic!("{error}") };
        assert!(fit(&r1(), ram(15), wish(Some(possible), Stream::Auto)).is_ok());
        assert!(fit(&r1(), ram(15), wish(Some(possible + 1), Stream::Auto)).is_err());
    }

    #[test]
    fn micro_batches_grow_into_memory_that_nobody_needs() {
        let batch = |gib| fit(&r1(), ram(gib), Wish::default()).unwrap().micro_batch;
        assert_eq!(batch(300), MICRO_BATCH_MAX);
        assert_eq!(batch(96), MICRO_BATCH_MAX, "an eighth of 84 GiB is enough");
        assert!((MICRO_BATCH_MIN..MICRO_BATCH_MAX).contains(&batch(17)));
    }

    #[test]
    fn headroom_is_a_share_within_limits() {
        assert_eq!(headroom(2200 << 20), 256 << 20);
        assert_eq!(headroom(96 * GIB), 6 * GIB);
        assert_eq!(headroom(2048 * GIB), 8 * GIB);
        assert_eq!(headroom(100), 100);
    }

    proptest! {
        #[test]
        fn nothing_is_placed_where_there_is_no_room(
            ram in 0..400 * GIB, vram in 0..300 * GIB, drive: bool,
            context in proptest::option::of(1_u64..200_000),
            always: bool,
        ) {
            let model = r1();
            let room = Room { ram, vram, drive };
            let stream = if always { Stream::Always } else { Stream::Auto };
            match fit(&model, room, Wish { context, stream, cache_type: None }) {
                Ok(fit) => {
                    if context.is_none() && fit.context < CONTEXT_DEFAULT_MAX {
                        // Nobody gets a shorter context than fits.
                        let more = Some(fit.context + CONTEXT_STEP + 1);
                        let cache_type = Some(fit.cache_type);
                        let longer = super::fit(&model, room, Wish { context: more, stream, cache_type });
                        prop_assert!(longer.map_or(true, |longer| longer.mode != fit.mode), "{fit:?}");
                    }
                    prop_assert!(fit.ram <= ram && fit.vram <= vram, "{fit:?}");
                    prop_assert_eq!(fit.routed_vram + fit.routed_ram + fit.routed_disk, model.routed);
                    prop_assert!(drive || matches!(fit.mode, Mode::Resident));
                    prop_assert!(fit.context <= model.context);
                }
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }
}
