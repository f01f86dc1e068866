//! Facts about models and machines, turned into what a person wants to know before running one: does
//! it run, how, and how fast?
//!
//! ```text
//! header -> Demand -> Model   \                       what lies where    how fast
//!                               plan: Room -> fit -> Fit -> predict -> Prediction -> explain, upgrade
//! probe, words, JSON -> Machine /
//! ```
//!
//! All of it is pure functions of facts, so that each number can be tested and explained, but for
//! `probe`, which looks at this machine.
#![forbid(unsafe_code)]

pub mod catalogue;
pub mod classes;
pub mod demand;
pub mod describe;
pub mod explain;
pub mod fit;
pub mod gpus;
pub mod identity;
pub mod machine;
pub mod model;
pub mod predict;
pub mod presets;
pub mod probe;
pub mod processors;
pub mod shape;
pub mod units;
pub mod upgrade;

pub use cachalot_gguf::KvType;
pub use classes::Class;
pub use demand::{Cache, Demand, Group};
pub use fit::{Fit, Misfit, Mode, Room, Stream, Tier, Wish};
pub use identity::{Identity, Kind};
pub use machine::Machine;
pub use model::Model;
pub use predict::{Calibration, Engine, Locality, Prediction, Range, Runtime, Unknown};
pub use shape::Shape;

/// A model in its places on a machine, and how fast it will be there.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Plan {
    /// What lies where.
    pub fit: Fit,
    /// How fast that is.
    pub prediction: Prediction,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// There is no place for the model.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// Something that the speed depends on is not known.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// A machine was described in words that mean nothing.
    #[error(transparent)]
    Describe(#[from] describe::DescribeError),
}

/// Places a model on a machine, and predicts its speed.
///
/// # Errors
/// If it does not fit, or the speed of something that is needed is not known.
pub fn plan(machine: &Machine, model: &Model, wish: Wish, engine: Engine) -> Result<Plan, Error> {
    let fit = fit::fit(model, Room::of(machine), wish)?;
    let prediction = predict::predict(machine, model, &fit, engine)?;
    Ok(Plan { fit, prediction })
}
