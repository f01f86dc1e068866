//! `cachalot completions` and the man pages: both generated from the definition of the command
//! line.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::output::cannot_write;

/// Prints a completion script.
pub(crate) fn completions(shell: Shell, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cachalot", &mut script);
    out.write_all(&script)?;
    Ok(out.flush()?)
}

/// Writes `cachalot.1` and a page for each command into `folder`. They name the version without the
/// commit, so that they change only with the command line.
pub(crate) fn man(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| cannot_write(folder))?;
    let command = Cli::command().long_version(env!("CARGO_PKG_VERSION"));
    clap_mangen::generate_to(command, folder).with_context(|| cannot_write(folder))
}
