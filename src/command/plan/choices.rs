//! `cachalot plan` without a model, or with one that comes in several quantizations: every one of
//! them that makes sense here, best first.
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

/// How a model is computed.
pub(super) struct How<'a> {
    /// The model with as many active experts as was asked for.
    pub(super) adapt: &'a dyn Fn(ModelFacts) -> anyhow::Result<ModelFacts>,
    /// The rates of the runtime with it.
    pub(super) profile: &'a dyn Fn(&ModelFacts) -> anyhow::Result<RuntimeProfile>,
}

/// The quantizations to choose from.
pub(super) struct Choices {
    /// Whose they are: `DeepSeek-R1 671B`.
    model: String,
    files: Vec<&'static Published>,
}

impl Choices {
    /// R1's, of any date, with this in their name.
    ///
    /// # Errors
    /// If there are none.
    pub(super) fn of_r1(quant: Option<&str>) -> anyhow::Result<Self> {
        let wanted = |published: &&Published| {
            quant.is_none_or(|quant| published.quant.to_lowercase().contains(&quant.to_lowercase()))
        };
        let r1 = CATALOGUE.iter().filter(|file| file.base.name.starts_with("DeepSeek-R1"));
        let files: Vec<_> =
            r1.filter(|file| file.runs && !file.is_ollama()).filter(wanted).collect();
        if files.is_empty() {
            let quant = quant.unwrap_or_default();
            return Err(crate::failure::usage(format!(
                "--quant {quant}: no published file of R1 is quantized so"
            )));
        }
        Ok(Self { model: "DeepSeek-R1 671B".to_owned(), files })
    }

    /// Those of a name that means several, as far as cachalot has kernels for them.
    pub(super) fn of(files: Vec<&'static Published>) -> Option<Self> {
        let runs = |file: &&Published| file.runs && !file.is_ollama();
        let model = files.first()?.base.title();
        let files: Vec<_> = files.into_iter().filter(runs).collect();
        (files.len() > 1).then_some(Self { model, files })
    }
}

/// The page, or the same as JSON.
pub(super) fn page(
    machine: &Machine,
    constraints: Constraints,
    of: &Choices,
    as_json: bool,
    how: &How<'_>,
) -> anyhow::Result<String> {
    let mut failures = Vec::new();
    let mut choices = Vec::new();
    for &published in &of.files {
        let model = (how.adapt)(published.model())?;
        match plan(machine, &model, constraints, (how.profile)(&model)?) {
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
    Ok(text(&of.model, machine, &choices, &failures))
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
    model: &str,
    machine: &Machine,
    choices: &[Choice],
    failures: &[(&Published, cachalot_plan::Error)],
) -> String {
    let mut page = format!("{model} on {}\n\n{}\n", machine.name, understood(machine));
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

    const PLAIN: How<'_> = How { adapt: &Ok, profile: &|_| Ok(RuntimeProfile::default()) };

    fn page_of(machine: &str) -> String {
        let (machine, r1) = (presets::machine(machine).unwrap(), Choices::of_r1(None).unwrap());
        page(&machine, Constraints::default(), &r1, false, &PLAIN).unwrap()
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
        let r1 = Choices::of_r1(None).unwrap();
        let text = page(&machine, Constraints::default(), &r1, true, &PLAIN).unwrap();
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(object["choices"].as_array().unwrap().len() > 5);
        assert!(object["choices"][0]["decode"]["likely"].as_f64().unwrap() > 0.0);
        assert!(Choices::of_r1(Some("Q9")).is_err());
    }
}
