//! Graphics cards, all of them together.

use super::memory::Rate;
use super::{Part, Split, Unknown, What};
use crate::constants::Constants;
use crate::machine::{Gpu, Machine};

/// All graphics cards of a machine.
pub(super) struct Cards {
    /// Bytes per second of one card: of several kinds, as if each had its share of the layers.
    pub(super) rate: f64,
    /// Operations of attention per second, likewise.
    attention: f64,
    pub(super) count: f64,
    /// Whether their memory is the main memory.
    pub(super) is_unified: bool,
}

impl Cards {
    pub(super) fn of(machine: &Machine, constants: &Constants) -> Result<Self, Unknown> {
        let (mut bytes, mut seconds, mut attention, mut count) = (0.0, 0.0, 0.0, 0.0);
        for gpu in &machine.gpus {
            let rate = gpu.bytes_per_second.filter(|rate| *rate > 0.0);
            let rate = rate.ok_or_else(|| Unknown::Gpu(gpu.name.clone()))?;
            let memory = gpu.memory_bytes as f64 * f64::from(gpu.count);
            bytes += memory;
            seconds += memory / rate;
            attention += memory / attention_of(gpu, rate, constants);
            count += f64::from(gpu.count);
        }
        let is_unified = machine.unified().is_some();
        Ok(Self { rate: bytes / seconds, attention: bytes / attention, count, is_unified })
    }

    /// Seconds and formula of `dense` and `routed` bytes that a token reads from the cards.
    pub(super) fn part(&self, split: Split, (dense, routed): (u64, u64), k: &Constants) -> Part {
        let together = if split == Split::Tensor { self.count } else { 1.0 };
        let what = match split {
            Split::Tensor => format!("of {} cards together", self.count),
            Split::Layers if self.count > 1.0 => "of one card after the other".to_owned(),
            Split::Layers => "by data sheet".to_owned(),
        };
        let rate = |share| Rate::share(share, self.rate * together, &what);
        let (of_dense, of_routed) = match split {
            _ if self.is_unified => (k.share_unified, k.share_unified),
            Split::Tensor => (k.share_vram, k.share_vram),
            Split::Layers => (k.share_vram, k.share_vram_routed),
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

    /// Bytes per second of a cache in graphics memory.
    pub(super) fn rate_of_cache(&self, k: &Constants) -> Rate {
        Rate::share(
            if self.is_unified { k.share_unified } else { k.share_vram },
            self.rate,
            "of a card",
        )
    }

    /// Operations of attention per second: cards that share each layer share its heads.
    pub(super) fn attention(&self, split: Split) -> f64 {
        if split == Split::Tensor { self.attention * self.count } else { self.attention }
    }
}

fn attention_of(gpu: &Gpu, rate: f64, constants: &Constants) -> f64 {
    gpu.attention_flops.unwrap_or(rate * constants.attention_card)
}
