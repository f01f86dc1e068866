//! Prefill: tokens of a prompt, computed many at a time.

use super::RuntimeProfile;
use super::attention::{CORES_ASSUMED, core};
use super::cards::Cards;
use super::drive;
use crate::classes::{self, Class};
use crate::constants::Constants;
use crate::fit::{MemoryTier, Placement};
use crate::machine::Machine;
use crate::model::ModelFacts;
use crate::units;

/// Seconds of a token of a prompt, and their formula: the faster one of computing where experts lie
/// and of sending them to a card.
pub(super) fn prompt(
    machine: &Machine,
    model: &ModelFacts,
    fit: &Placement,
    cards: &Cards,
    class: Class,
    profile: RuntimeProfile,
    constants: &Constants,
) -> (f64, String) {
    let products = (model.routed_products + model.dense_products) as f64;
    let rate = match machine.processor.products_per_second {
        Some(measured) => measured * classes::SHARE_PRODUCTS,
        None => {
            let core = core(machine, constants, &mut Vec::new());
            let cores = f64::from(machine.processor.cores().unwrap_or(CORES_ASSUMED));
            (core.products * cores).min(constants.products_max)
        }
    };
    let of = |rate: f64| {
        format!("{:.1} billion products / {:.2} trillion per second", products / 1e9, rate / 1e12)
    };
    let mut best = (products / rate, of(rate));
    if fit.dense_in == MemoryTier::Vram {
        let rate = match class {
            Class::JoinedCards => constants.products_joined * cards.rate * cards.count,
            _ if cards.is_unified => constants.products_unified * cards.rate,
            _ => constants.products_card * cards.rate,
        };
        let elsewhere = (fit.routed_ram + fit.routed_disk) as f64;
        let batch = fit.micro_batch.max(1) as f64;
        let seconds = products / rate + elsewhere / constants.pcie / batch;
        if seconds < best.0 || elsewhere == 0.0 {
            let sent =
                format!(", and {} over PCIe for each {batch} tokens", units::gigabytes(elsewhere));
            best = (seconds, of(rate) + if elsewhere > 0.0 { &sent } else { "" });
        }
    }
    if let (true, Some((_, rate))) = (fit.routed_disk > 0, machine.drive()) {
        let sweep = fit.routed_disk as f64
            / (rate * drive::share(profile, constants))
            / fit.micro_batch as f64;
        let each = units::gigabytes(fit.routed_disk as f64);
        best = (
            best.0.max(sweep),
            format!("{}, or {each} from the drive for each {} tokens", best.1, fit.micro_batch),
        );
    }
    best
}
