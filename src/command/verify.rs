//! `cachalot verify`: whether the files of models are those that were downloaded.

use std::io::Write;
use std::sync::atomic::Ordering;

use anyhow::bail;
use cachalot_hub::{Error, Name, Verdict};
use serde_json::json;

use crate::failure::Exit;
use crate::interrupt::Interrupt;
use crate::models::{self, NetworkArgs};
use crate::settings::Environment;
use crate::terminal::{Progress, without_controls};

/// What to do about files that are wrong.
const AGAIN: &str = "`cachalot pull` fetches what is damaged again; of an imported model, replace the \
                     file, or `cachalot rm` its name and import it again";

/// Options of `cachalot verify`.
#[derive(clap::Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Names of models [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Read every byte and compare hashes, instead of trusting sizes and times
    #[arg(long)]
    deep: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Looks at each file.
pub(crate) fn run(
    args: &VerifyArgs,
    environment: &Environment,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let hub = models::hub(environment, &NetworkArgs::default())?;
    let (names, warnings): (Vec<Name>, Vec<String>) = match args.names.is_empty() {
        true => {
            let listing = hub.library().list();
            (listing.models.into_iter().map(|model| model.name).collect(), listing.warnings)
        }
        false => {
            let names = args.names.iter().map(|name| name.parse());
            (names.collect::<Result<_, _>>()?, Vec::new())
        }
    };
    for warning in &warnings {
        eprintln!("warning: {}", without_controls(warning));
    }
    let interrupt = Interrupt::install()?;
    let (mut bad, mut rows) = (0, Vec::new());
    for name in &names {
        let mut bar = Progress::new("verifying");
        let files = interrupt.during(|cancel| {
            hub.library().verify(name, args.deep, &mut |progress| {
                bar.set(progress.done, progress.total);
                !cancel.load(Ordering::SeqCst)
            })
        });
        bar.clear();
        let files = match files {
            Err(Error::Cancelled) => return Err(Exit::Interrupted.into()),
            // Another process has removed it since it was listed.
            Err(Error::NotHere { .. }) if args.names.is_empty() => continue,
            files => files?,
        };
        for (file, verdict) in files {
            bad += usize::from(!verdict.is_good());
            let said = said(&verdict);
            if args.json {
                let (name, good) = (name.to_string(), verdict.is_good());
                rows.push(
                    json!({ "model": name, "path": file.path, "good": good, "verdict": said }),
                );
            } else {
                let line = format!("{name}  {}  {said}", file.path.display());
                writeln!(out, "{}", without_controls(&line))?;
            }
        }
    }
    if names.is_empty() && warnings.is_empty() && !args.json {
        writeln!(out, "There are no models to verify: `cachalot pull NAME` downloads one.")?;
    }
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&json!({ "files": rows }))?)?;
    }
    out.flush()?;
    match (bad, warnings.len()) {
        (0, 0) => Ok(()),
        (0, 1) => bail!("one model could not be looked at"),
        (0, models) => bail!("{models} models could not be looked at"),
        (1, _) => bail!("1 file is not as it was: {AGAIN}"),
        (files, _) => bail!("{files} files are not as they were: {AGAIN}"),
    }
}

fn said(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Good => "good".to_owned(),
        Verdict::Unknown(hash) => format!("{hash}, with nothing to compare it to"),
        Verdict::Missing(why) => format!("MISSING: {why}"),
        Verdict::Size { expected, found } => {
            format!("WRONG SIZE: {found} bytes instead of {expected}")
        }
        Verdict::Touched => "CHANGED since it was downloaded: --deep compares its hash".to_owned(),
        Verdict::Hash { expected, found } => format!("WRONG HASH: {found} instead of {expected}"),
    }
}
