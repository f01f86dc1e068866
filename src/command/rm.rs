//! `cachalot rm`: removes a model's name, and its files once no other name has them.

use std::io::Write;

use cachalot_hub::Name;
use cachalot_plan::units;

use crate::models::{self, NetworkArgs};
use crate::settings::Environment;

/// Options of `cachalot rm`.
#[derive(clap::Args, Debug)]
pub(crate) struct RmArgs {
    /// Names of models, as `cachalot list` shows them
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Removes each, or none if one of them cannot be removed.
pub(crate) fn run(
    args: &RmArgs,
    environment: &Environment,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let hub = models::hub(environment, &NetworkArgs::default())?;
    let names: Vec<Name> = args.names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
    for (name, freed) in hub.library().remove_all(&names)? {
        let freed = match freed {
            0 => String::new(),
            freed => format!(", {} freed", units::bytes(freed)),
        };
        writeln!(out, "removed {name}{freed}")?;
    }
    Ok(out.flush()?)
}
