//! Several machines: the model split over them, and what their network costs.
//!
//! Two ways, of which the better is taken. As a pipeline each machine has some layers, so that a
//! token takes as long as on one machine with all of the memory, and one message per machine.
//! Sliced, each machine has a part of every matrix and reads its part at the same time, and each
//! layer adds up two vectors of hidden length, in f16, over all machines.

use super::{Part, Prediction, RuntimeProfile, What};
use crate::classes::Class;
use crate::constants::Constants;
use crate::machine::{Link, Machine};
use crate::model::ModelFacts;
use crate::units;

/// Sums over all machines in each layer: after attention and after the experts.
const SUMS_PER_LAYER: f64 = 2.0;
/// Matrices of experts are sliced into at most this many parts; more machines form a pipeline of
/// groups.
const SLICES_MAX: u32 = 8;
/// Seconds of a message over Ethernet, by its bits per second: user-space TCP.
const LATENCIES: [(u64, f64); 4] =
    [(1_500_000_000, 75e-6), (5_000_000_000, 60e-6), (15_000_000_000, 30e-6), (u64::MAX, 20e-6)];

impl Link {
    /// Seconds of a message of this length in bytes.
    pub fn message_seconds(&self, bytes: f64) -> f64 {
        let by_speed = LATENCIES.iter().find(|(most, _)| self.bits_per_second <= *most);
        let latency = self.latency_seconds.or(by_speed.map(|(_, seconds)| *seconds));
        latency.unwrap_or_default() + bytes * 8.0 / self.bits_per_second.max(1) as f64
    }
}

/// All machines as one, with the memory of all and the rates of one: what a pipeline is.
pub(crate) fn merged(machine: &Machine) -> Machine {
    let count = machine.machines();
    let mut merged = machine.clone();
    let times = |bytes: Option<u64>| bytes.map(|bytes| bytes.saturating_mul(count.into()));
    merged.memory.total_bytes = times(machine.memory.total_bytes);
    merged.memory.available_bytes = times(machine.memory.available_bytes);
    for gpu in &mut merged.gpus {
        gpu.count = gpu.count.saturating_mul(count);
    }
    merged
}

/// A prediction for one machine with all of the memory, as that of `machine.machines()` over
/// `link`.
pub fn over(
    prediction: Prediction,
    machine: &Machine,
    link: &Link,
    model: &ModelFacts,
    profile: RuntimeProfile,
    constants: &Constants,
) -> Prediction {
    let count = machine.machines();
    let vector = model.hidden as f64 * 2.0;
    let message = link.message_seconds(vector);
    let hops = f64::from(count);
    let network = |seconds: f64, formula: String| Part {
        what: What::Network,
        bytes: 0,
        seconds,
        formula: format!("{formula} over {} ({})", link.name, units::seconds(message)),
    };
    let class = if prediction.class == Class::Unified { Class::Network } else { prediction.class };
    let (low, high) = Class::Network.spread();
    let mut pipeline = Prediction { class, spread: (low, high), ..prediction };
    let mut sliced = pipeline.clone();
    let formula = format!("pipeline: {count} messages");
    pipeline.parts.push(network(hops * message, formula));

    let slices = f64::from(count.min(SLICES_MAX));
    for part in sliced.parts.iter_mut().filter(|part| part.what != What::Layers) {
        part.seconds /= slices;
    }
    sliced.attention_seconds /= slices;
    let sums = SUMS_PER_LAYER * model.layers as f64;
    let steps = slices.log2().ceil();
    let seconds = sums * (steps * message + constants.network_sync);
    let formula = format!("slices: {sums} sums x {steps} messages");
    sliced.parts.push(network(seconds, formula));
    if profile.tensor_split && sliced.seconds(super::HALFWAY) < pipeline.seconds(super::HALFWAY) {
        sliced
    } else {
        pipeline
    }
}
