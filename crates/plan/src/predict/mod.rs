//! How fast a model will be: the time per token, tier by tier.
//!
//! ```text
//! t = routed in RAM / rate of RAM + (dense + routed in VRAM) / rate of VRAM
//!   + misses / rate of the drive   (overlapped with computation as far as possible)
//!   + layers x overhead of each
//!   + depth x operations of attention / rate of attention
//! ```
//!
//! Bytes are those that one token reads, never those of the file. Rates are fractions of
//! theoretical or measured bandwidth; the fractions belong to classes of hardware (`classes.rs`).
//! Every part has its formula in words and numbers, and the sum is a range, because machines of one
//! class differ.

mod attention;
mod cards;
mod drive;
mod layers;
mod memory;
mod network;
mod parallel;
mod prompt;

use cachalot_gguf::Metadata;
use serde::Serialize;

use self::attention::{attention, expanded, instructions, is_expanded};
use self::cards::Cards;
use self::drive::{hits, load, misses};
use self::layers::layers;
pub(crate) use self::memory::Channels;
use self::memory::{by_format, kernel_rate, ram};
pub(crate) use self::network::merged;
pub use self::network::over;
use self::prompt::prompt;
use crate::classes::{self, Class};
use crate::constants::Constants;
use crate::fit::{MemoryTier, Placement};
use crate::machine::Machine;
use crate::model::ModelFacts;
use crate::processors::Instructions;

/// How the software uses the hardware.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RuntimeProfile {
    /// Whether each socket has its own copy of the weights; otherwise they are interleaved.
    pub copies_per_socket: bool,
    /// Whether experts are read with direct I/O while others are computed.
    pub direct_reads: bool,
    /// How uneven the use of experts is.
    pub skew: RoutingSkew,
    /// Whether it can slice every layer over several cards.
    pub tensor_split: bool,
    /// Whether it has support for models like R1.
    pub age: SoftwareAge,
    /// Correction from earlier runs on this machine.
    pub calibration: Option<Calibration>,
}

/// How earlier runs on this machine compare with their predictions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Calibration {
    /// Median of measured rate / predicted rate.
    pub times: f64,
    /// Number of runs.
    pub runs: usize,
    /// Whether the runs were of this model, or of others in the same kind of memory.
    pub same_model: bool,
    /// Whether the runs were measured on other machines with identical hardware.
    pub imported: bool,
}

/// What the software supports of models like R1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SoftwareAge {
    /// Multi-head latent attention with a latent cache, and separate placement of experts.
    Current,
    /// A KV cache of all heads, or placement by whole layers only: software of early 2025.
    Early,
}

impl Default for RuntimeProfile {
    fn default() -> Self {
        Self {
            copies_per_socket: false,
            direct_reads: true,
            skew: RoutingSkew::Measured,
            tensor_split: true,
            age: SoftwareAge::Current,
            calibration: None,
        }
    }
}

/// How uneven the use of experts is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RoutingSkew {
    /// As measured with trained models on text: some experts are used much more often.
    Measured,
    /// Every expert is equally likely: random weights, or random tokens.
    Uniform,
}

impl RoutingSkew {
    /// From the metadata of a file: `cargo xtask synth` says so in the name of its random models.
    pub fn of(metadata: &Metadata) -> Self {
        let random = metadata.str("general.name").is_ok_and(|name| name.contains("random layers"));
        if random { Self::Uniform } else { Self::Measured }
    }
}

/// Tokens per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RateRange {
    /// Four of five measurements of machines that had no part in the fit are between this and
    /// `high`.
    pub low: f64,
    /// By the constants of the class.
    pub likely: f64,
    /// See `low`.
    pub high: f64,
}

/// How several graphics cards work on a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Each card has some layers, and they work one after the other.
    Layers,
    /// Each card has a slice of every layer, and they work together.
    Tensor,
}

/// What a part of the time per token is spent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Reading routed experts from main memory.
    Experts,
    /// Reading all other weights from main memory.
    Dense,
    /// Reading weights from graphics memory.
    Vram,
    /// Reading missed experts from the drive.
    Drive,
    /// Per-layer overhead: synchronization and launches.
    Layers,
    /// Messages between machines.
    Network,
}

impl What {
    /// What limits such a part.
    pub fn bound(self) -> &'static str {
        match self {
            Self::Experts | Self::Dense => "main memory",
            Self::Vram => "graphics memory",
            Self::Drive => "the drive",
            Self::Layers => "per-layer overhead",
            Self::Network => "the network",
        }
    }
}

/// A part of the time per token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part {
    /// What it is spent on.
    pub what: What,
    /// Bytes read.
    pub bytes: u64,
    /// Seconds.
    pub seconds: f64,
    /// Where the seconds come from.
    pub formula: String,
}

/// How often a needed expert is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Hits {
    /// Fraction of the routed experts that are in memory.
    pub resident: f64,
    /// Fraction of the needed experts that are found in memory.
    pub rate: f64,
    /// The assumption.
    pub skew: RoutingSkew,
}

/// The rates of a model on a machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The class of hardware, whose constants were used.
    pub class: Class,
    /// The parts of the time per token with an empty KV cache.
    pub parts: Vec<Part>,
    /// Fraction of the shorter of drive time and all other time that is not overlapped.
    pub exposed: f64,
    /// If experts are streamed.
    pub hits: Option<Hits>,
    /// How cards share the work, if there are several.
    pub split: Option<Split>,
    /// Sequences at a time.
    pub users: u64,
    /// Least seconds of a step: what computing takes for all sequences.
    pub compute_seconds: f64,
    /// Seconds that each token in the KV cache adds to a new token.
    pub attention_seconds: f64,
    /// Their formula.
    pub attention_formula: String,
    /// Seconds per token of a prompt at depth 0.
    pub prompt_seconds: f64,
    /// Seconds that each earlier token adds.
    pub prompt_attention_seconds: f64,
    /// Their formula.
    pub prompt_formula: String,
    /// Seconds to load the model, if the drive's rate is known.
    pub load_seconds: Option<f64>,
    /// The range of the class: measured rate / predicted rate of four rows of five.
    pub spread: (f64, f64),
    /// Correction from earlier runs on this machine; already applied.
    pub calibration: Option<Calibration>,
    /// What was assumed where a fact is missing, in sentences.
    pub assumed: Vec<String>,
}

impl Prediction {
    /// Seconds per token at this depth of the KV cache.
    pub fn seconds(&self, depth: u64) -> f64 {
        let of = |drive: bool| -> f64 {
            let parts = self.parts.iter().filter(|part| (part.what == What::Drive) == drive);
            parts.map(|part| part.seconds).sum()
        };
        let (io, rest) = (of(true), of(false) + self.attention_seconds * depth as f64);
        let seconds = io.max(rest) + self.exposed * io.min(rest);
        seconds.max(self.compute_seconds + self.attention_seconds * depth as f64)
    }

    /// Decode rate of all sequences together, in tokens per second.
    pub fn total(&self, depth: u64) -> RateRange {
        let each = self.decode(depth);
        let users = self.users as f64;
        RateRange { low: each.low * users, likely: each.likely * users, high: each.high * users }
    }

    /// Decode rate of one sequence at this depth, in tokens per second.
    pub fn decode(&self, depth: u64) -> RateRange {
        let likely = 1.0 / self.seconds(depth);
        RateRange { low: likely * self.spread.0, likely, high: likely * self.spread.1 }
    }

    /// Prefill rate at this depth, in tokens per second.
    pub fn prefill(&self, depth: u64) -> RateRange {
        let likely = 1.0 / (self.prompt_seconds + self.prompt_attention_seconds * depth as f64);
        let (low, high) = self.class.prompt_spread();
        RateRange { low: likely * low, likely, high: likely * high }
    }

    /// The longest part.
    pub fn bound(&self) -> What {
        let longest = self.parts.iter().max_by(|a, b| a.seconds.total_cmp(&b.seconds));
        longest.map_or(What::Layers, |part| part.what)
    }

    /// The same prediction with all times divided by `ratio`.
    fn calibrated(mut self, ratio: f64) -> Self {
        self.parts.iter_mut().for_each(|part| part.seconds /= ratio);
        self.attention_seconds /= ratio;
        self
    }

    /// The same prediction, corrected by earlier runs on this machine.
    pub fn learned(self, calibration: Calibration) -> Self {
        let spread = if calibration.same_model { classes::SPREAD_OF_RUNS } else { self.spread };
        let calibration = Some(calibration).filter(|calibration| calibration.times > 0.0);
        let learned = self.calibrated(calibration.map_or(1.0, |calibration| calibration.times));
        Self { spread, calibration, ..learned }
    }
}

/// Why no rate can be predicted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// Something that decides about everything else is not said.
    #[error("{0}")]
    Unsaid(String),
    /// The amount of memory is unknown.
    #[error("the amount of memory is not said: add it, as in `128GB` or `--ram 128GB`{}", made_with(.0))]
    Memory(Vec<u64>),
    /// The memory bandwidth is unknown.
    #[error(
        "the memory bandwidth is unknown: give channels and speed (`12x4800`), or the measured \
         rate (`--bandwidth 80GB/s`)"
    )]
    Bandwidth,
    /// The bandwidth of a card is unknown.
    #[error("the bandwidth of {0} is unknown: name the card, or describe it as `24GB:1008GB/s`")]
    Gpu(String),
    /// The model is larger than memory, and the rate of the drive is unknown.
    #[error("the drive's read rate is unknown: give it, as in `nvme 7GB/s` or `--disk 7GB/s`")]
    Drive,
}

/// The memory channels that a prediction for `machine` counts on.
pub(crate) fn assumed_channels(machine: &Machine) -> Option<Channels> {
    memory::channels(machine, &mut Vec::new())
}

fn made_with(sizes: &[u64]) -> String {
    let sizes: Vec<String> = sizes.iter().map(|bytes| format!("{} GB", bytes >> 30)).collect();
    if sizes.is_empty() {
        String::new()
    } else {
        format!(" (it is made with {})", sizes.join(", "))
    }
}

/// Predicts the rates of a model placed as `fit` says.
///
/// # Errors
/// If the rate of something that is needed is unknown.
pub fn predict(
    machine: &Machine,
    model: &ModelFacts,
    fit: &Placement,
    profile: RuntimeProfile,
) -> Result<Prediction, Unknown> {
    predict_with(machine, model, fit, profile, &Constants::FITTED)
}

/// The same by other constants than those fitted to all published rows.
///
/// # Errors
/// As [`predict`].
pub fn predict_with(
    machine: &Machine,
    model: &ModelFacts,
    fit: &Placement,
    profile: RuntimeProfile,
    constants: &Constants,
) -> Result<Prediction, Unknown> {
    let with_split = |split| with_split(machine, model, fit, profile, split, constants);
    let layers = with_split(Split::Layers)?;
    let all_on_cards =
        fit.dense_in == MemoryTier::Vram && fit.routed_ram == 0 && fit.routed_disk == 0;
    let may_slice = profile.tensor_split && machine.unified().is_none();
    if machine.gpu_count() < 2 || !may_slice || !all_on_cards {
        return Ok(layers);
    }
    // The better of both ways, halfway through an answer.
    let tensor = with_split(Split::Tensor)?;
    let is_better = tensor.seconds(HALFWAY) < layers.seconds(HALFWAY);
    Ok(if is_better { tensor } else { layers })
}

/// Depth at which ways to share the work are compared, in tokens.
const HALFWAY: u64 = 4096;

// tidy: long because it is the sum of all parts of a token's time, in one order
fn with_split(
    machine: &Machine,
    model: &ModelFacts,
    fit: &Placement,
    profile: RuntimeProfile,
    split: Split,
    constants: &Constants,
) -> Result<Prediction, Unknown> {
    let mut assumed = Vec::new();
    let mut memory_assumed = false;
    let cards = Cards::of(machine, constants)?;
    let on_cards = fit.dense_in == MemoryTier::Vram;
    let class = class(machine, fit, split, profile);
    let share = |bytes: u64, of: u64| bytes as f64 / of.max(1) as f64;
    // Experts that a unified memory does not hold are read into it as well.
    let all_in_vram = on_cards && machine.unified().is_some();
    let vram_share = if all_in_vram { 1.0 } else { share(fit.routed_vram, model.routed) };
    let routed_vram = (model.routed_per_token as f64 * vram_share) as u64;
    let routed_ram = model.routed_per_token - routed_vram;
    let dense_ram = if on_cards { 0 } else { model.dense_per_token };
    let mut parts = Vec::new();
    if routed_ram + dense_ram > 0 {
        let ram = ram(machine, on_cards, profile, constants, &mut assumed)?;
        memory_assumed = !assumed.is_empty();
        if routed_ram > 0 {
            let rate = ram.clone().at_most(kernel_rate(machine, model, constants));
            let part = by_format(machine, What::Experts, routed_ram, &model.routed_formats, &ram);
            parts.push(part.unwrap_or_else(|| rate.part(What::Experts, routed_ram)));
        }
        if dense_ram > 0 {
            let part = by_format(machine, What::Dense, dense_ram, &model.dense_formats, &ram);
            parts.push(part.unwrap_or_else(|| ram.part(What::Dense, dense_ram)));
        }
    }
    if on_cards {
        let bytes = (model.dense_per_token, routed_vram);
        parts.push(cards.part(split, bytes, constants));
    }
    let hits = hits(model, fit, profile);
    parts.extend(hits.map(|hits| misses(machine, model, hits, profile, constants)).transpose()?);
    parts.push(layers(machine, class, split, model, vram_share, profile, constants));
    let (attention_seconds, attention_formula) =
        if is_expanded(profile, class == Class::JoinedCards) {
            let rate = match on_cards {
                true => cards.rate_of_cache(constants),
                false => ram(machine, false, profile, constants, &mut Vec::new())?,
            };
            expanded(model, &rate)
        } else {
            let split = on_cards.then_some(split);
            attention(machine, model, &cards, split, constants, &mut assumed)
        };
    let prompt = prompt(machine, model, fit, &cards, class, profile, constants);
    assumed.extend(of_software(class, split, profile, constants));
    let (low, high) = class.spread();
    let spread = if memory_assumed { (low * classes::ASSUMED_MEMORY, high) } else { (low, high) };
    let prediction = Prediction {
        class,
        parts,
        exposed: if profile.direct_reads { classes::EXPOSED } else { 1.0 },
        hits,
        split: (on_cards && cards.count > 1.0).then_some(split),
        users: 1,
        compute_seconds: 0.0,
        attention_seconds,
        attention_formula,
        prompt_seconds: prompt.0,
        prompt_attention_seconds: attention_seconds
            / if on_cards { constants.prompt_attention_card } else { constants.prompt_attention },
        prompt_formula: prompt.1,
        load_seconds: load(machine, model, fit),
        spread,
        calibration: None,
        assumed,
    };
    let prediction = match profile.calibration {
        Some(calibration) => prediction.learned(calibration),
        None => prediction,
    };
    Ok(prediction.for_users(fit.parallel, model, profile.skew))
}

/// What is assumed of the software where other software, or other settings, make a large
/// difference.
fn of_software(
    class: Class,
    split: Split,
    profile: RuntimeProfile,
    constants: &Constants,
) -> Option<String> {
    match class {
        Class::Sockets if !profile.copies_per_socket => Some(format!(
            "weights spread over the memory of all sockets; software whose threads read the memory of their own \
             socket only was measured up to {:.1} times as fast",
            constants.sockets_own / constants.sockets_spread
        )),
        Class::Cards if split == Split::Tensor => Some(
            "cards that reach each other's memory; without that (NCCL_P2P_DISABLE) a third less was measured"
                .to_owned(),
        ),
        _ => None,
    }
}

/// The class of hardware that this placement depends on.
fn class(machine: &Machine, fit: &Placement, split: Split, profile: RuntimeProfile) -> Class {
    let class = of_hardware(machine, fit, split);
    match profile.age {
        // Supported from the first day; only the time between layers was longer.
        SoftwareAge::Early if class != Class::JoinedCards => Class::Early,
        _ => class,
    }
}

fn of_hardware(machine: &Machine, fit: &Placement, split: Split) -> Class {
    let on_cards = fit.dense_in == MemoryTier::Vram;
    let all_on_cards = on_cards && fit.routed_ram == 0 && fit.routed_disk == 0;
    if machine.unified().is_some() && all_on_cards {
        if machine.machines() > 1 { Class::Network } else { Class::Unified }
    } else if fit.routed_disk > 0 {
        Class::Drive
    } else if all_on_cards {
        let joined = split == Split::Tensor && machine.gpus.iter().all(|gpu| gpu.joined);
        if joined { Class::JoinedCards } else { Class::Cards }
    } else if machine.memory.measured_here && !on_cards {
        Class::Measured
    } else if machine.processor.sockets() > 1 {
        Class::Sockets
    } else if on_cards {
        Class::Hybrid
    } else if instructions(machine) == Some(Instructions::Neon) {
        Class::Arm
    } else {
        Class::Processor
    }
}
