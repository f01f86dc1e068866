//! What a layer costs besides its bytes: synchronizing threads, launching kernels, waiting for cards.

use super::{Part, RuntimeProfile, SoftwareAge, What};
use crate::classes::{self, Class};
use crate::machine::Machine;
use crate::model::ModelFacts;

pub(super) fn layers(
    machine: &Machine,
    class: Class,
    model: &ModelFacts,
    profile: RuntimeProfile,
) -> Part {
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
        (class, None) => (layer_of(class, machine, profile), String::new()),
    };
    let formula = format!("{} layers x {:.2} ms{how}", model.layers, each * 1e3);
    Part { what: What::Layers, bytes: 0, seconds: model.layers as f64 * each, formula }
}

/// Seconds that a layer costs besides its bytes in published runtimes.
pub(super) fn layer_of(class: Class, machine: &Machine, profile: RuntimeProfile) -> f64 {
    match class {
        Class::JoinedCards if profile.age == SoftwareAge::Early => classes::LAYER_JOINED_EARLY,
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
