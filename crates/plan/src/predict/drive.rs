//! Experts that are not in memory: how often they are missed, what reading them takes, and how long
//! loading takes.

use super::memory::Rate;
use super::{Hits, Part, RoutingSkew, RuntimeProfile, Unknown, What};
use crate::classes;
use crate::constants::Constants;
use crate::fit::{Mode, Placement};
use crate::machine::Machine;
use crate::model::ModelFacts;
use crate::units;

pub(super) fn hits(model: &ModelFacts, fit: &Placement, profile: RuntimeProfile) -> Option<Hits> {
    matches!(fit.mode, Mode::Streamed { .. }).then(|| {
        let in_memory = fit.routed_vram + fit.routed_ram;
        let resident = in_memory as f64 / model.routed.max(1) as f64;
        let curve: &[(f64, f64)] = match profile.skew {
            RoutingSkew::Measured => &classes::HITS_MEASURED,
            RoutingSkew::Uniform => &classes::HITS_UNIFORM,
        };
        Hits { resident, rate: classes::interpolate(curve, resident), skew: profile.skew }
    })
}

pub(super) fn misses(
    machine: &Machine,
    model: &ModelFacts,
    hits: Hits,
    profile: RuntimeProfile,
    constants: &Constants,
) -> Result<Part, Unknown> {
    let (drive, rate) = machine.drive().ok_or(Unknown::Drive)?;
    let share = share(profile, constants);
    let bytes = model.routed_per_token as f64 * (1.0 - hits.rate);
    let how = if drive.measured_here { "as measured here" } else { "of the drive" };
    let rate = Rate::share(share, rate, how);
    let formula = format!(
        "{} x {:.0} % missed / ({})",
        units::gigabytes(model.routed_per_token as f64),
        (1.0 - hits.rate) * 100.0,
        rate.formula
    );
    Ok(Part { formula, ..rate.part(What::Drive, bytes as u64) })
}

/// Of the drive's rate, what reading experts reaches.
pub(super) fn share(profile: RuntimeProfile, constants: &Constants) -> f64 {
    if profile.direct_reads { classes::SHARE_DIRECT } else { constants.share_paged }
}

/// Reading at the drive's rate all that is to be in memory.
pub(super) fn load(machine: &Machine, model: &ModelFacts, fit: &Placement) -> Option<f64> {
    let (_, rate) = machine.drive()?;
    let bytes = match fit.mode {
        Mode::Resident => model.size,
        Mode::Streamed { .. } => model.dense,
    };
    Some(bytes as f64 / (rate * classes::SHARE_DIRECT))
}
