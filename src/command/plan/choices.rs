//! `cachalot plan` without a model: every quantization of R1 that makes sense here, best first.
//!
//! Best is what most people would choose: the most bits per weight among those that are at least
//! half as fast as the fastest, and not slower than a token per second if one is faster; after them
//! the others by speed.

use cachalot_plan::catalogue::{CATALOGUE, Published};
use cachalot_plan::{Constraints, Machine, Mode, ModelFacts, Plan, RuntimeProfile, plan, units};
use serde_json::json;

use super::answer::{patience, understood, unknown, yes};
use super::rate;
use crate::terminal::table;

/// Slower than this share of the fastest is no longer worth better quality.
const WORTH_IT: f64 = 0.5;
/// Slower than this is not worth better quality either, in tokens per second.
const PLEASANT: f64 = 1.0;
/// Slower than this is not offered.
const RATE_MIN: f64 = 0.05;

struct Choice {
    published: &'static Published,
    plan: Plan,
}

impl Choice {
    fn rate(&self) -> f64 {
        self.plan.prediction.decode(0).likely
    }
}

/// The page, or the same as JSON.
pub(super) fn page(
    machine: &Machine,
    constraints: Constraints,
    quant: Option<&str>,
    as_json: bool,
    profile: &dyn Fn(&ModelFacts) -> anyhow::Result<RuntimeProfile>,
) -> anyhow::Result<String> {
    let wanted = |published: &&Published| {
        quant.is_none_or(|quant| published.quant.to_lowercase().contains(&quant.to_lowercase()))
    };
    let r1 = CATALOGUE
        .iter()
        .filter(|published| published.runs && published.base.name.starts_with("DeepSeek-R1"));
    let r1: Vec<&Published> = r1.filter(|p| !p.is_ollama()).filter(wanted).collect();
    if r1.is_empty() {
        let quant = quant.unwrap_or_default();
        return Err(crate::failure::usage(format!(
            "--quant {quant}: no published file of R1 is quantized so"
        )));
    }
    let mut failures = Vec::new();
    let mut choices = Vec::new();
    for published in r1 {
        let model = published.model();
        match plan(machine, &model, constraints, profile(&model)?) {
            Ok(plan) => choices.push(Choice { published, plan }),
            Err(error) => failures.push((published, error)),
        }
    }
    rank(&mut choices);
    if as_json {
        let choices: Vec<_> = choices
            .iter()
            .map(|choice| {
                json!({ "name": choice.published.name(), "size": choice.published.size(),
                        "source": choice.published.source, "decode": choice.plan.prediction.decode(0),
                        "plan": choice.plan })
            })
            .collect();
        let failures: Vec<_> = failures
            .iter()
            .map(|(published, error)| json!({ "name": published.name(), "why": error.to_string() }))
            .collect();
        let object = json!({ "machine": machine, "choices": choices, "impossible": failures });
        return Ok(serde_json::to_string_pretty(&object)? + "\n");
    }
    Ok(text(machine, &choices, &failures))
}

fn rank(choices: &mut [Choice]) {
    let fastest = choices.iter().map(Choice::rate).fold(0.0, f64::max);
    choices.sort_by(|a, b| {
        let worth = |choice: &Choice| {
            choice.rate() >= (WORTH_IT * fastest).max(PLEASANT.min(0.999 * fastest))
        };
        let by_quality = b.published.size().cmp(&a.published.size());
        match (worth(a), worth(b)) {
            (true, true) => by_quality,
            (false, false) => b.rate().total_cmp(&a.rate()),
            (a_worth, b_worth) => b_worth.cmp(&a_worth),
        }
    });
}

fn text(
    machine: &Machine,
    choices: &[Choice],
    failures: &[(&Published, cachalot_plan::Error)],
) -> String {
    let mut page = format!("DeepSeek-R1 671B on {}\n\n{}\n", machine.name, understood(machine));
    let useful: Vec<&Choice> = choices.iter().filter(|choice| choice.rate() >= RATE_MIN).collect();
    match (useful.first(), failures.first()) {
        (Some(best), _) => {
            let range = rate(best.plan.prediction.decode(0));
            let bound = best.plan.prediction.bound().bound();
            let likely = best.plan.prediction.decode(0).likely;
            let (yes, patience) = (yes(likely), patience(likely));
            let quant = best.published.quant;
            page += &format!("{yes}: {quant} at about {range}, bound by {bound}{patience}.\n");
        }
        (None, Some((_, cachalot_plan::Error::Unknown(unknown)))) => {
            page += &format!("It may run, but its speed cannot be predicted: {unknown}.\n");
        }
        (None, Some((_, error))) => page += &format!("No: {error}.\n"),
        (None, None) => {
            page += "No: every quantization would be slower than a token in 20 seconds.\n"
        }
    }
    if !useful.is_empty() {
        let mut rows = vec![
            ["", "size", "decode", "bound by", "experts in memory", "context"]
                .map(str::to_owned)
                .to_vec(),
        ];
        rows.extend(useful.iter().map(|choice| row(choice)));
        page += &format!("\n{}", table("lrlllr", &rows));
        page += "\n`cachalot plan NAME` shows one of them in full, with possible upgrades.\n";
        page += &unknown(machine);
    }
    page
}

fn row(choice: &Choice) -> Vec<String> {
    let Plan { fit, prediction } = &choice.plan;
    let experts = match fit.mode {
        Mode::Resident => "all".to_owned(),
        Mode::Streamed { .. } => {
            let resident = prediction.hits.map_or(1.0, |hits| hits.resident);
            format!("{:.0} %, others streamed", resident * 100.0)
        }
    };
    vec![
        choice.published.name(),
        units::bytes(choice.published.size()),
        rate(prediction.decode(0)),
        prediction.bound().bound().to_owned(),
        experts,
        units::grouped(fit.context),
    ]
}

#[cfg(test)]
mod tests {
    use cachalot_plan::presets;

    use super::*;

    fn plain(_: &ModelFacts) -> anyhow::Result<RuntimeProfile> {
        Ok(RuntimeProfile::default())
    }

    fn page_of(machine: &str) -> String {
        page(&presets::machine(machine).unwrap(), Constraints::default(), None, false, &plain)
            .unwrap()
    }

    #[test]
    fn the_best_quantization_comes_first() {
        let server = page_of("epyc-ddr5");
        assert!(server.lines().any(|line| line.starts_with("Yes: ")), "{server}");
        assert!(server.contains("unsloth/DeepSeek-R1-GGUF:Q8_0"), "{server}");
        let desktop = page_of("desktop-96");
        let first = desktop.lines().find(|line| line.contains("/DeepSeek-R1")).unwrap();
        assert!(first.contains("Q2_K_XL") || first.contains("Q3_K_XL"), "{desktop}");
    }

    #[test]
    fn a_machine_without_a_chance_is_told_so() {
        assert!(page_of("4GB 2x2133 nvme").contains("No: "));
        assert!(page_of("512GB nvme").contains("cannot be predicted"));
    }

    #[test]
    fn json_has_the_same_choices() {
        let machine = presets::machine("desktop-96").unwrap();
        let text = page(&machine, Constraints::default(), None, true, &plain).unwrap();
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(object["choices"].as_array().unwrap().len() > 5);
        assert!(object["choices"][0]["decode"]["likely"].as_f64().unwrap() > 0.0);
        assert!(page(&machine, Constraints::default(), Some("Q9"), false, &plain).is_err());
    }
}
