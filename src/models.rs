//! Names of models on the command line: which words are names, and which files they stand for.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use cachalot_hub::{Hub, Library, Name};
use cachalot_plan::catalogue::{self, Resolved};

use crate::settings::Environment;
use crate::values;

/// No token is longer.
const TOKEN_MAX: usize = 4096;

/// What `--help` says about names.
pub(crate) const NAMES: &str = "\
Names:
  deepseek-r1:671b                 Ollama's registry; the tag is `latest` unless given
  owner/name[:quant]               with one slash and no host: Hugging Face
  hf.co/owner/name[:quant]         Hugging Face, said outright
  ollama.com/owner/model[:tag]     Ollama's registry, said outright
  host[:port]/owner/model[:tag]    another registry that speaks Ollama's protocol
  https://...                      the address of any of these, or of a .gguf file
Plain http is used on this machine alone, and elsewhere only with --insecure.";

/// Options of downloads that several commands take.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Network")]
pub(crate) struct NetworkArgs {
    /// Limit of the download rate, such as 20MB/s
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) limit: Option<u64>,
    /// Number of connections
    #[arg(long, value_name = "N", value_parser = values::within::<u16>(1..=64))]
    pub(crate) connections: Option<u16>,
    /// Allow plain http beyond this machine
    #[arg(long)]
    pub(crate) insecure: bool,
}

fn rate(text: &str) -> Result<u64, String> {
    let rate = cachalot_plan::units::parse_rate(text).map_err(|error| error.to_string())?;
    if rate >= 1.0 { Ok(rate as u64) } else { Err("at least 1 byte per second".to_owned()) }
}

/// The library and both services, as the environment and these options say.
///
/// # Errors
/// Without a home folder, or for a token file that cannot be read.
pub(crate) fn hub(environment: &Environment, network: &NetworkArgs) -> anyhow::Result<Hub> {
    let places = environment.models.as_ref().ok_or_else(|| {
        anyhow!("there is no folder for models: set CACHALOT_MODELS (or HOME) to one")
    })?;
    let mut settings = places.hub.clone();
    if let Some(path) = &places.token_file {
        match fs::read_to_string(path) {
            Ok(token) if token.len() <= TOKEN_MAX => {
                settings.token = Some(token.trim().to_owned()).filter(|token| !token.is_empty());
            }
            Ok(_) => bail!("{}: a token is shorter than that", path.display()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let what = || format!("the token of Hugging Face, {}", path.display());
                return Err(error).with_context(what);
            }
        }
        // Said here with the file's name, and never with what is in it.
        if settings.token.iter().any(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            bail!("{}: a token is one word of ASCII characters", path.display());
        }
    }
    settings.limit = network.limit;
    settings.insecure = network.insecure;
    settings.connections = network.connections.map_or(settings.connections, usize::from);
    Ok(Hub::new(settings))
}

/// The library alone; `None` without a home folder.
pub(crate) fn library(environment: &Environment) -> Option<Library> {
    Some(Library::new(&environment.models.as_ref()?.hub))
}

/// The file that a word stands for: a path as it is, a name as the library has it. `headers`: of a
/// download that has not finished, the files that hold its headers will do.
///
/// # Errors
/// If there is no such model here.
pub(crate) fn local(
    word: &Path,
    environment: &Environment,
    headers: bool,
) -> anyhow::Result<PathBuf> {
    let is_gguf = word.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
    let text = word.to_str().filter(|_| !is_gguf && !word.exists());
    let name = text.and_then(|text| text.parse::<Name>().ok());
    let (Some(name), Some(library)) = (name, library(environment)) else {
        return Ok(word.to_owned()); // opening it says what is wrong with it
    };
    if let Some(model) = library.find(&name)? {
        return Ok(library.runnable(&model)?);
    }
    if headers && let Some(path) = library.headers(&name) {
        return Ok(path);
    }
    bail!("{}", not_here(&name))
}

/// The file of a model that is here, or the headers of one that is being downloaded, by its name.
pub(crate) fn here(word: &str, environment: &Environment) -> Option<PathBuf> {
    let name: Name = word.parse().ok().filter(|_| !Path::new(word).exists())?;
    let library = library(environment)?;
    match library.find(&name).ok()? {
        Some(model) => library.runnable(&model).ok(),
        None => library.headers(&name),
    }
}

/// Whether the library has a model of this name, or one that is being downloaded, even if it cannot
/// be run: using it says why.
pub(crate) fn knows(word: &str, environment: &Environment) -> bool {
    let name = word.parse::<Name>().ok().filter(|_| !Path::new(word).exists());
    name.zip(library(environment)).is_some_and(|(name, library)| {
        !matches!(library.find(&name), Ok(None)) || library.headers(&name).is_some()
    })
}

fn not_here(name: &Name) -> String {
    format!("there is no file and no model `{name}` here: `cachalot pull {name}` downloads it")
}

/// The file of a model that is to be run. If it is not here, it is downloaded, after asking; `None`
/// if it cannot be asked for, or is not wanted.
///
/// # Errors
/// If it is a distill, or cannot be downloaded.
pub(crate) fn for_run(word: &str, environment: &Environment) -> anyhow::Result<Option<PathBuf>> {
    let Ok(name) = word.parse::<Name>() else { return Ok(None) };
    if environment.models.is_none() {
        return Ok(None);
    }
    let hub = hub(environment, &NetworkArgs::default())?;
    if let Some(model) = hub.library().find(&name)? {
        return Ok(Some(hub.library().runnable(&model)?));
    }
    checked(word, &name, false)?;
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Ok(None);
    }
    eprintln!("There is no model `{name}` here.");
    let args = crate::command::pull::PullArgs::of(word);
    match crate::command::pull::pull(&args, &hub, environment, &mut io::stderr())? {
        Some(model) => Ok(Some(hub.library().runnable(&model)?)),
        None => Ok(None),
    }
}

/// Checks a name against what is known of published models: a distill is not R1, and a name that is
/// nearly a known one is probably misspelled. `word` is the name as it was written: with its host,
/// it is taken as it is.
///
/// # Errors
/// One sentence that says what the name really is, or what may be meant.
pub(crate) fn checked(word: &str, name: &Name, distill: bool) -> anyhow::Result<()> {
    if !name.is_ollama_library() && !matches!(name, Name::HuggingFace(_)) {
        return Ok(());
    }
    match catalogue::resolve(&name.to_string(), None) {
        Resolved::Distill(found) if !distill => {
            bail!("{}. With --distill, it is downloaded all the same", found.verdict())
        }
        Resolved::Unknown { nearest } if !word.contains('/') && !nearest.is_empty() => {
            bail!(
                "`{name}` is not a known model. Did you mean {}? (To download it under \
                 exactly this name: ollama.com/library/{name})",
                nearest.join(", ")
            )
        }
        _ => Ok(()),
    }
}

/// Asks a question on the terminal. `default` is the answer to an empty line.
///
/// # Errors
/// If the terminal cannot be read.
pub(crate) fn confirm(question: &str, default: bool) -> anyhow::Result<bool> {
    let choices = if default { "[Y/n]" } else { "[y/N]" };
    eprint!("{question} {choices} ");
    io::stderr().flush()?;
    let mut line = String::new();
    if io::stdin().read_line(&mut line)? == 0 {
        return Ok(false);
    }
    Ok(match line.trim().to_lowercase().as_str() {
        "" => default,
        "y" | "yes" => true,
        _ => false,
    })
}
