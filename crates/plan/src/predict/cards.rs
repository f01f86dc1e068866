//! Graphics cards, all of them together.

use super::Unknown;
use super::memory::Rate;
use crate::classes::{self, Class};
use crate::machine::{Gpu, Machine};

/// All graphics cards together.
pub(super) struct Cards {
    /// Bytes per second of one card: of several kinds, as if each had its share of the layers.
    pub(super) rate: f64,
    /// Operations of attention per second, likewise.
    pub(super) attention: f64,
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

    pub(super) fn rate(&self, class: Class) -> Rate {
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

pub(super) fn attention_of(gpu: &Gpu, rate: f64) -> f64 {
    gpu.attention_flops.unwrap_or(rate * classes::CARD_ATTENTION_PER_BYTE)
}
