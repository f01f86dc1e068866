//! `cachalot cp`: another name for a model. Nothing is copied.

use std::io::Write;

use cachalot_hub::Name;

use crate::models::{self, NetworkArgs};
use crate::settings::Environment;

/// Options of `cachalot cp`.
#[derive(clap::Args, Debug)]
pub(crate) struct CpArgs {
    /// The model
    source: String,
    /// Its new name, such as my-r1 or my-r1:fast
    target: String,
}

/// Enters the new name.
pub(crate) fn run(
    args: &CpArgs,
    environment: &Environment,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let hub = models::hub(environment, &NetworkArgs::default())?;
    let (source, target): (Name, Name) = (args.source.parse()?, args.target.parse()?);
    hub.library().copy(&source, &target)?;
    writeln!(out, "{target} is {source}")?;
    Ok(out.flush()?)
}
