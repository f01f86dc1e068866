//! The `cachalot` program: dispatches a command and maps its result to an exit code.

#![forbid(unsafe_code)]

mod args;
mod arriving;
mod client;
mod command;
mod conversation;
mod devices;
mod embedded;
mod facts;
mod failure;
mod forecast;
mod hardware;
mod input;
mod interrupt;
mod library;
mod models;
mod output;
mod record;
mod remote;
mod settings;
mod state;
mod subject;
mod terminal;
mod values;

use std::io::stdout;
use std::path::Path;
use std::process::ExitCode;
use std::thread::{self, JoinHandle};

use clap::Parser;

use crate::args::{Cli, Command};
use crate::settings::Environment;

/// The stack of the program's thread. The system's limit for the main thread (`ulimit -s`) can be
/// too small for parsing a command line.
const STACK_BYTES: usize = 8 << 20;

fn main() -> ExitCode {
    match thread::Builder::new().stack_size(STACK_BYTES).spawn(program).map(JoinHandle::join) {
        Ok(Ok(code)) => code,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(error) => failure::report(&error.into()),
    }
}

fn program() -> ExitCode {
    terminal::fit();
    let environment = Environment::read();
    let ended = environment.and_then(|environment| {
        let here = |model: &Path, headers| models::local(model, &environment, headers);
        match Cli::parse().command {
            Command::Run(args) => command::run::run(args, &environment),
            Command::Show(args) => command::show::run(&args, &environment, &mut stdout()),
            Command::Pull(args) => command::pull::run(&args, &environment, &mut stdout()),
            Command::List(args) => command::list::run(&args, &environment, &mut stdout()),
            Command::Rm(args) => command::rm::run(&args, &environment, &mut stdout()),
            Command::Cp(args) => command::cp::run(&args, &environment, &mut stdout()),
            Command::Import(args) => command::import::run(&args, &environment, &mut stdout()),
            Command::Verify(args) => command::verify::run(&args, &environment, &mut stdout()),
            Command::Prune(args) => command::prune::run(&args, &environment, &mut stdout()),
            Command::Serve(args) => command::serve::run(*args, &environment),
            Command::Ps(args) => command::ps::run(&args, &environment, &mut stdout()),
            Command::Stop(args) => command::stop::run(&args, &environment, &mut stdout()),
            Command::Tokenize(mut args) => {
                args.model = here(&args.model, true)?;
                command::tokenize::tokenize(&args)
            }
            Command::Detokenize(mut args) => {
                args.model = here(&args.model, true)?;
                command::tokenize::detokenize(&args)
            }
            Command::Logits(mut args) => {
                args.file = here(&args.file, false)?;
                command::logits::run(&args, &environment)
            }
            Command::Bench(mut args) => {
                args.file = args.file.map(|file| here(&file, false)).transpose()?;
                command::bench::run(&args, &environment, &mut stdout())
            }
            Command::Plan(args) => command::plan::run(&args, &environment, &mut stdout()),
            Command::Perplexity(mut args) => {
                args.model = here(&args.model, false)?;
                args.against = args.against.map(|file| here(&file, false)).transpose()?;
                command::perplexity::run(&args, &environment, &mut stdout())
            }
            Command::Completions(args) => command::shell::completions(args.shell, &mut stdout()),
            Command::Man(args) => command::shell::man(&args.folder),
        }
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
