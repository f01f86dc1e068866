//! Answers, from facts about a model and a machine, what a person wants to know before running it:
//! does it run, how, and how fast?
//!
//! ```text
//! header      -> Demand -> ModelFacts \
//!                                       fit -> Placement -> predict -> Prediction
//! words, JSON ->           Machine    /                                 -> explain, upgrade
//! ```
//!
//! Everything here is a pure function of facts, so that each number can be tested and explained.
//! Facts of this machine come from `cachalot-probe`.
#![forbid(unsafe_code)]

pub mod buffers;
pub mod catalogue;
pub mod classes;
pub mod constants;
pub mod demand;
pub mod describe;
pub mod explain;
pub mod fit;
pub mod gpus;
pub mod identity;
pub mod layout;
pub mod machine;
pub mod model;
pub mod predict;
pub mod presets;
pub mod processors;
pub mod shape;
pub mod understood;
pub mod units;
pub mod upgrade;

pub use cachalot_gguf::KvType;
pub use classes::Class;
pub use constants::Constants;
pub use demand::{Cache, Demand, TensorGroup};
pub use fit::{
    BudgetOrigin, Constraints, MemoryBudget, MemoryTier, Mode, Placement, PlacementError, Stream,
};
pub use identity::{Identity, Kind};
pub use layout::{Devices, Layout};
pub use machine::Machine;
pub use model::ModelFacts;
pub use predict::{
    Calibration, Prediction, RateRange, RoutingSkew, RuntimeProfile, SoftwareAge, Unknown,
};
pub use shape::Shape;

/// Where a model is placed on a machine, and how fast it will be there.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Plan {
    /// Which memory holds what.
    pub fit: Placement,
    /// Predicted rates.
    pub prediction: Prediction,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The model does not fit.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// A fact that the speed depends on is missing.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// The description of a machine cannot be read.
    #[error(transparent)]
    Describe(#[from] describe::DescribeError),
}

/// Places a model on a machine, and predicts its speed.
///
/// # Errors
/// If it does not fit, or a fact that the speed depends on is missing.
pub fn plan(
    machine: &Machine,
    model: &ModelFacts,
    constraints: Constraints,
    profile: RuntimeProfile,
) -> Result<Plan, Error> {
    if let Some(question) = machine.questions.first() {
        return Err(Unknown::Unsaid(question.clone()).into());
    }
    if machine.machines() > 1 {
        let link = machine.links.first().ok_or_else(|| Unknown::Unsaid(NO_LINK.to_owned()))?;
        // As many of the machines as is best: more of them are never slower than fewer.
        let counts = (1..=machine.machines().min(MACHINES_MAX)).chain([machine.machines()]);
        let plans: Vec<Result<Plan, Error>> = counts
            .map(|count| {
                let some = Machine { machines: Some(count), ..machine.clone() };
                let all = predict::merged(&some);
                let Plan { fit, prediction } = best_of_cards(&all, model, constraints, profile)?;
                let prediction = match count {
                    1 => prediction,
                    _ => predict::over(prediction, &some, link, model, profile, &Constants::FITTED),
                };
                Ok(Plan { fit, prediction })
            })
            .collect();
        let rate = |plan: &Plan| plan.prediction.decode(DEPTH).likely;
        let mut plans = plans.into_iter();
        let all = plans
            .next_back()
            .unwrap_or_else(|| best_of_cards(machine, model, constraints, profile));
        let best = plans.flatten().max_by(|a, b| rate(a).total_cmp(&rate(b)));
        return match (all, best) {
            (Ok(all), Some(best)) if rate(&best) <= rate(&all) => Ok(all),
            (_, Some(best)) => Ok(best),
            (all, None) => all,
        };
    }
    best_of_cards(machine, model, constraints, profile)
}

const NO_LINK: &str =
    "the network between the machines is not said: add it, as in `10gbe` or `thunderbolt`";

/// Uses as many of the graphics cards as is best: more of them are never slower than fewer.
fn best_of_cards(
    machine: &Machine,
    model: &ModelFacts,
    constraints: Constraints,
    profile: RuntimeProfile,
) -> Result<Plan, Error> {
    let all = on_cards(machine, model, constraints, profile);
    let count = machine.gpu_count();
    if count == 0
        || machine.unified().is_some()
        || matches!(all, Err(Error::Unknown(Unknown::Gpu(_))))
    {
        return all;
    }
    let fewer = (0..count.min(CARDS_MAX)).filter_map(|used| {
        let mut fewer = machine.clone();
        let mut left = used;
        for gpu in &mut fewer.gpus {
            gpu.count = gpu.count.min(left);
            left -= gpu.count;
        }
        fewer.gpus.retain(|gpu| gpu.count > 0);
        on_cards(&fewer, model, constraints, profile).ok()
    });
    let rate = |plan: &Plan| plan.prediction.decode(DEPTH).likely;
    let best = fewer.max_by(|a, b| rate(a).total_cmp(&rate(b)));
    match (all, best) {
        (Ok(all), Some(best)) => Ok(if rate(&best) > rate(&all) { best } else { all }),
        (Err(_), Some(best)) => Ok(best),
        (all, None) => all,
    }
}

/// Most machines of which fewer are considered.
const MACHINES_MAX: u32 = 8;
/// Most cards of which fewer are considered.
const CARDS_MAX: u32 = 16;
/// Depth at which plans are compared, in tokens.
const DEPTH: u64 = 4096;

fn on_cards(
    machine: &Machine,
    model: &ModelFacts,
    constraints: Constraints,
    profile: RuntimeProfile,
) -> Result<Plan, Error> {
    let fit = fit::fit(model, MemoryBudget::of(machine, constraints.memory), constraints);
    // Only what graphics memory does not hold needs main memory.
    let is_unsaid = machine.memory.usable().is_none() && constraints.memory.is_none();
    let fit = match fit {
        Err(_) if is_unsaid => return Err(Unknown::Memory(machine.memory.sizes.clone()).into()),
        fit => fit?,
    };
    let prediction = predict::predict(machine, model, &fit, profile)?;
    Ok(Plan { fit, prediction })
}
