//! Classes of hardware with the ranges of their predictions, and constants that are known or were
//! measured with this program. Those fitted to published measurements are in `constants.rs`.

use serde::Serialize;

use crate::constants::Constants;
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
    /// Any hardware under software of early 2025, without a latent cache or separate placement of
    /// experts.
    Early,
}

impl Class {
    /// What measured rates are of predicted ones: the narrowest range that holds four of five rows
    /// of a machine that had no part in it, nor in the constants. `tests/measurements.rs` finds it,
    /// and prints how many rows and machines it is from.
    pub fn spread(self) -> (f64, f64) {
        match self {
            Self::Measured => (0.80, 1.15),
            Self::Processor => (0.652, 1.322),
            // Of one machine: as wide as that of processors, and lower.
            Self::Arm => (0.55, 1.20),
            Self::Hybrid => (0.857, 1.333),
            Self::Sockets => (0.786, 1.557),
            Self::Drive => (0.664, 1.311),
            Self::Cards => (0.516, 2.278),
            // Of two machines: from runtimes that are not tuned to those that let layers overlap.
            Self::JoinedCards => (0.55, 1.60),
            // Of one machine, the M3 Ultra: as wide as that of several of them.
            Self::Unified => (0.459, 1.408),
            Self::Network => (0.459, 1.408),
            Self::Early => (0.508, 1.269),
        }
    }

    /// The same of prefill rates.
    pub fn prompt_spread(self) -> (f64, f64) {
        match self {
            Self::Processor => (0.613, 2.225),
            Self::Hybrid => (0.685, 2.084),
            Self::Sockets => (0.610, 1.380),
            Self::Cards => (0.366, 8.45),
            Self::Early => (0.179, 1.825),
            // Prompts of a few tokens read as many experts as long ones.
            Self::Drive => (0.05, 1.0),
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
            Self::Early => "software of early 2025",
        }
    }
}

/// What a run is of earlier ones of the same model on the same machine.
pub(crate) const SPREAD_OF_RUNS: (f64, f64) = (0.85, 1.15);
/// Where channels and speed of memory are assumed to be the best that the platform has, many
/// machines have less: the lower end of the range is so much lower.
pub(crate) const ASSUMED_MEMORY: f64 = 0.7;
/// Of a bandwidth that this program measured with the threads and instructions that it decodes
/// with.
pub(crate) const SHARE_MEASURED: f64 = 0.80;
/// Of the rate at which this program was measured to multiply weights of a format with one input,
/// what decoding reaches with matrices of many shapes.
pub(crate) const SHARE_KERNELS: f64 = 0.90;
/// The same of attention.
pub(crate) const SHARE_ATTENTION: f64 = 0.90;
/// The same by this program, which reads whole experts past the page cache.
pub(crate) const SHARE_DIRECT: f64 = 0.88;
/// Of the shorter one of reading and computing, what is not hidden behind the other.
pub(crate) const EXPOSED: f64 = 0.3;

/// The same in runtimes of the first weeks after R1.
pub(crate) const LAYER_JOINED_EARLY: f64 = 450e-6;
/// The same in current ones, with cards in several machines.
pub(crate) const LAYER_JOINED_FAR: f64 = 420e-6;
/// Cards that one machine has, joined.
pub(crate) const JOINED_MAX: u32 = 8;
/// Joins of threads that a layer with experts takes in this program.
pub(crate) const JOINS_PER_LAYER: f64 = 10.0;
/// Seconds of what one thread does alone in a layer: norms, rotations, the choice of experts; and
/// of it, for each number of a hidden row. Together 60 us with R1's 7168 of them.
pub(crate) const LAYER_ALONE: f64 = 10e-6;
pub(crate) const LAYER_ALONE_PER_NUMBER: f64 = 7e-9;
/// See [`LAYER_PROCESSOR`]: this program, where nobody measured what a join takes.
pub(crate) const LAYER_MEASURED: f64 = 105e-6;

/// Bytes per second that a core reads at best: as many cache lines as it can wait for, per latency
/// of memory.
pub(crate) const CORE_READS: f64 = 20e9;
/// Bytes per second.
pub(crate) const SOCKET_SLOW: f64 = 100e9;

/// Of the experts of a layer, those among which text chooses as if evenly: 8 sequences that use 8
/// of 256 experts each read about 49 of them.
pub(crate) const EXPERTS_EVEN: f64 = 0.41;

/// Heads that fill the units of a card, as R1 has them: all heads share one latent, and fewer of
/// them leave some units without work.
pub(crate) const CARD_HEADS: f64 = 128.0;
/// Of the measured rate of products, what prompts reach.
pub(crate) const SHARE_PRODUCTS: f64 = 0.3;
/// Prompts vary more than decoding: published rates within this factor.
pub(crate) const PROMPT_SPREAD: f64 = 1.8;

/// What a core does per second in published runtimes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Core {
    /// Operations of attention in decoding.
    pub(crate) attention: f64,
    /// Products of weights in prompts.
    pub(crate) products: f64,
}

impl Core {
    pub(crate) fn of(instructions: Instructions, k: &Constants) -> Self {
        let (attention, products) = match instructions {
            Instructions::Neon => (k.attention_neon, k.products_neon),
            Instructions::Avx2 => (k.attention_avx2, k.products_avx2),
            Instructions::Avx512 => (k.attention_avx512, k.products_avx512),
            Instructions::AvxVnni => (k.attention_avx_vnni, k.products_avx_vnni),
            Instructions::Avx512Vnni => (k.attention_avx512_vnni, k.products_avx512_vnni),
        };
        Self { attention, products }
    }
}

/// Shares of routed experts that are in memory, and how often the expert that a token wants is
/// among them: measured with models of 256 experts and caches that keep what is used often, over
/// text of changing topics.
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
