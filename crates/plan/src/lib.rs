//! Answers, from facts about a model and a machine, what a person wants to know before running it:
//! does it run, how, and how fast?
//!
//! ```text
//! header      -> Demand -> ModelFacts \
//!                                       fit -> Placement -> predict -> Prediction -> explain, upgrade
//! words, JSON ->           Machine    /
//! ```
//!
//! Everything here is a pure function of facts, so that each number can be tested and explained.
//! Facts of this machine come from `cachalot-probe`.
#![forbid(unsafe_code)]

pub mod catalogue;
pub mod classes;
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
pub use demand::{Cache, Demand, TensorGroup};
pub use fit::{
    BudgetOrigin, Constraints, MemoryBudget, MemoryTier, Mode, Placement, PlacementError, Stream,
};
pub use identity::{Identity, Kind};
pub use layout::Layout;
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
