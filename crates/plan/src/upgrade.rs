//! What would help, and how much: each change is made to the facts, and the planner asked again.
//!
//! There are no prices here: they change by the month. Changes are of a few kinds, ordered by what
//! they usually cost, from settings that cost nothing to another machine, and the cheapest that
//! doubles the speed is the first of its kind that does; if none does alone, two together.

mod changes;
#[cfg(test)]
mod tests;

use serde::Serialize;

use self::changes::{Change, MEMORY_SIZES, State, changes};
use crate::fit::{Constraints, MemoryBudget};
use crate::machine::Machine;
use crate::model::ModelFacts;
use crate::plan;
use crate::predict::{Prediction, RateRange, RuntimeProfile};

/// What kind of change it is, in the order of usual cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effort {
    /// A flag.
    Setting,
    /// Another file.
    Download,
    /// A drive, or several.
    Drive,
    /// Memory modules.
    Memory,
    /// A graphics card.
    Card,
    /// Another machine, or another board and processor.
    Machine,
}

/// A change, and what it brings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Upgrade {
    /// In a few words.
    pub what: String,
    /// Its kind.
    pub effort: Effort,
    /// Tokens per second with it, nothing in the cache.
    pub decode: RateRange,
    /// How many times as fast as now; `None` if it does not run now.
    pub gain: Option<f64>,
    /// What else is to be known: what it costs in quality, or what is needed besides.
    pub note: Option<String>,
    /// Whether cachalot makes use of it so far.
    pub supported: bool,
    /// Its place among changes of its kind, the smallest first: one drive before four, a slightly
    /// smaller file before a much smaller one.
    pub rank: usize,
}

/// What to recommend.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Advice {
    /// The cheapest change that doubles the speed, or with which the model runs.
    One(Upgrade),
    /// The same, of which cachalot makes no use yet; and the cheapest pair of which it does.
    Elsewhere(Upgrade, Option<Upgrade>),
    /// No single change doubles the speed; the cheapest pair that does.
    Two(Upgrade),
    /// Not even a pair doubles it.
    Nothing,
}

impl Advice {
    /// The change that is named first.
    pub fn first(&self) -> Option<&Upgrade> {
        match self {
            Self::One(upgrade) | Self::Elsewhere(upgrade, _) | Self::Two(upgrade) => Some(upgrade),
            Self::Nothing => None,
        }
    }
}

/// What to recommend, of `upgrades`; pages and JSON say the same.
pub fn advice(question: &Question<'_>, upgrades: &[Upgrade]) -> Advice {
    match cheapest_doubling(upgrades) {
        Some(one) if one.supported => Advice::One(one.clone()),
        Some(one) => Advice::Elsewhere(one.clone(), cheapest_pair(question)),
        None => cheapest_pair(question).map_or(Advice::Nothing, Advice::Two),
    }
}

/// Gains below this are not worth a line.
const GAIN_MIN: f64 = 1.03;
/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The machine as it is.
    pub machine: &'a Machine,
    /// The model.
    pub model: &'a ModelFacts,
    /// Other quantizations of it.
    pub others: &'a [ModelFacts],
    /// What the user insists on.
    pub constraints: Constraints,
    /// The software.
    pub profile: RuntimeProfile,
}

impl Question<'_> {
    fn state(&self) -> State {
        let (machine, model) = (self.machine.clone(), self.model.clone());
        State { machine, model, constraints: self.constraints }
    }

    /// What is predicted after some changes; `None` if it does not run.
    fn after(&self, changes: &[&Change<'_>]) -> Option<Prediction> {
        let mut state = self.state();
        changes.iter().for_each(|change| (change.make)(&mut state));
        let plan = plan(&state.machine, &state.model, state.constraints, self.profile).ok()?;
        Some(plan.prediction)
    }
}

/// All changes that help, the greatest gain first.
pub fn upgrades(question: &Question<'_>) -> Vec<Upgrade> {
    let now = plan(question.machine, question.model, question.constraints, question.profile).ok();
    let base = now.as_ref().map(|now| now.prediction.decode(0).likely);
    let changes = changes(question, now.as_ref());
    let found = changes.iter().enumerate().filter_map(|(rank, change)| {
        let decode = question.after(&[change])?.decode(0);
        let gain = base.map(|base| decode.likely / base);
        let (what, note) = (change.what.clone(), change.note.clone());
        let (effort, supported) = (change.effort, change.supported);
        Some(Upgrade { what, effort, decode, gain, note, supported, rank })
    });
    let mut found: Vec<Upgrade> =
        found.filter(|upgrade| upgrade.gain.is_none_or(|gain| gain >= GAIN_MIN)).collect();
    found.sort_by(|a, b| b.decode.likely.total_cmp(&a.decode.likely).then(a.effort.cmp(&b.effort)));
    found
}

/// The least costly change that at least doubles the speed, or makes the model run at all; one that
/// cachalot makes no use of only if there is no other.
pub fn cheapest_doubling(upgrades: &[Upgrade]) -> Option<&Upgrade> {
    let enough = upgrades.iter().filter(|upgrade| upgrade.gain.is_none_or(|gain| gain >= 2.0));
    enough.min_by_key(|upgrade| (!upgrade.supported, upgrade.effort, upgrade.rank))
}

/// The two least costly changes of different kinds that double the speed together, where none does
/// alone; or of those with which it runs at all the two that bring least, since more is not a
/// smaller change.
pub fn cheapest_pair(question: &Question<'_>) -> Option<Upgrade> {
    let now = plan(question.machine, question.model, question.constraints, question.profile).ok();
    let base = now.as_ref().map(|now| now.prediction.decode(0).likely);
    let changes = changes(question, now.as_ref());
    let enough = |changes: &[&Change<'_>]| {
        let decode = question.after(changes)?.decode(0);
        base.is_none_or(|base| decode.likely >= 2.0 * base).then_some(decode)
    };
    let not_alone: Vec<&Change<'_>> =
        changes.iter().filter(|change| change.supported && enough(&[change]).is_none()).collect();
    let mut pairs = Vec::new();
    for (index, first) in not_alone.iter().enumerate() {
        for second in not_alone[index + 1..].iter().filter(|second| second.effort != first.effort) {
            let Some(decode) = enough(&[first, second]) else { continue };
            let what = format!("{}, and {}", first.what, second.what);
            let gain = base.map(|base| decode.likely / base);
            let (effort, rank) = (second.effort, pairs.len());
            let costs = (second.effort, first.effort, rank);
            let pair = Upgrade { what, effort, decode, gain, note: None, supported: true, rank };
            pairs.push((costs, pair));
        }
    }
    pairs.into_iter().min_by_key(|(costs, _)| *costs).map(|(_, pair)| pair)
}

/// The least memory with which the model runs, of sizes in which memory is bought, and whether a
/// drive is needed besides; `None` if no size is enough.
pub fn least_memory(question: &Question<'_>) -> Option<(u64, bool)> {
    let Question { machine, model, constraints, .. } = *question;
    let fits = |gib: u64| {
        let mut larger = machine.clone();
        larger.memory.total_bytes = Some(gib << 30);
        larger.memory.available_bytes = None;
        let budget = MemoryBudget::of(&larger, None);
        let fits =
            |drive| crate::fit::fit(model, MemoryBudget { drive, ..budget }, constraints).is_ok();
        match (fits(budget.drive), fits(true)) {
            (true, _) => Some((gib << 30, false)),
            (false, true) => Some((gib << 30, true)),
            (false, false) => None,
        }
    };
    MEMORY_SIZES.into_iter().find_map(fits)
}
