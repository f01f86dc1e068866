//! `cachalot prune`: removes files of the library that no model needs.

use std::io::Write;

use cachalot_plan::units;

use crate::models::{self, NetworkArgs};
use crate::settings::Environment;
use crate::terminal::without_controls;

/// Options of `cachalot prune`.
#[derive(clap::Args, Debug)]
pub(crate) struct PruneArgs {
    /// Remove unfinished downloads as well
    #[arg(long)]
    partials: bool,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

/// Removes them.
pub(crate) fn run(
    args: &PruneArgs,
    environment: &Environment,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let hub = models::hub(environment, &NetworkArgs::default())?;
    let pruned = hub.library().prune(args.partials, args.dry_run)?;
    for path in &pruned.paths {
        writeln!(out, "{}", without_controls(&path.display().to_string()))?;
    }
    let (what, bytes) = (if args.dry_run { "would be freed" } else { "freed" }, pruned.bytes);
    writeln!(out, "{} {what}", units::bytes(bytes))?;
    Ok(out.flush()?)
}
