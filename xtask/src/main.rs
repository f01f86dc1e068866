//! Chores of the repository, as `cargo xtask NAME`.
#![forbid(unsafe_code)]

mod replay;
mod synth;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask NAME

  tidy    check the rules of style that a program can check; CONTRIBUTING.md gives their reasons
  synth   write a model with random weights at a published model's shapes; --help tells more
  trace   write a trace of routing with the skew and repeats of published models
  replay  replay a trace of routing with caches of several sizes and policies";

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("tidy") => run_tidy(),
        Some("synth") => ended(synth::run(std::env::args().skip(1))),
        Some("trace") => ended(replay::run_generate(std::env::args().skip(1))),
        Some("replay") => ended(replay::run(std::env::args().skip(1))),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_tidy() -> ExitCode {
    let findings = match tidy::check(&root()) {
        Ok(findings) => findings,
        Err(error) => {
            eprintln!("error: the repository cannot be read: {error}");
            return ExitCode::FAILURE;
        }
    };
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => ExitCode::SUCCESS,
        count => {
            eprintln!("tidy: {count} to put right");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace.
fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
