//! `cachalot pull`: from a name to a verified model in the library.
//!
//! Before the first byte it says what the name stands for, whether cachalot runs it, how fast, and
//! whether there is room; then it downloads.

mod auto;
pub(crate) mod bars;
mod preview;
mod target;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::bail;
use cachalot_hub::{Choice, Error, Hub, Model, Name, Offer, Progress};
use cachalot_plan::units;
use serde_json::json;

use self::bars::Bars;
use self::preview::Preview;
use crate::failure::{Exit, usage};
use crate::interrupt::Interrupt;
use crate::models::{self, NAMES, NetworkArgs};
use crate::settings::Environment;
use crate::terminal::{table, without_controls};

/// Options of `cachalot pull`.
#[derive(clap::Args, Debug, Default)]
#[command(after_help = AFTER)]
pub(crate) struct PullArgs {
    /// Name of a model, or its address
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The quantization, if a repository has several; `auto` takes what suits this machine best
    #[arg(long, value_name = "NAME|auto")]
    quant: Option<String>,
    /// Folder for the model's files; several folders share its parts; `ram` is memory, until a
    /// restart
    #[arg(long, value_name = "DIR|ram")]
    to: Vec<PathBuf>,
    /// Say what would be downloaded, and stop
    #[arg(long)]
    dry_run: bool,
    /// Print JSON: what would be downloaded, then progress, an object in each line
    #[arg(long)]
    json: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Download a distill, a small model that is named after R1, all the same
    #[arg(long)]
    distill: bool,
    #[command(flatten)]
    network: NetworkArgs,
}

const AFTER: &str = "\
Files are checked by their SHA-256 before a model is listed. A download that was interrupted, by
Ctrl-C or a power failure, is continued by the same command; if another process is downloading the
model, its progress is shown.

Names:
  deepseek-r1:671b                 Ollama's registry; the tag is `latest` unless given
  owner/name[:quant]               with one slash and no host: Hugging Face
  hf.co/owner/name[:quant]         Hugging Face, said outright
  ollama.com/owner/model[:tag]     Ollama's registry, said outright
  host[:port]/owner/model[:tag]    another registry that speaks Ollama's protocol
  https://...                      the address of any of these, or of a .gguf file
Plain http is used on this machine alone, and elsewhere only with --insecure.

Examples:
  cachalot pull deepseek-r1:671b
  cachalot pull unsloth/DeepSeek-R1-GGUF --quant auto
  cachalot pull unsloth/DeepSeek-R1-GGUF:Q8_0 --to /mnt/a --to /mnt/b
  cachalot pull deepseek-r1:671b --dry-run --json";

impl PullArgs {
    /// The options of a pull that `run` begins.
    pub(crate) fn of(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}

/// Downloads a model.
pub(crate) fn run(
    args: &PullArgs,
    environment: &Environment,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    debug_assert!(AFTER.contains(NAMES), "the rules of names are the same everywhere");
    let hub = models::hub(environment, &args.network)?;
    pull(args, &hub, environment, out)?;
    Ok(())
}

/// Downloads a model; `None` if it was only looked at, or is not wanted after all.
pub(crate) fn pull(
    args: &PullArgs,
    hub: &Hub,
    environment: &Environment,
    out: &mut dyn Write,
) -> anyhow::Result<Option<Model>> {
    let interrupt = Interrupt::install()?;
    let mut name: Name = args.name.parse()?;
    models::checked(&args.name, &name, args.distill)?;
    match args.quant.as_deref() {
        None => {}
        Some(_) if !matches!(name, Name::HuggingFace(_)) => {
            return Err(usage("--quant chooses among the files of a repository at Hugging Face"));
        }
        Some("auto") => {
            let chosen = auto::choose(&name, &hub.choices(&name)?, environment)?;
            name = name.with_quant(&chosen);
        }
        Some(quant) => name = name.with_quant(quant),
    }
    models::checked(&args.name, &name, args.distill)?;
    if hub.settings().offline
        && !args.dry_run
        && let Some(model) = hub.library().find(&name)?
    {
        hub.library().runnable(&model)?;
        finish(args, &model, out)?;
        return Ok(Some(model));
    }
    let offer = match hub.resolve(&name) {
        Err(Error::Choose { .. }) => return Err(several(args, hub, &name, out)?),
        offer => offer?,
    };
    let preview = Preview::of(&offer, environment);
    let targets = target::folders(&args.to, &preview, environment)?;
    let rooms = hub.room(&offer, &targets)?;
    if args.json {
        serde_json::to_writer(&mut *out, &preview.json(&offer, &rooms, hub))?;
        writeln!(out)?;
    } else {
        let text = preview.text(&offer, &rooms, hub);
        write!(out, "{}", without_controls(&text))?;
    }
    out.flush()?;
    if args.dry_run {
        return Ok(None);
    }
    if let Some(model) = hub.installed(&offer) {
        finish(args, &model, out)?;
        return Ok(Some(model));
    }
    if !is_wanted(args, &preview, &offer)? {
        writeln!(io::stderr(), "nothing was downloaded")?;
        return Ok(None);
    }
    let model = download(args, hub, &offer, &targets, &interrupt, out)?;
    finish(args, &model, out)?;
    Ok(Some(model))
}

/// What a name stands for, if there is nothing to ask or to choose about it.
///
/// # Errors
/// If it is not known, a distill, or a model that cachalot does not run.
pub(crate) fn offered(word: &str, hub: &Hub, environment: &Environment) -> anyhow::Result<Offer> {
    let name: Name = word.parse()?;
    models::checked(word, &name, false)?;
    let offer = hub.resolve(&name)?;
    let preview = Preview::of(&offer, environment);
    if preview.is_distill {
        bail!("{}", preview.verdict);
    }
    if !preview.runs {
        bail!("cachalot does not run this model: {}", preview.why_not());
    }
    Ok(offer)
}

/// Whether to go on: asked on a terminal; elsewhere the name was enough, unless something is wrong.
fn is_wanted(args: &PullArgs, preview: &Preview, offer: &Offer) -> anyhow::Result<bool> {
    if preview.is_distill && !args.distill {
        bail!("{} With --distill, it is downloaded all the same", preview.verdict);
    }
    if args.yes || (preview.is_distill && args.distill) {
        return Ok(true);
    }
    let asks = io::stdin().is_terminal() && io::stderr().is_terminal();
    match (preview.runs, asks) {
        (true, true) => {
            models::confirm(&format!("Download {}?", units::bytes(offer.set.size())), true)
        }
        (true, false) => Ok(true),
        (false, true) => {
            models::confirm("cachalot does not run it. Download it all the same?", false)
        }
        (false, false) => bail!(
            "cachalot does not run this model ({}): with --yes, it is downloaded all the same",
            preview.why_not()
        ),
    }
}

/// The quantizations of a repository, to choose from.
fn several(
    args: &PullArgs,
    hub: &Hub,
    name: &Name,
    out: &mut dyn Write,
) -> anyhow::Result<anyhow::Error> {
    let choices: Vec<Choice> = hub.choices(name)?;
    if args.json {
        let list: Vec<_> = choices
            .iter()
            .map(|choice| {
                let (label, size) = (&choice.label, choice.size());
                json!({ "quant": label, "size": size, "files": choice.files.len(),
                        "complete": choice.missing.is_empty() })
            })
            .collect();
        let object = json!({ "name": name.to_string(), "choices": list });
        writeln!(out, "{object}")?;
    } else {
        let mut rows = vec![["quant", "size", "files"].map(str::to_owned).to_vec()];
        rows.extend(choices.iter().map(|choice| {
            let gap = if choice.missing.is_empty() { "" } else { " (incomplete)" };
            let files = format!("{}{gap}", choice.files.len());
            vec![choice.label.clone(), units::bytes(choice.size()), files]
        }));
        write!(out, "{}", without_controls(&table("lrl", &rows)))?;
    }
    out.flush()?;
    Ok(usage(format!(
        "{name} comes in several quantizations: choose one with --quant NAME, or --quant auto for the \
         one that suits this machine best"
    )))
}

fn download(
    args: &PullArgs,
    hub: &Hub,
    offer: &Offer,
    targets: &[PathBuf],
    interrupt: &Interrupt,
    out: &mut dyn Write,
) -> anyhow::Result<Model> {
    let mut bars = Bars::new(args.json);
    let result = interrupt.during(|cancel| {
        hub.pull(offer, targets, &mut |progress: &Progress| {
            // A reader that has gone ends the download; what has arrived is kept.
            bars.show(progress, out).is_ok() && !cancel.load(Ordering::SeqCst)
        })
    });
    bars.clear();
    match result {
        Err(Error::Cancelled) => {
            eprintln!("stopped; what has arrived is kept, and the same command continues");
            Err(Exit::Interrupted.into())
        }
        result => Ok(result?),
    }
}

fn finish(args: &PullArgs, model: &Model, out: &mut dyn Write) -> anyhow::Result<()> {
    let name = &model.name;
    if args.json {
        let paths: Vec<_> = model.parts().map(|part| &part.path).collect();
        let object = json!({ "status": "success", "name": name.to_string(), "files": paths });
        writeln!(out, "{object}")?;
    } else {
        writeln!(out, "{name} is complete and verified: cachalot run {name}")?;
    }
    Ok(out.flush()?)
}
