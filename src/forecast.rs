//! The planner asked before a model is loaded: where it will lie, whether it fits, what to expect.
//! Loading asks it the same, with the same answer.

use std::path::Path;

use cachalot_engine::{Options, Source, constraints, described, host, memory_budget};
use cachalot_gguf::split::Set;
use cachalot_gguf::{Gguf, Metadata, TensorInfo};
use cachalot_plan::fit::fit;
use cachalot_plan::predict::predict;
use cachalot_plan::{
    Constraints, Demand, KvType, Mode, ModelFacts, Placement, Prediction, RateRange, RoutingSkew,
    RuntimeProfile, Stream, identity, units,
};

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
}

impl Forecast {
    /// Asks the planner about `source`, for tokens of a text. `None` for what is no model: loading
    /// will say so.
    ///
    /// # Errors
    /// If the model does not fit into this machine.
    pub(crate) fn of(
        source: &Source,
        options: &Options,
        environment: &Environment,
    ) -> anyhow::Result<Option<Self>> {
        let Some(placed) = placed(source, options)? else { return Ok(None) };
        let is_worth = placed.model.size >= WORTH_MEASURING;
        let measure = if is_worth { Measure::Missing } else { Measure::Never };
        Ok(Some(Self::at(placed, source, options, environment, measure)))
    }

    /// The same for random tokens, on a machine that is measured in any case: for whoever measures
    /// a model, too.
    ///
    /// # Errors
    /// If the model does not fit into this machine.
    pub(crate) fn of_noise(
        source: &Source,
        options: &Options,
        environment: &Environment,
    ) -> anyhow::Result<Option<Self>> {
        let Some(placed) = placed(source, options)? else { return Ok(None) };
        let placed = Placed { skew: RoutingSkew::Uniform, ..placed };
        Ok(Some(Self::at(placed, source, options, environment, Measure::Missing)))
    }

    fn at(
        Placed { model, fit, skew }: Placed,
        source: &Source,
        options: &Options,
        environment: &Environment,
        measure: Measure,
    ) -> Self {
        let file = match source {
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
        let is_paged = fit.mode == Mode::Resident && fit.ram > memory_budget(options).ram;
        let predicted = |calibration| {
            let profile = RuntimeProfile { skew, calibration, ..RuntimeProfile::default() };
            predict(&here, &model, &fit, profile).ok().filter(|_| !is_paged)
        };
        let plain = predicted(None);
        let name = file.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let run = Run {
            model: name.unwrap_or_else(|| model.name.clone()),
            size: model.size,
            threads: options.threads.unwrap_or_else(host::physical_cores),
            streamed: fit.mode != Mode::Resident,
            random: skew == RoutingSkew::Uniform,
            predicted: plain.as_ref().map_or(0.0, |prediction| prediction.decode(0).likely),
            measured: 0.0,
        };
        let drive = here.drive().map(|(_, rate)| rate).filter(|_| run.streamed);
        let prediction = match record::calibration(environment.runs.as_deref(), &run) {
            Some(calibration) => predicted(Some(calibration)),
            None => plain,
        };
        Self { model, fit, prediction, drive, run }
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

    /// The predicted rate with so many tokens in the cache, if there is a prediction.
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

/// A model by its header, and where loading will put it.
struct Placed {
    model: ModelFacts,
    fit: Placement,
    skew: RoutingSkew,
}

/// `None` if it is no model that runs.
fn placed(source: &Source, options: &Options) -> anyhow::Result<Option<Placed>> {
    match source {
        Source::File(path) => {
            let Ok(set) = Set::open(path) else { return Ok(None) };
            let tensors: Vec<&TensorInfo> = set.tensors.iter().map(|tensor| &tensor.info).collect();
            let files = set.parts.iter().map(|part| part.path.as_path());
            let constraints = constraints(options, files);
            let file_name = path.file_name().unwrap_or_default().to_string_lossy();
            placed_as(&file_name, &set.metadata, &tensors, options, constraints)
        }
        Source::Embedded(bytes) => {
            let Ok(gguf) = Gguf::parse(bytes, bytes.len() as u64) else { return Ok(None) };
            let tensors: Vec<&TensorInfo> = gguf.tensors.iter().collect();
            // Its bytes are the program's, wherever that is.
            let constraints =
                Constraints { stream: Stream::Never, ..constraints(options, std::iter::empty()) };
            placed_as("calf", &gguf.metadata, &tensors, options, constraints)
        }
    }
}

fn placed_as(
    file_name: &str,
    metadata: &Metadata,
    tensors: &[&TensorInfo],
    options: &Options,
    constraints: Constraints,
) -> anyhow::Result<Option<Placed>> {
    let demand = Demand::of(metadata, tensors.iter().copied());
    if !identity::identify(metadata, &demand, file_name).runs {
        return Ok(None);
    }
    let name = file_name.trim_end_matches(".gguf");
    let Ok(model) = described(name, metadata, tensors.iter().copied(), options) else {
        return Ok(None);
    };
    let fit = fit(&model, memory_budget(options), constraints)?;
    Ok(Some(Placed { model, fit, skew: RoutingSkew::of(metadata) }))
}

#[cfg(test)]
mod tests {
    use cachalot_engine::Stream;

    use super::*;

    fn of(options: &Options) -> anyhow::Result<Option<Forecast>> {
        let calf = Source::File("models/calf.gguf".into());
        Forecast::of(&calf, options, &Environment::default())
    }

    #[test]
    fn a_small_model_lies_in_memory_and_is_not_worth_a_line() {
        let forecast = of(&Options::default()).unwrap().unwrap();
        assert!(!forecast.is_worth_a_line());
        assert!(forecast.line().starts_with("calf, "), "{}", forecast.line());
        assert!(forecast.line().contains("all of it in memory"), "{}", forecast.line());
        assert_eq!((forecast.fit.context, forecast.fit.cache_type), (4096, KvType::F16));
    }

    #[test]
    fn what_the_user_says_is_kept_or_refused() {
        let options = Options { context: Some(64), ..Options::default() };
        assert_eq!(of(&options).unwrap().unwrap().fit.context, 64);
        let options = Options { context: Some(1 << 40), ..Options::default() };
        assert!(of(&options).unwrap_err().to_string().contains("at most"));
        let options = Options { stream: Stream::Always, memory: Some(1), ..Options::default() };
        assert!(of(&options).unwrap_err().to_string().contains("of non-expert weights"));
        let missing = Source::File("missing.gguf".into());
        let none = Forecast::of(&missing, &Options::default(), &Environment::default());
        assert!(none.unwrap().is_none(), "loading says what is wrong");
    }
}
