//! What `plan` predicts of this machine, beside what `bench` measures here: calf and a synthetic
//! model of R1's shapes, resident and with experts streamed under a memory limit.
//!
//! It measures, so it needs a quiet machine, a release build, and to be asked for:
//!
//! ```text
//! CACHALOT_MEASURE=FOLDER cargo test --release --test planned -- --nocapture
//! ```
//!
//! `FOLDER` is on the drive that is to be measured, with 9 GB free for the synthetic model, which
//! is kept there.
#![allow(clippy::unwrap_used)] // what fails here is a test

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{cachalot, calf, succeeds};
use serde_json::Value;

/// How far a prediction of this machine may be off, as a share of what is measured.
const ERROR_MAX: f64 = 0.25;
/// Options for the synthetic model: as in `bench/README.md`.
const SYNTHETIC: [&str; 10] = [
    "--shape",
    "r1",
    "--moe-layers",
    "3",
    "--dense-layers",
    "1",
    "--recipe",
    "ud-iq1_s",
    "--vocab",
    "8192",
];

/// The program's answer in JSON.
#[track_caller]
fn json(args: &[&str]) -> Value {
    serde_json::from_str(&succeeds(cachalot(args)).stdout).unwrap()
}

/// Writes the synthetic model, unless an earlier run has.
fn synthetic(folder: &Path) -> PathBuf {
    let file = folder.join("r1-ud-iq1_s-3-layers.gguf");
    if !file.exists() {
        let mut cargo = Command::new("cargo");
        cargo.args(["xtask", "synth"]).arg(&file).args(SYNTHETIC);
        assert!(cargo.status().unwrap().success(), "cargo xtask synth {}", file.display());
    }
    file
}

#[test]
fn this_machine_is_predicted_as_it_is_measured() {
    let Some(folder) = std::env::var_os("CACHALOT_MEASURE") else {
        println!("skipped: CACHALOT_MEASURE names no folder, and measuring takes a quiet machine");
        return;
    };
    let (calf, synthetic) = (calf(), synthetic(Path::new(&folder)));
    let mut wrong = Vec::new();
    for (file, options) in [
        (&calf, &[][..]),
        (&synthetic, &["--stream", "never"][..]),
        (&synthetic, &["--memory", "4GB"][..]),
        (&synthetic, &["--memory", "2GB"][..]),
    ] {
        let file = file.to_str().unwrap();
        let plan = json(&[&["plan", file, "--json"], options].concat());
        let bench = ["bench", "-m", file, "-p", "0", "-n", "64", "-r", "3", "--json"];
        let bench = json(&[&bench, options].concat());
        let predicted = plan["rates"][0]["decode"]["likely"].as_f64().unwrap();
        let measured = bench["decode"][0]["tokens_per_second"].as_f64().unwrap();
        let error = predicted / measured - 1.0;
        let what = format!("{file} {}", options.join(" "));
        println!(
            "{what}: predicted {predicted:.2} tok/s, measured {measured:.2}, {:+.0} %",
            error * 100.0
        );
        if error.abs() > ERROR_MAX {
            wrong.push(what);
        }
    }
    assert!(wrong.is_empty(), "more than {:.0} % off: {wrong:?}", 100.0 * ERROR_MAX);
}
