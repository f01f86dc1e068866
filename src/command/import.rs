//! `cachalot import`: a name for a GGUF file that is already there. The file is not copied.

use std::io::Write;
use std::path::PathBuf;

use anyhow::anyhow;
use cachalot_hub::{Library, Name};
use cachalot_plan::units;

use crate::models::{self, NetworkArgs};
use crate::settings::Environment;

/// Options of `cachalot import`.
#[derive(clap::Args, Debug)]
pub(crate) struct ImportArgs {
    /// A .gguf file; any part of a split model
    file: PathBuf,
    /// Its name [default: the name of the file]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// Enters the file.
pub(crate) fn run(
    args: &ImportArgs,
    environment: &Environment,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let hub = models::hub(environment, &NetworkArgs::default())?;
    let name: Name = match &args.name {
        Some(name) => name.parse()?,
        None => Library::name_for(&args.file)
            .ok_or_else(|| anyhow!("{}: give it a name with --name", args.file.display()))?,
    };
    let model = hub.library().import(&args.file, &name)?;
    let (count, size) = (model.files.len(), units::bytes(model.size()));
    let files = if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
    writeln!(out, "{name}: {files}, {size}, used in place")?;
    Ok(out.flush()?)
}
