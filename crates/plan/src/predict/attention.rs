//! What each token in the KV cache adds to the time of a new one.

use super::cards::Cards;
use super::memory::Rate;
use super::{RuntimeProfile, SoftwareAge, Split};
use crate::classes::{self, Core};
use crate::constants::Constants;
use crate::machine::Machine;
use crate::model::ModelFacts;
use crate::processors::Instructions;

/// Cores of a processor of which nothing is known.
pub(super) const CORES_ASSUMED: u32 = 16;

/// Seconds that each token in the cache costs, and their formula.
pub(super) fn attention(
    machine: &Machine,
    model: &ModelFacts,
    cards: &Cards,
    split: Option<Split>,
    constants: &Constants,
    assumed: &mut Vec<String>,
) -> (f64, String) {
    let (rate, of) = if let Some(split) = split {
        let filled = (model.heads as f64 / classes::CARD_HEADS).min(1.0);
        (cards.attention(split) * filled, "the graphics card")
    } else if let Some(measured) = machine.processor.attention_flops {
        (measured * classes::SHARE_ATTENTION, "this processor, as measured")
    } else {
        let core = core(machine, constants, assumed);
        let cores = f64::from(machine.processor.cores().unwrap_or(CORES_ASSUMED));
        ((core.attention * cores).min(constants.attention_max), "the processor")
    };
    let formula = format!(
        "{:.1} million operations per token in the cache / {:.2} teraflops of {of}",
        model.attention_flops / 1e6,
        rate / 1e12
    );
    (model.attention_flops / rate, formula)
}

/// The same of software that caches keys and values of all heads, which are read once per token.
pub(super) fn expanded(model: &ModelFacts, memory: &Rate) -> (f64, String) {
    let seconds = model.cache_expanded as f64 / memory.bytes_per_second;
    let formula = format!(
        "{:.1} MB of keys and values of all heads / ({})",
        model.cache_expanded as f64 / 1e6,
        memory.formula
    );
    (seconds, formula)
}

/// Whether this software caches keys and values of all heads.
pub(super) fn is_expanded(profile: RuntimeProfile, joined: bool) -> bool {
    // Runtimes for servers kept a latent cache from the first day.
    profile.age == SoftwareAge::Early && !joined
}

pub(super) fn core(machine: &Machine, constants: &Constants, assumed: &mut Vec<String>) -> Core {
    let instructions = instructions(machine);
    if machine.processor.cores().is_none() {
        assumed.push(format!("{CORES_ASSUMED} cores"));
    }
    Core::of(instructions.unwrap_or(Instructions::Avx2), constants)
}

/// The vectors of a machine's processor, by its name or by what it says it can.
pub(super) fn instructions(machine: &Machine) -> Option<Instructions> {
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
    let is_apple = || machine.processor.name.as_ref().is_some_and(|name| name.starts_with("Apple"));
    let platform = machine.processor.platform().map(|platform| platform.instructions);
    platform.or_else(by_features).or_else(|| is_apple().then_some(Instructions::Neon))
}
