//! Classes of hardware, and the constants that were fitted for each.
//!
//! A constant belongs to a class, never to a machine, so that it holds for machines without
//! measurements. They were fitted to `tests/fixtures/measurements.csv`, published measurements of models
//! of R1's class; `tests/measurements.rs` computes every row again and prints what is left.

use serde::Serialize;

use crate::processors::Instructions;

/// What kind of hardware decoding depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// This program on a machine whose memory it has measured.
    Measured,
    /// One socket, no graphics card.
    Processor,
    /// One socket of ARM cores: hardly anything is published.
    Arm,
    /// One socket with experts, graphics cards with everything else.
    Hybrid,
    /// Two sockets or more, with or without cards.
    Sockets,
    /// Experts read from a drive.
    Drive,
    /// Everything in the memory of graphics cards, one layer after the other.
    Cards,
    /// Graphics cards that share the work of each layer over links of their own.
    JoinedCards,
    /// A processor and a graphics unit with one memory.
    Unified,
    /// Several such machines.
    Network,
    /// Any hardware under software that does not know such models.
    Early,
}

impl Class {
    /// What measured rates are of predicted ones: the quotients at 10 % and at 90 % of the rows of
    /// this class, with each machine predicted by constants that hold without it.
    pub fn spread(self) -> (f64, f64) {
        match self {
            Self::Measured => (0.80, 1.15),
            Self::Processor => (0.57, 1.25),
            // No constant was fitted: what is published reaches 0.6 of what others would.
            Self::Arm => (0.55, 1.20),
            Self::Hybrid => (0.70, 1.27),
            Self::Sockets => (0.60, 1.58),
            Self::Drive => (0.70, 1.35),
            Self::Cards => (0.46, 1.55),
            // From runtimes that are not tuned to those that let layers overlap.
            Self::JoinedCards => (0.50, 1.40),
            Self::Unified => (0.42, 1.45),
            Self::Network => (0.55, 1.30),
            Self::Early => (0.35, 2.60),
        }
    }

    /// The same of prefill rates.
    pub fn prompt_spread(self) -> (f64, f64) {
        match self {
            Self::Processor => (0.50, 2.0),
            Self::Hybrid => (0.33, 1.7),
            Self::Sockets => (0.60, 1.4),
            Self::Cards => (0.30, 2.5),
            _ => (1.0 / PROMPT_SPREAD, PROMPT_SPREAD),
        }
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Measured => "a machine measured by cachalot",
            Self::Processor => "one processor",
            Self::Arm => "one ARM processor",
            Self::Hybrid => "one processor with graphics cards",
            Self::Sockets => "several processors",
            Self::Drive => "experts on a drive",
            Self::Cards => "graphics cards, layer by layer",
            Self::JoinedCards => "graphics cards joined by fast links",
            Self::Unified => "unified memory",
            Self::Network => "several machines with unified memory",
            Self::Early => "software of January 2025",
        }
    }
}

/// What a run is of earlier ones of the same model on the same machine.
pub(crate) const SPREAD_OF_RUNS: (f64, f64) = (0.85, 1.15);
/// Where channels and speed of memory are assumed to be the best that the platform has, many machines have
/// less: the lower end of the range is so much lower.
pub(crate) const ASSUMED_MEMORY: f64 = 0.7;
/// Of the bandwidth that channels and speed promise, what decoding reaches: processor alone.
pub(crate) const SHARE_PROCESSOR: f64 = 0.54;
/// The same with at most two channels, which a few fast cores keep busy.
pub(crate) const SHARE_DESKTOP: f64 = 0.68;
/// The same where only routed experts are read, in turns with a graphics card.
pub(crate) const SHARE_HYBRID: f64 = 0.50;
/// Of a bandwidth that somebody measured with another program, or of what chiplets let through.
pub(crate) const SHARE_REPORTED: f64 = 0.88;
/// Of a bandwidth that this program measured with the threads and instructions that it decodes with.
pub(crate) const SHARE_MEASURED: f64 = 0.80;
/// Of the rate at which this program was measured to multiply weights of a format with one input, what
/// decoding reaches with matrices of many shapes.
pub(crate) const SHARE_KERNELS: f64 = 0.90;
/// The same of attention.
pub(crate) const SHARE_ATTENTION: f64 = 0.90;
/// Of a card's bandwidth by data sheet, where it works in turns with the processor.
pub(crate) const SHARE_VRAM: f64 = 0.70;
/// The same of routed experts, which are many small products.
pub(crate) const SHARE_VRAM_ROUTED: f64 = 0.45;
/// The same of memory that processor and graphics share.
pub(crate) const SHARE_UNIFIED: f64 = 0.60;
/// Of a drive's rate past the page cache, by programs that let the kernel page.
pub(crate) const SHARE_PAGED: f64 = 0.48;
/// The same by this program, which reads whole experts past the page cache.
pub(crate) const SHARE_DIRECT: f64 = 0.88;
/// Of the shorter one of reading and computing, what is not hidden behind the other.
pub(crate) const EXPOSED: f64 = 0.3;

/// Seconds that a layer costs besides its bytes: joining threads, handing over, launching.
pub(crate) const LAYER_PROCESSOR: f64 = 245e-6;
/// See [`LAYER_PROCESSOR`]: with the processor waiting for a card twice per layer.
pub(crate) const LAYER_HYBRID: f64 = 130e-6;
/// See [`LAYER_PROCESSOR`]: kernels launched on one card.
pub(crate) const LAYER_CARDS: f64 = 60e-6;
/// See [`LAYER_PROCESSOR`]: two sums over all cards, in runtimes of 2025 and later.
pub(crate) const LAYER_JOINED: f64 = 260e-6;
/// The same over PCIe: two sums per layer without links made for it.
pub(crate) const LAYER_PCIE: f64 = 230e-6;
/// The same in runtimes of the first weeks after R1.
pub(crate) const LAYER_JOINED_EARLY: f64 = 450e-6;
/// The same in current ones, with cards in several machines.
pub(crate) const LAYER_JOINED_FAR: f64 = 420e-6;
/// Cards that one machine has, joined.
pub(crate) const JOINED_MAX: u32 = 8;
/// Joins of threads that a layer with experts takes in this program.
pub(crate) const JOINS_PER_LAYER: f64 = 10.0;
/// Seconds of what one thread does alone in a layer: norms, rotations, the choice of experts.
pub(crate) const LAYER_ALONE: f64 = 60e-6;
/// See [`LAYER_PROCESSOR`]: this program, where nobody measured what a join takes.
pub(crate) const LAYER_MEASURED: f64 = 105e-6;

/// Two sockets over which the weights are spread read as much as so many single ones, if each has
/// more memory bandwidth than the links between them carry.
pub(crate) const SOCKETS_SPREAD: f64 = 0.8;
/// The same where the links keep up: sockets of at most [`SOCKET_SLOW`].
pub(crate) const SOCKETS_SPREAD_SLOW: f64 = 1.9;
/// Bytes per second.
pub(crate) const SOCKET_SLOW: f64 = 100e9;
/// The same where each socket has its own copy of the weights.
pub(crate) const SOCKETS_COPIED: f64 = 1.4;

/// Seconds that machines take, besides the network, to agree on a sum: from the rates of one, two and four
/// M3 Ultra over Thunderbolt 5 (github.com/exo-explore/exo).
pub(crate) const NETWORK_SYNC: f64 = 100e-6;
/// Of the experts of a layer, those among which text chooses as if evenly: 8 sequences that use 8 of 256
/// experts each read about 49 of them.
pub(crate) const EXPERTS_EVEN: f64 = 0.41;

/// Bytes per second and card over PCIe 4.0 x16, as measured for experts sent to a card.
pub(crate) const PCIE: f64 = 24e9;
/// Products per second of a card that reads 768 GB/s, in prompts.
pub(crate) const CARD_PRODUCTS: f64 = 22e12;
/// The same of chips whose GPU shares the main memory, which have less arithmetic for their bandwidth.
pub(crate) const UNIFIED_PRODUCTS: f64 = 6e12;
/// Bandwidth of that card.
pub(crate) const CARD_PRODUCTS_AT: f64 = 768e9;
/// Attention of a card nobody has measured: operations for each byte of its bandwidth.
pub(crate) const CARD_ATTENTION_PER_BYTE: f64 = 20.0;
/// Heads that fill the units of a card, as R1 has them: all heads share one latent, and fewer of them leave
/// some units without work.
pub(crate) const CARD_HEADS: f64 = 128.0;
/// Products per second of joined cards, each, in prompts.
pub(crate) const JOINED_PRODUCTS: f64 = 12e12;
/// A prompt's attention works on many tokens at once: so much faster than that of decoding.
pub(crate) const PROMPT_ATTENTION: f64 = 1.7;
/// The same on graphics cards, whose kernels for one token leave most of their units idle.
pub(crate) const PROMPT_ATTENTION_CARD: f64 = 5.0;
/// Of the measured rate of products, what prompts reach.
pub(crate) const SHARE_PRODUCTS: f64 = 0.3;
/// Prompts vary more than decoding: published rates within this factor.
pub(crate) const PROMPT_SPREAD: f64 = 1.8;

/// Software that keeps keys and values of all heads, or moves whole layers to cards, takes so many
/// times as long.
pub(crate) const EARLY: f64 = 2.3;

/// What a core does per second in published runtimes, and where more cores bring no more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Core {
    /// Operations of attention in decoding.
    pub(crate) attention: f64,
    /// The most of all cores.
    pub(crate) attention_max: f64,
    /// Products of weights in prompts.
    pub(crate) products: f64,
    /// The most of all cores.
    pub(crate) products_max: f64,
    /// Bytes of experts in a codebook format.
    pub(crate) codebook: f64,
    /// Bytes of experts in a trellis format.
    pub(crate) trellis: f64,
}

impl Core {
    pub(crate) fn of(instructions: Instructions) -> Self {
        let core = |attention, products, codebook, trellis| Self {
            attention,
            attention_max: 3.7e12,
            products,
            products_max: 4e12,
            codebook,
            trellis,
        };
        match instructions {
            Instructions::Neon => core(0.015e12, 0.010e12, 0.6e9, 1.5e9),
            Instructions::Avx2 => core(0.020e12, 0.020e12, 0.8e9, 2e9),
            Instructions::Avx512 => core(0.060e12, 0.030e12, 0.8e9, 3e9),
            Instructions::AvxVnni => core(0.050e12, 0.040e12, 1.7e9, 3e9),
            Instructions::Avx512Vnni => core(0.115e12, 0.080e12, 1.7e9, 4e9),
        }
    }
}

/// Shares of routed experts that are in memory, and how often the expert that a token wants is among
/// them: measured with models of 256 experts and caches that keep what is used often, over text of
/// changing topics.
pub(crate) const HITS_MEASURED: [(f64, f64); 10] = [
    (0.00, 0.00),
    (0.03, 0.15),
    (0.05, 0.26),
    (0.10, 0.46),
    (0.18, 0.60),
    (0.25, 0.70),
    (0.44, 0.84),
    (0.60, 0.91),
    (0.80, 0.965),
    (1.00, 1.00),
];

/// The same if every expert is as likely as any other, as with random weights.
pub(crate) const HITS_UNIFORM: [(f64, f64); 2] = [(0.0, 0.0), (1.0, 1.0)];

/// Between the points of a curve, straight lines.
pub(crate) fn interpolate(curve: &[(f64, f64)], x: f64) -> f64 {
    let after = curve.iter().position(|point| point.0 >= x).unwrap_or(curve.len() - 1);
    let (Some(low), high) = (after.checked_sub(1).map(|i| curve[i]), curve[after]) else {
        return curve[0].1;
    };
    let share = ((x - low.0) / (high.0 - low.0)).clamp(0.0, 1.0);
    low.1 + share * (high.1 - low.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_interpolated() {
        assert_eq!(interpolate(&HITS_MEASURED, 0.0), 0.0);
        assert_eq!(interpolate(&HITS_MEASURED, 0.10), 0.46);
        assert!((interpolate(&HITS_MEASURED, 0.14) - 0.53).abs() < 1e-9);
        assert_eq!(interpolate(&HITS_MEASURED, 1.0), 1.0);
        assert_eq!(interpolate(&HITS_MEASURED, 2.0), 1.0);
        assert_eq!(interpolate(&HITS_UNIFORM, 0.3), 0.3);
    }

    #[test]
    fn more_in_memory_never_hits_less() {
        for pair in HITS_MEASURED.windows(2) {
            assert!(pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        }
    }
}
