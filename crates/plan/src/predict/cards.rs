//! Graphics cards, all of them together.

use super::memory::Rate;
use super::{Part, Split, Unknown, What};
use crate::classes::{self, Class};
use crate::machine::{Gpu, Machine};

/// All graphics cards of a machine.
pub(super) struct Cards {
    /// Bytes per second of one card: of several kinds, as if each had its share of the layers.
    pub(super) rate: f64,
    /// Operations of attention per second, likewise.
    attention: f64,
    pub(super) count: f64,
}

impl Cards {
    pub(super) fn of(machine: &Machine) -> Result<Self, Unknown> {
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

    /// Seconds and formula of `dense` and `routed` bytes that a token reads from the cards.
    pub(super) fn part(&self, class: Class, split: Split, dense: u64, routed: u64) -> Part {
        let together = if split == Split::Tensor { self.count } else { 1.0 };
        let what = match split {
            Split::Tensor => format!("of {} cards together", self.count),
            Split::Layers if self.count > 1.0 => "of one card after the other".to_owned(),
            Split::Layers => "by data sheet".to_owned(),
        };
        let rate = |share| Rate::share(share, self.rate * together, &what);
        let (of_dense, of_routed) = match (class, split) {
            (Class::Unified | Class::Network, _) => {
                (classes::SHARE_UNIFIED, classes::SHARE_UNIFIED)
            }
            (_, Split::Tensor) => (classes::SHARE_VRAM, classes::SHARE_VRAM),
            _ => (classes::SHARE_VRAM, classes::SHARE_VRAM_ROUTED),
        };
        let dense = rate(of_dense).part(What::Vram, dense);
        if routed == 0 {
            return dense;
        }
        let routed = rate(of_routed).part(What::Vram, routed);
        Part {
            what: What::Vram,
            bytes: dense.bytes + routed.bytes,
            seconds: dense.seconds + routed.seconds,
            formula: format!("{} + {}", dense.formula, routed.formula),
        }
    }

    /// Operations of attention per second: cards that share each layer share its heads.
    pub(super) fn attention(&self, split: Split) -> f64 {
        if split == Split::Tensor { self.attention * self.count } else { self.attention }
    }
}

fn attention_of(gpu: &Gpu, rate: f64) -> f64 {
    gpu.attention_flops.unwrap_or(rate * classes::CARD_ATTENTION_PER_BYTE)
}
