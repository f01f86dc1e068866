//! What runs on this machine really reached, beside what was predicted: the next prediction learns
//! from it. A line of JSON for each, in a file of the user's that goes nowhere; `CACHALOT_RECORD=off`
//! keeps none.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use cachalot_plan::Calibration;
use serde::{Deserialize, Serialize};

/// Older runs than these are not looked at: machines and programs change.
const RUNS: usize = 8;
/// What smaller models reach says nothing about larger ones: they lie in the processor's caches.
const LARGE: u64 = 1 << 30;
/// A run of fewer tokens says little.
pub(crate) const TOKENS_MIN: usize = 32;

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// File name and size of the model, threads, whether experts were streamed and whether tokens were
    /// random: what makes two runs alike.
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
    /// Of the same model in the same places.
    fn is_like(&self, other: &Self) -> bool {
        self.model == other.model && self.size == other.size && self.lies_like(other)
    }

    /// In the same places, whatever the model.
    fn lies_like(&self, other: &Self) -> bool {
        let key = |run: &Self| (run.threads, run.streamed, run.random || !run.streamed);
        key(self) == key(other)
    }
}

/// How many times as fast as predicted runs like this one were, or else those of other large models: the
/// median of the last ones.
pub(crate) fn calibration(path: Option<&Path>, like: &Run) -> Option<Calibration> {
    let text = fs::read_to_string(path?).ok()?;
    // A line that makes no sense is of another version, or was cut short.
    let runs = text.lines().filter_map(|line| serde_json::from_str::<Run>(line).ok());
    let runs: Vec<Run> =
        runs.filter(|run| (0.02..50.0).contains(&(run.measured / run.predicted))).collect();
    let median = |same_model: bool, is_one: &dyn Fn(&&Run) -> bool| {
        let ratios = runs.iter().filter(is_one).map(|run| run.measured / run.predicted);
        let mut last: Vec<f64> = ratios.collect();
        last.drain(..last.len().saturating_sub(RUNS));
        last.sort_by(f64::total_cmp);
        let times = *last.get(last.len() / 2)?;
        Some(Calibration { times, runs: last.len(), same_model })
    };
    let other = |run: &&Run| run.lies_like(like) && run.size.min(like.size) >= LARGE;
    median(true, &|run| run.is_like(like)).or_else(|| median(false, &other))
}

/// Keeps a run. That it cannot be kept is no reason to fail.
pub(crate) fn keep(path: Option<&Path>, run: &Run) {
    let Some(path) = path else { return };
    let file = path.parent().map(fs::create_dir_all).and_then(|made| {
        made.ok()?;
        OpenOptions::new().create(true).append(true).open(path).ok()
    });
    if let (Some(mut file), Ok(line)) = (file, serde_json::to_string(run)) {
        let _ = writeln!(file, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_alike_correct_the_next() {
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
        assert_eq!(ratio(&other), Some((0.9, false)), "a large model tells about another");
        assert_eq!(ratio(&Run { streamed: true, ..other.clone() }), None, "not from other places");
        assert_eq!(ratio(&Run { size: 7, ..other }), None, "not about a small one");
        for _ in 0..RUNS {
            keep(path, &run(20.0, 2));
        }
        assert_eq!(ratio(&run(0.0, 2)), Some((2.0, true)), "old ones are forgotten");
        assert_eq!(calibration(None, &run(0.0, 2)), None);
        keep(None, &run(1.0, 1));
    }
}
