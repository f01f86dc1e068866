//! How fast a model will be: seconds of a token, tier by tier.
//!
//! ```text
//! t = routed in RAM / rate of RAM + (dense + routed in VRAM) / rate of VRAM
//!   + misses / rate of the drive   (beside computing, as far as they overlap)
//!   + layers x what each costs besides its bytes
//!   + depth x operations of attention / rate of attention
//! ```
//!
//! Bytes are those that one token reads, never those of the file. Rates are shares of what hardware
//! promises or was measured to do; the shares belong to classes of hardware (`classes.rs`). Every
//! part carries its formula in words and numbers, and the sum is a range: machines of one class
//! differ among themselves.

use cachalot_gguf::Metadata;
use serde::Serialize;

use crate::classes::{self, Class, Core};
use crate::fit::{Fit, Mode, Tier};
use crate::machine::{Gpu, Machine};
use crate::model::{Decoding, Encoded, Model};
use crate::processors::{self, Instructions};
use crate::units;

/// How the software uses what the hardware has.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Engine {
    /// Whether each socket has a copy of the weights; else they are spread over all.
    pub copies_per_socket: bool,
    /// Whether experts are read past the page cache while others are computed.
    pub direct_reads: bool,
    /// Which experts tokens want.
    pub locality: Locality,
    /// How much it knows of such models.
    pub runtime: Runtime,
    /// What past runs on this machine told.
    pub calibration: Option<Calibration>,
}

/// How many times as fast as predicted runs on this machine were.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Calibration {
    /// The median of their quotients.
    pub times: f64,
    /// So many runs.
    pub runs: usize,
    /// Whether they were of this very model; else of others that lay in the same places.
    pub same_model: bool,
}

/// How much software knows of models like R1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// It attends to the latent, and puts experts elsewhere than all else.
    Current,
    /// It caches keys and values of all heads, or moves whole layers to cards.
    Early,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            copies_per_socket: false,
            direct_reads: true,
            locality: Locality::Text,
            runtime: Runtime::Current,
            calibration: None,
        }
    }
}

/// Which experts tokens want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Locality {
    /// Those of a trained model that reads text: some more often than others.
    Text,
    /// Any: those of a model with random weights, or of random tokens.
    Noise,
}

impl Locality {
    /// What a file's metadata tell: models written by `cargo xtask synth` name their random layers.
    pub fn of(metadata: &Metadata) -> Self {
        let random = metadata.str("general.name").is_ok_and(|name| name.contains("random layers"));
        if random { Self::Noise } else { Self::Text }
    }
}

/// Tokens per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Range {
    /// One machine in ten of this class is slower.
    pub low: f64,
    /// As many are slower as are faster.
    pub likely: f64,
    /// One in ten is faster.
    pub high: f64,
}

/// What takes a part of the time of a token.
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
    /// What layers cost besides their bytes.
    Layers,
}

impl What {
    /// What such a part is bound by.
    pub fn bound(self) -> &'static str {
        match self {
            Self::Experts | Self::Dense => "main memory",
            Self::Vram => "graphics memory",
            Self::Drive => "the drive",
            Self::Layers => "what each layer costs besides its bytes",
        }
    }
}

/// A part of the time of a token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part {
    /// What takes it.
    pub what: What,
    /// Bytes read.
    pub bytes: u64,
    /// Seconds.
    pub seconds: f64,
    /// Where the seconds come from.
    pub formula: String,
}

/// How often a wanted expert is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Hits {
    /// Share of the routed experts that are in memory.
    pub resident: f64,
    /// Share of the wanted ones.
    pub rate: f64,
    /// The assumption.
    pub locality: Locality,
}

/// What a model does on a machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The class of hardware, whose constants were used.
    pub class: Class,
    /// The parts of the time of a token with an empty cache.
    pub parts: Vec<Part>,
    /// Of the shorter one of reading the drive and all else, the share that comes on top.
    pub exposed: f64,
    /// If experts are streamed.
    pub hits: Option<Hits>,
    /// Seconds that each token in the cache adds to each new one.
    pub attention_seconds: f64,
    /// Where they come from.
    pub attention_formula: String,
    /// Seconds of a token of a prompt, none before it.
    pub prompt_seconds: f64,
    /// Seconds that each token before it adds.
    pub prompt_attention_seconds: f64,
    /// Where they come from.
    pub prompt_formula: String,
    /// Seconds to read what must be in memory before the first token, if the drive is known.
    pub load_seconds: Option<f64>,
    /// What measured rates are of predicted ones, at 10 % and 90 % of a class.
    pub spread: (f64, f64),
    /// What past runs on this machine told, which is in the numbers already.
    pub calibration: Option<Calibration>,
    /// What was assumed for want of a fact, in sentences.
    pub assumed: Vec<String>,
}

impl Prediction {
    /// Seconds of a token with so many in the cache.
    pub fn seconds(&self, depth: u64) -> f64 {
        let of = |drive: bool| -> f64 {
            let parts = self.parts.iter().filter(|part| (part.what == What::Drive) == drive);
            parts.map(|part| part.seconds).sum()
        };
        let (io, rest) = (of(true), of(false) + self.attention_seconds * depth as f64);
        io.max(rest) + self.exposed * io.min(rest)
    }

    /// Tokens per second with so many in the cache.
    pub fn decode(&self, depth: u64) -> Range {
        let likely = 1.0 / self.seconds(depth);
        Range { low: likely * self.spread.0, likely, high: likely * self.spread.1 }
    }

    /// Tokens of a prompt per second, after so many.
    pub fn prefill(&self, depth: u64) -> Range {
        let likely = 1.0 / (self.prompt_seconds + self.prompt_attention_seconds * depth as f64);
        let spread = classes::PROMPT_SPREAD;
        Range { low: likely / spread, likely, high: likely * spread }
    }

    /// What takes the most time.
    pub fn bound(&self) -> What {
        let longest = self.parts.iter().max_by(|a, b| a.seconds.total_cmp(&b.seconds));
        longest.map_or(What::Layers, |part| part.what)
    }

    /// The same prediction for a machine that turned out to be so many times as fast as predicted.
    pub fn calibrated(mut self, ratio: f64) -> Self {
        self.parts.iter_mut().for_each(|part| part.seconds /= ratio);
        self.attention_seconds /= ratio;
        self
    }
}

impl Prediction {
    /// The same prediction after runs on this machine.
    pub fn learned(self, calibration: Calibration) -> Self {
        let spread = if calibration.same_model { classes::SPREAD_OF_RUNS } else { self.spread };
        let calibration = Some(calibration).filter(|calibration| calibration.times > 0.0);
        let learned = self.calibrated(calibration.map_or(1.0, |calibration| calibration.times));
        Self { spread, calibration, ..learned }
    }

    /// With a runtime of this age.
    fn with(self, runtime: Runtime) -> Self {
        match runtime {
            Runtime::Current => self,
            // They know such models, and only take longer between layers.
            Runtime::Early if self.class == Class::JoinedCards => self,
            Runtime::Early => {
                let slower = self.calibrated(1.0 / classes::EARLY);
                Self { class: Class::Early, spread: Class::Early.spread(), ..slower }
            }
        }
    }
}

/// Why no rate can be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// Nothing is known of the memory.
    #[error(
        "the bandwidth of this memory is unknown: say how many channels there are and how fast \
         (`12x4800`), or what they deliver (`--bandwidth 80GB/s`)"
    )]
    Bandwidth,
    /// Nothing is known of a card.
    #[error("the bandwidth of {0} is unknown: describe the card as `24GB:1008GB/s`")]
    Gpu(String),
    /// The model is larger than memory, and nothing is known of the drive.
    #[error("the rate of the drive is unknown: say it, as in `nvme 7GB/s` or `--disk 7GB/s`")]
    Drive,
}

/// Predicts the rates of a model that lies where `fit` says.
///
/// # Errors
/// If the rate of something that is needed cannot be told.
pub fn predict(
    machine: &Machine,
    model: &Model,
    fit: &Fit,
    engine: Engine,
) -> Result<Prediction, Unknown> {
    let mut assumed = Vec::new();
    let mut memory_assumed = false;
    let cards = Cards::of(machine)?;
    let on_cards = fit.dense_in == Tier::Vram;
    let class = class(machine, fit);
    let share = |bytes: u64, of: u64| bytes as f64 / of.max(1) as f64;
    // What a unified memory lacks is read into it, too.
    let all_in_vram = on_cards && machine.unified().is_some();
    let vram_share = if all_in_vram { 1.0 } else { share(fit.routed_vram, model.routed) };
    let routed_vram = (model.routed_per_token as f64 * vram_share) as u64;
    let routed_ram = model.routed_per_token - routed_vram;
    let dense_ram = if on_cards { 0 } else { model.dense_per_token };
    let mut parts = Vec::new();
    if routed_ram + dense_ram > 0 {
        let ram = ram(machine, on_cards, engine, &mut assumed)?;
        memory_assumed = !assumed.is_empty();
        if routed_ram > 0 {
            let rate = ram.clone().at_most(kernel_rate(machine, model));
            let part = by_format(machine, What::Experts, routed_ram, &model.routed_formats, &ram);
            parts.push(part.unwrap_or_else(|| rate.part(What::Experts, routed_ram)));
        }
        if dense_ram > 0 {
            let part = by_format(machine, What::Dense, dense_ram, &model.dense_formats, &ram);
            parts.push(part.unwrap_or_else(|| ram.part(What::Dense, dense_ram)));
        }
    }
    if on_cards {
        parts.push(cards.rate(class).part(What::Vram, model.dense_per_token + routed_vram));
    }
    let hits = hits(model, fit, engine);
    if let Some(hits) = hits {
        parts.push(misses(machine, model, hits, engine)?);
    }
    parts.push(layers(machine, class, model, engine));
    let (attention_seconds, attention_formula) =
        attention(machine, model, &cards, on_cards, &mut assumed);
    let prompt = prompt(machine, model, fit, &cards, class);
    let (low, high) = class.spread();
    let spread = if memory_assumed { (low * classes::ASSUMED_MEMORY, high) } else { (low, high) };
    let prediction = Prediction {
        class,
        parts,
        exposed: if engine.direct_reads { classes::EXPOSED } else { 1.0 },
        hits,
        attention_seconds,
        attention_formula,
        prompt_seconds: prompt.0,
        prompt_attention_seconds: attention_seconds / classes::PROMPT_ATTENTION,
        prompt_formula: prompt.1,
        load_seconds: load(machine, model, fit),
        spread,
        calibration: None,
        assumed,
    };
    let prediction = match engine.calibration {
        Some(calibration) => prediction.learned(calibration),
        None => prediction,
    };
    Ok(prediction.with(engine.runtime))
}

/// The class of hardware that this placement depends on.
fn class(machine: &Machine, fit: &Fit) -> Class {
    let on_cards = fit.dense_in == Tier::Vram;
    let all_on_cards = on_cards && fit.routed_ram == 0 && fit.routed_disk == 0;
    if machine.unified().is_some() && all_on_cards {
        if machine.gpu_count() > 1 { Class::Network } else { Class::Unified }
    } else if fit.routed_disk > 0 {
        Class::Drive
    } else if all_on_cards {
        let joined = machine.gpu_count() > 2 && machine.gpus.iter().all(|gpu| gpu.joined);
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

/// Bytes per second, and where the number comes from.
#[derive(Debug, Clone)]
struct Rate {
    bytes_per_second: f64,
    formula: String,
}

impl Rate {
    fn share(share: f64, of: f64, what: &str) -> Self {
        let formula = format!("{share:.2} of {} {what}", units::rate(of));
        Self { bytes_per_second: share * of, formula }
    }

    fn at_most(self, other: Option<Self>) -> Self {
        match other {
            Some(other) if other.bytes_per_second < self.bytes_per_second => other,
            _ => self,
        }
    }

    fn part(&self, what: What, bytes: u64) -> Part {
        let formula = format!("{} / ({})", units::gigabytes(bytes as f64), self.formula);
        Part { what, bytes, seconds: bytes as f64 / self.bytes_per_second, formula }
    }
}

/// What decoding reads from main memory: the least of what channels, measurements and chiplets allow.
fn ram(
    machine: &Machine,
    hybrid: bool,
    engine: Engine,
    assumed: &mut Vec<String>,
) -> Result<Rate, Unknown> {
    let (memory, processor) = (&machine.memory, &machine.processor);
    if let Some(measured) = memory.read_bytes_per_second.filter(|_| memory.measured_here) {
        return Ok(Rate::share(classes::SHARE_MEASURED, measured, "as measured here"));
    }
    let sockets = f64::from(processor.sockets());
    let share = share_of_channels(machine, hybrid);
    let best = channels(machine, assumed).map(|(channels, mts, is_assumed)| {
        let all = f64::from(channels) * f64::from(mts) * 8e6;
        let assumed = if is_assumed { ", assumed" } else { "" };
        Rate::share(share, all, &format!("({channels} channels x {mts} MT/s x 8 bytes{assumed})"))
    });
    let reported = memory
        .read_bytes_per_second
        .map(|rate| Rate::share(classes::SHARE_REPORTED, rate, "as reported"));
    let name = processor.name.as_deref().unwrap_or_default();
    let per_chiplet = processor.platform().and_then(|platform| platform.chiplet_rate);
    let chiplets = processors::chiplet_count(name).zip(per_chiplet);
    let chiplets = chiplets.map(|(count, rate)| {
        let all = f64::from(count) * rate * sockets;
        Rate::share(classes::SHARE_REPORTED, all, &format!("({count} chiplets per socket)"))
    });
    let first = best.or_else(|| reported.clone()).ok_or(Unknown::Bandwidth)?;
    Ok(over_sockets(first.at_most(reported).at_most(chiplets), sockets, engine))
}

/// Memory channels, their speed, and whether one of them was assumed: as many as the platform has, or two where
/// nobody says more than the speed, as desktops and laptops have.
fn channels(machine: &Machine, assumed: &mut Vec<String>) -> Option<(u32, u32, bool)> {
    let (memory, processor) = (&machine.memory, &machine.processor);
    if let (Some(channels), Some(mts)) = (memory.channels, memory.speed_mts) {
        return Some((channels, mts, false));
    }
    if let Some(platform) = processor.platform() {
        let channels = memory.channels.unwrap_or(platform.channels * processor.sockets());
        let mts = memory.speed_mts.unwrap_or(platform.speed_mts);
        let name = platform.name;
        assumed.push(format!("{channels} memory channels at {mts} MT/s, as {name} has at best"));
        return Some((channels, mts, true));
    }
    // A rate that somebody measured says more than a guess.
    let mts = memory.speed_mts.filter(|_| memory.read_bytes_per_second.is_none())?;
    assumed.push(format!("{CHANNELS_ASSUMED} memory channels, as desktops have"));
    Some((CHANNELS_ASSUMED, mts, true))
}

/// What decoding reaches of the bandwidth that memory channels promise.
fn share_of_channels(machine: &Machine, hybrid: bool) -> f64 {
    let platform = machine.processor.platform();
    let channels = machine.memory.channels.or(platform.map(|platform| platform.channels));
    let channels =
        channels.or(Some(CHANNELS_ASSUMED).filter(|_| machine.memory.speed_mts.is_some()));
    match hybrid {
        _ if channels.is_some_and(|channels| channels <= 2) => classes::SHARE_DESKTOP,
        true => classes::SHARE_HYBRID,
        false => classes::SHARE_PROCESSOR,
    }
}

/// Several sockets do not add up: their links carry less than their memory delivers.
fn over_sockets(all: Rate, sockets: f64, engine: Engine) -> Rate {
    if sockets < 2.0 {
        return all;
    }
    let one = all.bytes_per_second / sockets;
    let (factor, how) = if engine.copies_per_socket {
        (classes::SOCKETS_COPIED, "a copy of the weights for each")
    } else if one / classes::SHARE_PROCESSOR <= classes::SOCKET_SLOW {
        (classes::SOCKETS_SPREAD_SLOW, "links that keep up")
    } else {
        (classes::SOCKETS_SPREAD, "weights spread over all")
    };
    let formula =
        format!("{factor:.1} sockets' worth ({how}) of {sockets:.0} with {}", all.formula);
    Rate { bytes_per_second: factor * one, formula }
}

/// What unpacking allows, where it and not memory is the limit.
fn kernel_rate(machine: &Machine, model: &Model) -> Option<Rate> {
    let core = Core::of(instructions(machine)?);
    let cores = f64::from(machine.processor.cores()?);
    let (per_core, what) = match model.decoding {
        Decoding::Plain => return None,
        Decoding::Codebook => (core.codebook, "codebook"),
        Decoding::Trellis => (core.trellis, "trellis"),
    };
    let formula =
        format!("{cores:.0} cores x {} of unpacking a {what} format", units::rate(per_core));
    Some(Rate { bytes_per_second: cores * per_core, formula })
}

/// Time of `bytes` that are shared out over formats, each at the rate at which this machine was measured to
/// multiply it, which memory or unpacking limits; `None` if no such rates or shares are known.
fn by_format(
    machine: &Machine,
    what: What,
    bytes: u64,
    formats: &[Encoded],
    memory: &Rate,
) -> Option<Part> {
    let rates = &machine.processor.decode_bytes_per_second;
    if !machine.memory.measured_here || rates.is_empty() || formats.is_empty() {
        return None;
    }
    let all: u64 = formats.iter().map(|encoded| encoded.per_token).sum();
    let (mut seconds, mut formulas) = (0.0, Vec::new());
    for Encoded { format, per_token } in formats {
        let bytes = bytes as f64 * *per_token as f64 / all.max(1) as f64;
        let measured = rates.get(format).filter(|rate| **rate > 0.0);
        let rate = match measured {
            Some(rate) => Rate::share(classes::SHARE_KERNELS, *rate, "as measured here"),
            None => memory.clone(),
        };
        seconds += bytes / rate.bytes_per_second;
        formulas.push(format!("{} of {format} / ({})", units::gigabytes(bytes), rate.formula));
    }
    Some(Part { what, bytes, seconds, formula: formulas.join(" + ") })
}

/// The vectors of a machine's processor, by its name or by what it says it can.
fn instructions(machine: &Machine) -> Option<Instructions> {
    let has = |name: &str| machine.processor.features.iter().any(|feature| feature == name);
    let by_features = || {
        let known = [
            ("avx512_vnni", Instructions::Avx512Vnni),
            ("avx_vnni", Instructions::AvxVnni),
            ("avx512f", Instructions::Avx512),
            ("avx2", Instructions::Avx2),
        ];
        known.into_iter().find(|(name, _)| has(name)).map(|(_, instructions)| instructions)
    };
    let platform = machine.processor.platform().map(|platform| platform.instructions);
    platform.or_else(by_features)
}

/// All graphics cards together.
struct Cards {
    /// Bytes per second of one card: of several kinds, as if each had its share of the layers.
    rate: f64,
    /// Operations of attention per second, likewise.
    attention: f64,
    count: f64,
}

impl Cards {
    fn of(machine: &Machine) -> Result<Self, Unknown> {
        let (mut bytes, mut seconds, mut attention, mut count) = (0.0, 0.0, 0.0, 0.0);
        for gpu in &machine.gpus {
            let rate = gpu.bytes_per_second.filter(|rate| *rate > 0.0);
            let rate = rate.ok_or_else(|| Unknown::Gpu(gpu.name.clone()))?;
            let memory = gpu.memory_bytes as f64 * f64::from(gpu.count);
            bytes += memory;
            seconds += memory / rate;
            attention += memory / attention_of(gpu, rate);
            count += f64::from(gpu.count);
        }
        Ok(Self { rate: bytes / seconds, attention: bytes / attention, count })
    }

    fn rate(&self, class: Class) -> Rate {
        if class == Class::JoinedCards {
            let what = format!("of {} cards together", self.count);
            return Rate::share(classes::SHARE_VRAM, self.rate * self.count, &what);
        }
        let what = if self.count > 1.0 { "of one card after the other" } else { "by data sheet" };
        let share = match class {
            Class::Cards => classes::SHARE_CARDS,
            Class::Unified | Class::Network => classes::SHARE_UNIFIED,
            _ => classes::SHARE_VRAM,
        };
        Rate::share(share, self.rate, what)
    }
}

fn attention_of(gpu: &Gpu, rate: f64) -> f64 {
    gpu.attention_flops.unwrap_or(rate * classes::CARD_ATTENTION_PER_BYTE)
}

fn hits(model: &Model, fit: &Fit, engine: Engine) -> Option<Hits> {
    matches!(fit.mode, Mode::Streamed { .. }).then(|| {
        let in_memory = fit.routed_vram + fit.routed_ram;
        let resident = in_memory as f64 / model.routed.max(1) as f64;
        let curve: &[(f64, f64)] = match engine.locality {
            Locality::Text => &classes::HITS_OF_TEXT,
            Locality::Noise => &classes::HITS_OF_NOISE,
        };
        Hits { resident, rate: classes::interpolate(curve, resident), locality: engine.locality }
    })
}

fn misses(machine: &Machine, model: &Model, hits: Hits, engine: Engine) -> Result<Part, Unknown> {
    let (drive, rate) = machine.drive().ok_or(Unknown::Drive)?;
    let share = if engine.direct_reads { classes::SHARE_DIRECT } else { classes::SHARE_PAGED };
    let bytes = model.routed_per_token as f64 * (1.0 - hits.rate);
    let how = if drive.measured_here { "as measured here" } else { "of the drive" };
    let rate = Rate::share(share, rate, how);
    let formula = format!(
        "{} x {:.0} % missed / ({})",
        units::gigabytes(model.routed_per_token as f64),
        (1.0 - hits.rate) * 100.0,
        rate.formula
    );
    Ok(Part { formula, ..rate.part(What::Drive, bytes as u64) })
}

fn layers(machine: &Machine, class: Class, model: &Model, engine: Engine) -> Part {
    let here = matches!(class, Class::Measured | Class::Drive) && machine.memory.measured_here;
    let (each, how) = match (class, machine.processor.join_seconds.filter(|_| here)) {
        (_, Some(join)) => {
            let how = format!(
                " ({} joins of {:.0} us as measured here, and {:.0} us)",
                classes::JOINS_PER_LAYER,
                join * 1e6,
                classes::LAYER_ALONE * 1e6
            );
            (classes::JOINS_PER_LAYER * join + classes::LAYER_ALONE, how)
        }
        (class, None) => (layer_of(class, machine, engine), String::new()),
    };
    let formula = format!("{} layers x {:.2} ms{how}", model.layers, each * 1e3);
    Part { what: What::Layers, bytes: 0, seconds: model.layers as f64 * each, formula }
}

/// Seconds that a layer costs besides its bytes in published runtimes.
fn layer_of(class: Class, machine: &Machine, engine: Engine) -> f64 {
    match class {
        Class::JoinedCards if engine.runtime == Runtime::Early => classes::LAYER_JOINED_EARLY,
        Class::JoinedCards if machine.gpu_count() > classes::JOINED_MAX => {
            classes::LAYER_JOINED_FAR
        }
        Class::JoinedCards => classes::LAYER_JOINED,
        Class::Processor | Class::Arm | Class::Sockets | Class::Drive | Class::Early => {
            classes::LAYER_PROCESSOR
        }
        Class::Measured => classes::LAYER_MEASURED,
        Class::Hybrid => classes::LAYER_HYBRID,
        Class::Cards | Class::Unified | Class::Network => classes::LAYER_CARDS,
    }
}

/// Seconds that each token in the cache costs, and their formula.
fn attention(
    machine: &Machine,
    model: &Model,
    cards: &Cards,
    on_cards: bool,
    assumed: &mut Vec<String>,
) -> (f64, String) {
    let (rate, of) = if on_cards {
        let filled = (model.heads as f64 / classes::CARD_HEADS).min(1.0);
        (cards.attention * filled, "the graphics card")
    } else if let Some(measured) = machine.processor.attention_flops {
        (measured * classes::SHARE_ATTENTION, "this processor, as measured")
    } else {
        let core = core(machine, assumed);
        let cores = f64::from(machine.processor.cores().unwrap_or(CORES_ASSUMED));
        ((core.attention * cores).min(core.attention_max), "the processor")
    };
    let formula = format!(
        "{:.1} million operations per token in the cache / {:.2} teraflops of {of}",
        model.attention_flops / 1e6,
        rate / 1e12
    );
    (model.attention_flops / rate, formula)
}

/// Memory channels of a machine of which only the speed of its memory is known.
const CHANNELS_ASSUMED: u32 = 2;
/// Cores of a processor of which nothing is known.
const CORES_ASSUMED: u32 = 16;

fn core(machine: &Machine, assumed: &mut Vec<String>) -> Core {
    let instructions = instructions(machine);
    if machine.processor.cores().is_none() {
        assumed.push(format!("{CORES_ASSUMED} cores"));
    }
    Core::of(instructions.unwrap_or(Instructions::Avx2))
}

/// Seconds of a token of a prompt, and their formula: the faster one of computing where experts lie
/// and of sending them to a card.
fn prompt(
    machine: &Machine,
    model: &Model,
    fit: &Fit,
    cards: &Cards,
    class: Class,
) -> (f64, String) {
    let products = (model.routed_products + model.dense_products) as f64;
    let rate = match machine.processor.products_per_second {
        Some(measured) => measured * classes::SHARE_PRODUCTS,
        None => {
            let core = core(machine, &mut Vec::new());
            let cores = f64::from(machine.processor.cores().unwrap_or(CORES_ASSUMED));
            (core.products * cores).min(core.products_max)
        }
    };
    let of = |rate: f64| {
        format!("{:.1} billion products / {:.2} trillion per second", products / 1e9, rate / 1e12)
    };
    let mut best = (products / rate, of(rate));
    if fit.dense_in == Tier::Vram {
        let rate = match class {
            Class::JoinedCards => classes::JOINED_PRODUCTS * cards.count,
            _ => classes::CARD_PRODUCTS * cards.rate / classes::CARD_PRODUCTS_AT,
        };
        let elsewhere = (fit.routed_ram + fit.routed_disk) as f64;
        let batch = 2048.0;
        let seconds = products / rate + elsewhere / classes::PCIE / batch;
        if seconds < best.0 || elsewhere == 0.0 {
            let sent =
                format!(", and {} over PCIe for each {batch} tokens", units::gigabytes(elsewhere));
            best = (seconds, of(rate) + if elsewhere > 0.0 { &sent } else { "" });
        }
    }
    if let (true, Some((_, drive))) = (fit.routed_disk > 0, machine.drive()) {
        let sweep =
            fit.routed_disk as f64 / (drive * classes::SHARE_DIRECT) / fit.micro_batch as f64;
        let each = units::gigabytes(fit.routed_disk as f64);
        best = (
            best.0.max(sweep),
            format!("{}, or {each} from the drive for each {} tokens", best.1, fit.micro_batch),
        );
    }
    best
}

/// Reading at the drive's rate all that is to be in memory.
fn load(machine: &Machine, model: &Model, fit: &Fit) -> Option<f64> {
    let (_, rate) = machine.drive()?;
    let bytes = match fit.mode {
        Mode::Resident => model.size,
        Mode::Streamed { .. } => model.dense,
    };
    Some(bytes as f64 / (rate * classes::SHARE_DIRECT))
}
