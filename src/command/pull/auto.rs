//! `--quant auto`: of the quantizations of a repository, the one that most people would take here.
//!
//! As in `cachalot plan`: the most bits per weight among those that are at least half as fast as
//! the fastest, and not slower than a token per second if one is faster. Of repositories whose
//! files the planner does not know, the largest that fits into memory, else the smallest.

use anyhow::bail;
use cachalot_hub::{Choice, Name};
use cachalot_plan::catalogue::{CATALOGUE, Published};
use cachalot_plan::{Constraints, MemoryBudget, RuntimeProfile, plan};

use crate::hardware::{self, DriveProbe, Measure};
use crate::settings::Environment;

/// Slower than this share of the fastest is not worth better quality.
const WORTH_IT: f64 = 0.5;
/// Slower than this is not worth better quality either, in tokens per second.
const PLEASANT: f64 = 1.0;

/// The label of the choice.
///
/// # Errors
/// If none of them is complete.
pub(super) fn choose(
    name: &Name,
    choices: &[Choice],
    environment: &Environment,
) -> anyhow::Result<String> {
    let choices: Vec<&Choice> = choices.iter().filter(|choice| choice.missing.is_empty()).collect();
    if choices.is_empty() {
        bail!("{name} has no quantization that is complete");
    }
    let options = environment.options(None);
    let machine =
        hardware::this_machine(environment, &options, DriveProbe::Anywhere, Measure::Missing);
    let machine = machine.without_gpus();
    let rate = |choice: &Choice| {
        let facts = published(name, &choice.label)?.model();
        let profile = RuntimeProfile::default();
        let plan = plan(&machine, &facts, Constraints::default(), profile).ok()?;
        Some(plan.prediction.decode(0).likely)
    };
    let rated: Vec<(&Choice, f64)> =
        choices.iter().filter_map(|choice| Some((*choice, rate(choice)?))).collect();
    if rated.is_empty() {
        let room = MemoryBudget::of(&machine, None).ram;
        let fitting = choices.iter().filter(|choice| choice.size() <= room);
        let best = fitting.max_by_key(|choice| choice.size()).unwrap_or(&choices[0]);
        return Ok(best.label.clone());
    }
    Ok(best(&rated).label.clone())
}

fn best<'a>(rated: &[(&'a Choice, f64)]) -> &'a Choice {
    let fastest = rated.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    // Where all are slow, quality counts again.
    let least = if fastest < PLEASANT { 0.0 } else { PLEASANT }.max(WORTH_IT * fastest);
    let worth = rated.iter().filter(|(_, rate)| *rate >= least);
    worth.max_by_key(|(choice, _)| choice.size()).expect("the fastest is worth it").0
}

/// What the catalogue knows of a repository's quantization, if cachalot runs it.
fn published(name: &Name, label: &str) -> Option<&'static Published> {
    let Name::HuggingFace(name) = name else { return None };
    let repository = format!("{}/{}", name.owner, name.repository).to_lowercase();
    CATALOGUE.iter().find(|file| {
        file.runs
            && file.repository.to_lowercase() == repository
            && file.quant.eq_ignore_ascii_case(label)
    })
}

#[cfg(test)]
mod tests {
    use cachalot_hub::Listed;

    use super::*;

    #[test]
    fn quality_counts_as_long_as_it_is_not_too_slow() {
        let choice = |label: &str, size: u64| Choice {
            label: label.to_owned(),
            files: vec![Listed { path: "x.gguf".into(), size, sha256: None }],
            missing: Vec::new(),
        };
        let (small, middle, large) = (choice("s", 1), choice("m", 2), choice("l", 3));
        let label = |rates: [f64; 3]| {
            best(&[(&small, rates[0]), (&middle, rates[1]), (&large, rates[2])]).label.clone()
        };
        assert_eq!(label([10.0, 6.0, 4.0]), "m");
        assert_eq!(label([10.0, 6.0, 5.5]), "l");
        assert_eq!(label([1.5, 0.9, 0.8]), "s", "slower than a token per second");
        assert_eq!(label([0.5, 0.4, 0.3]), "l", "all are slow");
    }

    #[test]
    fn the_catalogue_is_asked_by_repository_and_quantization() {
        let name = "unsloth/DeepSeek-R1-GGUF".parse().unwrap();
        assert_eq!(published(&name, "ud-iq1_s").unwrap().quant, "UD-IQ1_S");
        assert!(published(&name, "Q9_9").is_none());
    }
}
