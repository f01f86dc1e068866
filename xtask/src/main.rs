//! Maintenance commands of the repository: `cargo xtask NAME`.
#![forbid(unsafe_code)]

mod faq;
mod package;
mod replay;
mod synth;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask NAME

  tidy    check the style rules that a program can check; CONTRIBUTING.md gives the reasons
  man     write the man pages in packaging/man again
  dist    build a release binary with its debug lines in a separate file
  faq     write docs/faq.md with answers of the program
  synth   write a model with random weights and the shapes of a published one; see --help
  trace   write a routing trace with the skew and repetition of published models
  replay  replay a routing trace with caches of several sizes and policies";

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("tidy") => run_tidy(),
        Some("faq") => ended(faq::run(&root())),
        Some("man") => ended(package::man(&root())),
        Some("dist") => ended(package::dist(&root())),
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
            eprintln!("tidy: {count} findings");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace.
fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
