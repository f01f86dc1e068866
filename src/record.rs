//! What runs on this machine really reached, beside what was predicted: the next prediction learns
//! from it. A line of JSON for each, in a file of the user's that goes nowhere; `CACHALOT_RECORD=off`
//! keeps none.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Older runs than these are not looked at: machines and programs change.
const RUNS: usize = 8;
/// A run of fewer tokens says little.
pub(crate) const TOKENS_MIN: usize = 32;

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// File name and size of the model, threads and whether experts were streamed: what makes two
    /// runs alike.
    pub(crate) model: String,
    pub(crate) size: u64,
    pub(crate) threads: usize,
    pub(crate) streamed: bool,
    /// Tokens per second, before any correction.
    pub(crate) predicted: f64,
    pub(crate) measured: f64,
}

impl Run {
    fn is_like(&self, other: &Self) -> bool {
        let key = |run: &Self| (run.model.clone(), run.size, run.threads, run.streamed);
        key(self) == key(other)
    }
}

/// How many times as fast as predicted runs like this one were: the median of the last ones.
pub(crate) fn ratio(path: Option<&Path>, like: &Run) -> Option<f64> {
    let text = fs::read_to_string(path?).ok()?;
    // A line that makes no sense is of another version, or was cut short.
    let runs = text.lines().filter_map(|line| serde_json::from_str::<Run>(line).ok());
    let mut ratios: Vec<f64> =
        runs.filter(|run| run.is_like(like)).map(|run| run.measured / run.predicted).collect();
    ratios.retain(|ratio| (0.02..50.0).contains(ratio));
    let mut last = ratios.split_off(ratios.len().saturating_sub(RUNS));
    last.sort_by(f64::total_cmp);
    last.get(last.len() / 2).copied()
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
            size: 7,
            threads,
            streamed: false,
            predicted: 10.0,
            measured,
        };
        let kept = path.as_path();
        let path = Some(kept);
        assert_eq!(ratio(path, &run(0.0, 2)), None);
        for measured in [12.0, 8.0, 9.0] {
            keep(path, &run(measured, 2));
        }
        keep(path, &run(30.0, 4));
        fs::write(kept, fs::read_to_string(kept).unwrap() + "{cut sho").unwrap();
        assert_eq!(ratio(path, &run(0.0, 2)), Some(0.9), "the median of those with 2 threads");
        for _ in 0..RUNS {
            keep(path, &run(20.0, 2));
        }
        assert_eq!(ratio(path, &run(0.0, 2)), Some(2.0), "old ones are forgotten");
        assert_eq!(ratio(None, &run(0.0, 2)), None);
        keep(None, &run(1.0, 1));
    }
}
