//! `cachalot stop`: shuts a running server down; answers in flight finish.

use std::io::Write;

use clap::Args;

use crate::client::{ServerArgs, ask};
use crate::settings::Environment;

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Tells the server to stop.
pub(crate) fn run(
    args: &StopArgs,
    environment: &Environment,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    ask(&args.server, environment, "POST", "/api/cachalot/stop")?;
    writeln!(out, "The server is shutting down; answers in flight finish.")?;
    Ok(())
}
