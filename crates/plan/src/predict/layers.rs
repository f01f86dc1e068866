//! What a layer costs besides its bytes: synchronizing threads, launching kernels, waiting for
//! cards.

use super::{Part, RuntimeProfile, SoftwareAge, Split, What};
use crate::classes::{self, Class};
use crate::constants::Constants;
use crate::machine::Machine;
use crate::model::ModelFacts;

/// `on_cards` is the fraction of the routed experts in graphics memory.
pub(super) fn layers(
    machine: &Machine,
    class: Class,
    split: Split,
    model: &ModelFacts,
    on_cards: f64,
    profile: RuntimeProfile,
    constants: &Constants,
) -> Part {
    let here = matches!(class, Class::Measured | Class::Drive) && machine.memory.measured_here;
    let (each, how) = match (class, machine.processor.join_seconds.filter(|_| here)) {
        (_, Some(join)) => {
            let numbers = model.hidden as f64 * classes::LAYER_ALONE_PER_NUMBER;
            let alone = classes::LAYER_ALONE + numbers;
            let how = format!(
                " ({} joins of {:.1} us as measured here, and {:.0} us)",
                classes::JOINS_PER_LAYER,
                join * 1e6,
                alone * 1e6
            );
            (classes::JOINS_PER_LAYER * join + alone, how)
        }
        (Class::Hybrid | Class::Sockets | Class::Drive, None) if on_cards > 0.0 => {
            // Layers whose experts are on a card do not wait for the processor.
            let whole = constants.layer_hybrid.max(constants.layer_cards);
            (whole + on_cards * (constants.layer_cards - whole), String::new())
        }
        (class, None) => (layer_of(class, split, machine, profile, constants), String::new()),
    };
    let formula = format!("{} layers x {:.2} ms{how}", model.layers, each * 1e3);
    Part { what: What::Layers, bytes: 0, seconds: model.layers as f64 * each, formula }
}

/// Seconds that a layer costs besides its bytes in published runtimes.
fn layer_of(
    class: Class,
    split: Split,
    machine: &Machine,
    profile: RuntimeProfile,
    constants: &Constants,
) -> f64 {
    match class {
        Class::Early if !machine.gpus.is_empty() => constants.layer_cards_early,
        Class::Cards if split == Split::Tensor => constants.layer_pcie,
        Class::JoinedCards if profile.age == SoftwareAge::Early => classes::LAYER_JOINED_EARLY,
        Class::JoinedCards if machine.gpu_count() > classes::JOINED_MAX => {
            classes::LAYER_JOINED_FAR
        }
        Class::JoinedCards => constants.layer_joined,
        Class::Processor | Class::Arm | Class::Sockets | Class::Drive | Class::Early => {
            constants.layer_processor
        }
        Class::Measured => classes::LAYER_MEASURED,
        Class::Hybrid => constants.layer_hybrid,
        Class::Cards | Class::Unified | Class::Network => constants.layer_cards,
    }
}
