//! Measured speeds of past runs next to their predictions; the next prediction is calibrated with
//! them. One line of JSON per run, in a local file of the user's; `CACHALOT_RECORD=off` turns it
//! off.

use std::path::Path;

use cachalot_plan::Calibration;
use serde::{Deserialize, Serialize};

use crate::state;

/// Only this many recent runs are used: machines and programs change.
const RUNS: usize = 8;
/// Smaller models say nothing about larger ones: they fit into the processor's caches.
const LARGE: u64 = 1 << 30;
/// The file keeps this many runs, and is read up to this size.
const LINES_MAX: usize = 1000;
const BYTES_MAX: u64 = 1 << 20;
/// Shorter answers are too noisy to record.
pub(crate) const TOKENS_MIN: usize = 32;

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// File name and size of the model, number of threads, whether experts were streamed, and
    /// whether tokens were random: runs with equal values are comparable.
    pub(crate) model: String,
    pub(crate) size: u64,
    pub(crate) threads: usize,
    pub(crate) streamed: bool,
    #[serde(default)]
    pub(crate) random: bool,
    /// Tokens per second, before any correction.
    pub(crate) predicted: f64,
    pub(crate) measured: f64,
}

impl Run {
    /// Whether it ran the same model with the same placement.
    fn is_comparable(&self, other: &Self) -> bool {
        self.model == other.model && self.size == other.size && self.same_placement(other)
    }

    /// Whether it ran with the same placement, with any model.
    fn same_placement(&self, other: &Self) -> bool {
        let key = |run: &Self| (run.threads, run.streamed, run.random || !run.streamed);
        key(self) == key(other)
    }
}

/// Median ratio of measured to predicted speed of recent comparable runs, or else of other large
/// models.
pub(crate) fn calibration(path: Option<&Path>, like: &Run) -> Option<Calibration> {
    let text = state::read(path?, BYTES_MAX)?;
    // Lines that do not parse are of another version, or were cut short.
    let runs = text.lines().filter_map(|line| serde_json::from_str::<Run>(line).ok());
    let runs: Vec<Run> =
        runs.filter(|run| (0.02..50.0).contains(&(run.measured / run.predicted))).collect();
    let median = |same_model: bool, is_one: &dyn Fn(&&Run) -> bool| {
        let ratios = runs.iter().filter(is_one).map(|run| run.measured / run.predicted);
        let mut last: Vec<f64> = ratios.collect();
        last.drain(..last.len().saturating_sub(RUNS));
        last.sort_by(f64::total_cmp);
        let times = *last.get(last.len() / 2)?;
        Some(Calibration { times, runs: last.len(), same_model, imported: false })
    };
    let other = |run: &&Run| run.same_placement(like) && run.size.min(like.size) >= LARGE;
    median(true, &|run| run.is_comparable(like)).or_else(|| median(false, &other))
}

/// Adds a run, dropping the oldest ones beyond the limit.
pub(crate) fn keep(path: Option<&Path>, run: &Run) {
    let (Some(path), Ok(line)) = (path, serde_json::to_string(run)) else { return };
    let text = state::read(path, BYTES_MAX).unwrap_or_default();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.push(&line);
    let recent = &lines[lines.len().saturating_sub(LINES_MAX)..];
    state::write(path, &(recent.join("\n") + "\n"));
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn comparable_runs_calibrate_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/runs.jsonl");
        let run = |measured, threads| Run {
            model: "a.gguf".to_owned(),
            size: 7 << 30,
            threads,
            streamed: false,
            random: false,
            predicted: 10.0,
            measured,
        };
        let kept = path.as_path();
        let path = Some(kept);
        let ratio =
            |like: &Run| calibration(path, like).map(|found| (found.times, found.same_model));
        assert_eq!(ratio(&run(0.0, 2)), None);
        for measured in [12.0, 8.0, 9.0] {
            keep(path, &run(measured, 2));
        }
        keep(path, &run(30.0, 4));
        fs::write(kept, fs::read_to_string(kept).unwrap() + "{cut sho").unwrap();
        assert_eq!(ratio(&run(0.0, 2)), Some((0.9, true)), "the median of those with 2 threads");
        let other = Run { model: "b.gguf".to_owned(), ..run(0.0, 2) };
        assert_eq!(ratio(&other), Some((0.9, false)), "large models calibrate each other");
        assert_eq!(
            ratio(&Run { streamed: true, ..other.clone() }),
            None,
            "not with another placement"
        );
        assert_eq!(ratio(&Run { size: 7, ..other }), None, "not for a small model");
        for _ in 0..RUNS {
            keep(path, &run(20.0, 2));
        }
        assert_eq!(ratio(&run(0.0, 2)), Some((2.0, true)), "old runs are ignored");
        assert_eq!(calibration(None, &run(0.0, 2)), None);
        fs::write(kept, "x\n".repeat(2 * LINES_MAX)).unwrap();
        keep(path, &run(20.0, 2));
        assert_eq!(fs::read_to_string(kept).unwrap().lines().count(), LINES_MAX, "a limit");
        assert_eq!(ratio(&run(0.0, 2)), Some((2.0, true)));
        keep(None, &run(1.0, 1));
    }
}
