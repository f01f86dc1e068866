//! What to expect of a model that will be loaded as planned.

use std::path::Path;

use cachalot_engine::layout::{LoadPlan, Source};
use cachalot_plan::predict::predict;
use cachalot_plan::upgrade::{self, Upgrade};
use cachalot_plan::{
    Constraints, Demand, KvType, Machine, Mode, ModelFacts, Placement, Prediction, RateRange,
    RoutingSkew, RuntimeProfile, identity, units,
};
use cachalot_probe::system;

use crate::hardware::{self, DriveProbe, Measure};
use crate::record::{self, Run};
use crate::settings::Environment;

/// Measuring a machine takes a second or two: smaller models are not worth it.
const WORTH_MEASURING: u64 = 1 << 30;

/// What was chosen for a model, and what to expect of it.
#[derive(Clone, Debug)]
pub(crate) struct Forecast {
    model: ModelFacts,
    fit: Placement,
    /// `None` if this machine has never been measured.
    prediction: Option<Prediction>,
    /// Bytes per second of the drive, if it is read from.
    drive: Option<f64>,
    run: Run,
    machine: Machine,
    constraints: Constraints,
    profile: RuntimeProfile,
}

impl Forecast {
    /// Predicts tokens of a text. `None` for what is not known to run.
    pub(crate) fn of(plan: &LoadPlan, environment: &Environment) -> Option<Self> {
        let is_worth = plan.facts().size >= WORTH_MEASURING;
        let measure = if is_worth { Measure::Missing } else { Measure::Never };
        let skew = RoutingSkew::of(plan.weights().metadata());
        runs(plan).then(|| Self::at(plan, environment, skew, measure))
    }

    /// The same for random tokens, on a machine that is measured in any case: for
    /// commands that measure a model, too.
    pub(crate) fn of_noise(plan: &LoadPlan, environment: &Environment) -> Option<Self> {
        runs(plan).then(|| Self::at(plan, environment, RoutingSkew::Uniform, Measure::Missing))
    }

    fn at(plan: &LoadPlan, environment: &Environment, skew: RoutingSkew, measure: Measure) -> Self {
        let (model, fit, options) = (plan.facts().clone(), *plan.placement(), plan.options());
        let file = match plan.source() {
            Source::File(path) => Some(path.as_path()),
            Source::Embedded(_) => None,
        };
        // Only what is read from a drive depends on it.
        let drive = match file {
            Some(file) if fit.mode != Mode::Resident => DriveProbe::File(file),
            _ => DriveProbe::Nowhere,
        };
        let here = hardware::this_machine(environment, options, drive, measure).without_gpus();
        // How fast a system pages what it has no budget for, nobody knows.
        let is_paged = fit.mode == Mode::Resident && fit.ram > plan.budget().ram;
        let profile = RuntimeProfile { skew, ..RuntimeProfile::default() };
        let predicted = |profile| predict(&here, &model, &fit, profile).ok().filter(|_| !is_paged);
        let plain = predicted(profile);
        let name = file.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let run = Run {
            model: name.unwrap_or_else(|| model.name.clone()),
            size: model.size,
            threads: options.threads.unwrap_or_else(system::physical_cores),
            streamed: fit.mode != Mode::Resident,
            random: skew == RoutingSkew::Uniform,
            predicted: plain.as_ref().map_or(0.0, |prediction| prediction.decode(0).likely),
            measured: 0.0,
        };
        let drive = here.drive().map(|(_, rate)| rate).filter(|_| run.streamed);
        let calibration = record::calibration(environment.runs.as_deref(), &run);
        let profile = RuntimeProfile { calibration, ..profile };
        let prediction = if calibration.is_some() { predicted(profile) } else { plain };
        // What was chosen stays, unless a change is about it.
        let constraints = Constraints {
            context: Some(fit.context),
            cache_type: None,
            stream: options.stream,
            memory: options.memory,
            parallel: fit.parallel,
            reproducible: options.reproducible,
        };
        Self { model, fit, prediction, drive, run, machine: here, constraints, profile }
    }

    /// The model.
    pub(crate) fn model(&self) -> &ModelFacts {
        &self.model
    }

    /// This machine, with what was measured of it; without graphics cards, which are not used.
    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What is expected, if this machine was ever measured.
    pub(crate) fn prediction(&self) -> Option<&Prediction> {
        self.prediction.as_ref()
    }

    /// What would make it faster; nothing where there is no prediction to compare with.
    pub(crate) fn upgrades(&self) -> Vec<Upgrade> {
        let Self { machine, model, constraints, profile, .. } = self;
        if self.prediction.is_none() {
            return Vec::new();
        }
        upgrade::upgrades(&upgrade::Question {
            machine,
            model,
            others: &[],
            constraints: *constraints,
            profile: *profile,
        })
    }

    /// What was chosen and what to expect, in a line.
    pub(crate) fn line(&self) -> String {
        let Self { model, fit, drive, .. } = self;
        let place = match fit.mode {
            Mode::Resident => "all of it in memory".to_owned(),
            Mode::Streamed { .. } => {
                let rate = drive.map_or(String::new(), |rate| format!(" at {}", units::rate(rate)));
                format!("{} of memory, experts from the drive{rate}", units::bytes(fit.ram))
            }
        };
        let speed = self.prediction.as_ref().map_or(String::new(), |prediction| {
            format!(
                ": about {}, bound by {}",
                shown(prediction.decode(0)),
                prediction.bound().bound()
            )
        });
        let kv = if fit.cache_type == KvType::Q8_0 { ", keys and values in q8_0" } else { "" };
        format!("{}, {}: {place}{kv}{speed}", model.name, units::bytes(model.size))
    }

    /// The line for which nobody asked is for models that take a while.
    pub(crate) fn is_worth_a_line(&self) -> bool {
        self.model.size >= WORTH_MEASURING
    }

    /// The predicted rate with this number of tokens in the cache, if there is a prediction.
    pub(crate) fn decode(&self, depth: usize) -> Option<RateRange> {
        Some(self.prediction.as_ref()?.decode(depth as u64))
    }

    /// Predicted beside measured, after `tokens` of an answer; kept for the next prediction.
    pub(crate) fn compare(
        &self,
        depth: usize,
        tokens: usize,
        measured: f64,
        environment: &Environment,
    ) -> Option<String> {
        let predicted = self.decode(depth)?;
        if tokens >= record::TOKENS_MIN && measured > 0.0 {
            // As if it had been measured with an empty cache, since that is what is predicted.
            let at_start = measured * self.decode(0)?.likely / predicted.likely;
            let run = Run { measured: at_start, ..self.run.clone() };
            record::keep(environment.runs.as_deref(), &run);
        }
        let ratio = measured / predicted.likely;
        Some(format!(
            "predicted {} tokens/s, measured {measured:.1} ({ratio:.2} times that)",
            shown_rate(predicted)
        ))
    }
}

/// `2.9 tok/s (2.1-3.6)`.
fn shown(range: RateRange) -> String {
    let [low, likely, high] = [range.low, range.likely, range.high].map(units::significant);
    format!("{likely} tok/s ({low}-{high})")
}

fn shown_rate(range: RateRange) -> String {
    let [low, likely, high] = [range.low, range.likely, range.high].map(units::significant);
    format!("{likely} ({low}-{high})")
}

/// Whether a file holds a model that is known to run.
fn runs(plan: &LoadPlan) -> bool {
    let (metadata, tensors) = (plan.weights().metadata(), plan.weights().tensors());
    let demand = Demand::of(metadata, tensors.iter().map(|tensor| &tensor.info));
    let name = match plan.source() {
        Source::File(path) => path.file_name().unwrap_or_default().to_string_lossy(),
        Source::Embedded(_) => "calf".into(),
    };
    identity::identify(metadata, &demand, &name).runs
}

#[cfg(test)]
impl Forecast {
    /// For a published model on a machine that is described.
    pub(crate) fn of_published(name: &str, machine: Machine) -> Self {
        use cachalot_plan::catalogue::{Resolved, resolve};
        use cachalot_plan::fit::{MemoryBudget, fit};

        let Resolved::Files(files) = resolve(name, None) else { panic!("{name} is not published") };
        let (model, constraints) = (files[0].model(), Constraints::default());
        let profile = RuntimeProfile::default();
        let budget = MemoryBudget::of(&machine, None);
        let fit = fit(&model, budget, constraints).expect("it fits");
        let prediction = predict(&machine, &model, &fit, profile).ok();
        let run = Run {
            model: name.to_owned(),
            size: model.size,
            threads: 1,
            streamed: true,
            random: false,
            predicted: 0.0,
            measured: 0.0,
        };
        Self { model, fit, prediction, drive: None, run, machine, constraints, profile }
    }
}

#[cfg(test)]
mod tests {
    use cachalot_engine::layout::Options;
    use cachalot_plan::Stream;

    use super::*;

    fn of(options: &Options) -> anyhow::Result<Forecast> {
        let plan = LoadPlan::of(&Source::File("models/calf.gguf".into()), options)?;
        Ok(Forecast::of(&plan, &Environment::default()).unwrap())
    }

    #[test]
    fn a_small_model_lies_in_memory_and_is_not_worth_a_line() {
        let forecast = of(&Options::default()).unwrap();
        assert!(!forecast.is_worth_a_line());
        assert!(forecast.line().starts_with("calf, "), "{}", forecast.line());
        assert!(forecast.line().contains("all of it in memory"), "{}", forecast.line());
        assert_eq!((forecast.fit.context, forecast.fit.cache_type), (4096, KvType::F16));
    }

    #[test]
    fn several_users_are_forecast_and_each_has_a_whole_context() {
        let options = |parallel| Options { parallel, ..Options::default() };
        let (one, four) = (of(&options(1)).unwrap(), of(&options(4)).unwrap());
        assert_eq!(four.fit.kv, 4 * one.fit.kv);
        assert_eq!(four.fit.parallel, 4);
    }

    #[test]
    fn what_the_user_says_is_kept_or_refused() {
        let options = Options { context: Some(64), ..Options::default() };
        assert_eq!(of(&options).unwrap().fit.context, 64);
        let options = Options { context: Some(1 << 40), ..Options::default() };
        assert!(of(&options).unwrap_err().to_string().contains("at most"));
        let options = Options { stream: Stream::Always, memory: Some(1), ..Options::default() };
        assert!(of(&options).unwrap_err().to_string().contains("of non-expert weights"));
    }
}
