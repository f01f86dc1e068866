//! `cachalot plan --import FILE.jsonl`: measured rows of other machines, in the format that
//! `bench --json` writes, one object after the other. Where one was measured on hardware like the
//! machine
//! that is asked about, with the same model, predictions are corrected by it.

use std::path::Path;

use anyhow::{Context, bail};
use cachalot_plan::{Calibration, Machine, ModelFacts, Prediction};
use serde::Deserialize;

use crate::input;

/// Files larger than this are not rows of measurements.
const BYTES_MAX: u64 = 64 << 20;
/// Two sizes are the same within this fraction: systems reserve some memory, and files have
/// headers.
const SAME_SIZE: f64 = 0.03;

/// What is used of a row of `bench --json`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Row {
    machine: Hardware,
    model: Model,
    decode: Vec<Rate>,
    streaming: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Deserialize)]
struct Hardware {
    processor: Option<String>,
    sockets: Option<u32>,
    cores: Option<u32>,
    memory_bytes: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
struct Model {
    bytes: u64,
}

#[derive(Debug, Clone, Deserialize)]
struct Rate {
    depth: u64,
    tokens_per_second: f64,
}

/// Reads all rows of a file.
///
/// # Errors
/// If it cannot be read, or a row is not one of `bench --json` with the machine's hardware.
pub(super) fn rows(path: &Path) -> anyhow::Result<Vec<Row>> {
    let shown = path.display();
    let size = std::fs::metadata(path).with_context(|| shown.to_string())?.len();
    if size > BYTES_MAX {
        bail!("{shown} is larger than any list of measurements");
    }
    let text = input::file(path)?;
    let rows = serde_json::Deserializer::from_str(&text).into_iter::<Row>();
    let rows: Result<Vec<Row>, _> = rows.collect();
    let rows =
        rows.with_context(|| format!("{shown} is not what `cachalot bench --json` writes"))?;
    if rows.is_empty() {
        bail!("{shown} has no rows");
    }
    Ok(rows)
}

/// The correction by rows of this model on hardware like `machine`, if there are any.
pub(super) fn calibration(
    rows: &[Row],
    machine: &Machine,
    model: &ModelFacts,
    prediction: &Prediction,
) -> Option<Calibration> {
    let streamed = prediction.hits.is_some();
    let alike = rows.iter().filter(|row| {
        row.machine.is_like(machine)
            && is_close(row.model.bytes, model.size)
            && row.streaming.is_some() == streamed
    });
    let rates = alike.flat_map(|row| &row.decode).filter(|rate| rate.tokens_per_second > 0.0);
    let ratio = |rate: &Rate| rate.tokens_per_second / prediction.decode(rate.depth).likely;
    let mut ratios: Vec<f64> = rates.map(ratio).filter(|ratio| ratio.is_finite()).collect();
    ratios.sort_by(f64::total_cmp);
    let times = *ratios.get(ratios.len() / 2)?;
    Some(Calibration { times, runs: ratios.len(), same_model: true, imported: true })
}

impl Hardware {
    fn is_like(&self, machine: &Machine) -> bool {
        let processor = &machine.processor;
        let same_name = match (&self.processor, &processor.name) {
            (Some(own), Some(asked)) => {
                let of = cachalot_plan::processors::model_name;
                own == asked || of(own).is_some_and(|model| Some(model) == of(asked))
            }
            _ => false,
        };
        let same_memory = match (self.memory_bytes, machine.memory.total_bytes) {
            (Some(own), Some(asked)) => is_close(own, asked),
            _ => false,
        };
        same_name
            && same_memory
            && self.sockets.unwrap_or(1) == processor.sockets()
            && self.cores.is_none_or(|cores| processor.cores.is_none_or(|asked| asked == cores))
    }
}

fn is_close(one: u64, other: u64) -> bool {
    (one as f64 / other.max(1) as f64 - 1.0).abs() <= SAME_SIZE
}
