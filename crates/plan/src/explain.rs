//! Every number of a prediction with the formula behind it, as rows of name, value, formula.

use cachalot_gguf::KvType;

use crate::classes::EXPOSED;
use crate::fit::{MemoryTier, Mode};
use crate::model::ModelFacts;
use crate::predict::{Calibration, Prediction, RoutingSkew, What};
use crate::{Machine, Plan, units};

/// A number of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What it is.
    pub name: String,
    /// The number.
    pub value: String,
    /// Where it comes from.
    pub formula: String,
}

/// All numbers of a plan.
pub fn explain(machine: &Machine, model: &ModelFacts, plan: &Plan) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String, formula: String| {
        rows.push(Row { name: name.to_owned(), value, formula });
    };
    sizes(model, plan, &mut row);
    let prediction = &plan.prediction;
    if let Some(hits) = prediction.hits {
        let curve = match hits.skew {
            RoutingSkew::Measured => {
                "hit rates measured with models of 256 experts on text of changing topics"
            }
            RoutingSkew::Uniform => "every expert equally likely",
        };
        let formula =
            format!("{:.0} % of the routed experts are in memory; {curve}", hits.resident * 100.0);
        row("hit rate", format!("{:.0} %", hits.rate * 100.0), formula);
    }
    for part in &prediction.parts {
        row(name_of(part.what), units::seconds(part.seconds), part.formula.clone());
    }
    row(
        "per 1,000 tokens of depth",
        units::seconds(prediction.attention_seconds * 1e3),
        format!("1,000 x {}", prediction.attention_formula),
    );
    let sum = match prediction.hits {
        Some(_) if prediction.exposed < 1.0 => {
            format!("the longer of drive time and all other time, plus {EXPOSED} of the shorter")
        }
        _ => "the sum of these".to_owned(),
    };
    if let Some(Calibration { times, runs, same_model, imported }) = prediction.calibration {
        let of = if same_model { "of this model" } else { "of other models" };
        let place = if imported { "identical hardware" } else { "this machine" };
        let formula = format!("{runs} runs {of} on {place}; already applied to all times");
        row("measured / predicted", format!("{times:.2}"), formula);
    }
    row("time per token", units::seconds(prediction.seconds(0)), sum);
    rates(prediction, &mut row);
    if let (Some(seconds), Some((drive, rate))) = (prediction.load_seconds, machine.drive()) {
        let bytes = if plan.fit.mode == Mode::Resident { model.size } else { model.dense };
        let formula = format!(
            "{} / (0.88 of {} of {})",
            units::gigabytes(bytes as f64),
            units::rate(rate),
            drive.name
        );
        row("load time", units::seconds(seconds), formula);
    }
    for assumption in &prediction.assumed {
        row("assumed", String::new(), assumption.clone());
    }
    rows
}

fn rates(prediction: &Prediction, row: &mut impl FnMut(&str, String, String)) {
    let (low, high) = prediction.spread;
    for depth in [0, 8192, 32_768] {
        let range = prediction.decode(depth);
        let formula = format!(
            "1 / {}; four of five measurements with {} are {low:.2} to {high:.2} times that",
            units::seconds(prediction.seconds(depth)),
            prediction.class.name()
        );
        row(&format!("decode at depth {}", units::grouped(depth)), tokens(range.likely), formula);
    }
    for depth in [0, 8192, 32_768] {
        let range = prediction.prefill(depth);
        let attention = match depth {
            0 => String::new(),
            _ => format!(
                ", and {} of attention",
                units::seconds(prediction.prompt_attention_seconds * depth as f64)
            ),
        };
        let formula = format!(
            "1 / ({}{attention}); four of five measurements are {:.2} to {:.2} times that",
            prediction.prompt_formula,
            prediction.class.prompt_spread().0,
            prediction.class.prompt_spread().1
        );
        row(&format!("prefill at depth {}", units::grouped(depth)), tokens(range.likely), formula);
    }
}

fn sizes(model: &ModelFacts, plan: &Plan, row: &mut impl FnMut(&str, String, String)) {
    let fit = &plan.fit;
    let place = if fit.dense_in == MemoryTier::Vram { "graphics memory" } else { "main memory" };
    let dense = "attention, shared experts, dense layers, head, embedding, norms";
    row("non-expert weights", units::bytes(model.dense), format!("{dense}: in {place}"));
    let experts = format!(
        "{} layers x {} experts, {} of them read per token: {}",
        model.moe_layers,
        model.experts,
        model.experts_used,
        units::gigabytes(model.routed_per_token as f64)
    );
    row("routed experts", units::bytes(model.routed), experts);
    for (name, ty) in [("KV cache in f16", KvType::F16), ("KV cache in q8_0", KvType::Q8_0)] {
        let each = model.cache_bytes_per_token(ty);
        let formula =
            format!("{} tokens x {} bytes", units::grouped(fit.context), units::grouped(each));
        row(name, units::bytes(each * fit.context), formula);
    }
    let buffers = format!("{} tokens at a time", fit.micro_batch);
    row("buffers", units::bytes(fit.buffers), buffers);
}

/// The name of a part, for people.
pub fn name_of(what: What) -> &'static str {
    match what {
        What::Experts => "experts (RAM)",
        What::Dense => "other weights (RAM)",
        What::Vram => "weights (VRAM)",
        What::Drive => "missed experts (drive)",
        What::Layers => "per-layer overhead",
        What::Network => "network",
    }
}

fn tokens(rate: f64) -> String {
    format!("{} tok/s", units::significant(rate))
}
