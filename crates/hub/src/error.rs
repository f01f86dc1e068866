//! What can go wrong between a name and a verified file.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Sha256;

/// Why something could not be found, fetched or kept. Every message says where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A text is not a model name.
    #[error("`{name}` is not a model name: {reason}")]
    Name {
        /// What was written.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The library has no such model.
    #[error("there is no model `{name}` here: `cachalot list` shows what there is")]
    NotHere {
        /// The name asked for.
        name: String,
    },
    /// The service has no such model.
    #[error("{url}: no such model (status {status}). {hint}")]
    NotFound {
        /// What was asked.
        url: String,
        /// The status of the answer.
        status: u16,
        /// What may be the reason.
        hint: String,
    },
    /// A repository has several quantizations.
    #[error("{name} comes in several quantizations: choose one, as in `{}", example(.name, .choices))]
    Choose {
        /// The name.
        name: String,
        /// Their names, smallest first.
        choices: Vec<String>,
    },
    /// A repository has no such quantization.
    #[error("{name} has no quantization `{quant}`; it has {}", list(.choices))]
    NoQuant {
        /// The name.
        name: String,
        /// What was asked for.
        quant: String,
        /// Their names, smallest first.
        choices: Vec<String>,
    },
    /// What a service said of a model makes no sense.
    #[error("{url}: {reason}")]
    Answer {
        /// What was asked.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// A request failed, and repeating it did not help.
    #[error(
        "{url}: {reason}, after {tries} attempts; what has arrived is kept: run the same command again"
    )]
    GaveUp {
        /// What was asked.
        url: String,
        /// The last failure.
        reason: String,
        /// How often it was tried.
        tries: u32,
    },
    /// The service asks for a wait that is too long.
    #[error(
        "{url} asks to wait {seconds} s before the next request; run the same command again then"
    )]
    Busy {
        /// What was asked.
        url: String,
        /// How long.
        seconds: u64,
    },
    /// An address may not be asked.
    #[error("{url}: {reason}")]
    Refused {
        /// The address.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The network may not be used.
    #[error("{what} is not here, and HF_HUB_OFFLINE forbids asking for it")]
    Offline {
        /// The name or address.
        what: String,
    },
    /// A file changed at the service while it was fetched, twice.
    #[error("{file} changed at {host} while it was fetched: run the same command again")]
    Changed {
        /// The file.
        file: String,
        /// Where it is from.
        host: String,
    },
    /// A file arrived twice, and was wrong both times.
    #[error("{file} arrived with the hash {found}, twice, instead of {expected}: it was not kept")]
    WrongHash {
        /// The file.
        file: String,
        /// What the service states.
        expected: Sha256,
        /// What the bytes have.
        found: Sha256,
    },
    /// There is no room.
    #[error("{}: {needed} bytes are needed, {free} are free. Make room, or choose another folder \
             with --to", .folder.display())]
    NoSpace {
        /// The folder.
        folder: PathBuf,
        /// Bytes that are still to be written.
        needed: u64,
        /// Bytes that may be written.
        free: u64,
    },
    /// Somebody else is doing this.
    #[error("{what} is in use by another process: {hint}")]
    Locked {
        /// What.
        what: String,
        /// What to do.
        hint: String,
    },
    /// A model belongs to another program.
    #[error("{name} belongs to {owner}, whose files are never altered here: {hint}")]
    Foreign {
        /// The model.
        name: String,
        /// The program.
        owner: &'static str,
        /// What to do.
        hint: String,
    },
    /// A name is taken.
    #[error("there is a model `{name}` already: remove it first with `cachalot rm {name}`")]
    Exists {
        /// The name.
        name: String,
    },
    /// A file of a model is not there, or has another size.
    #[error("{}: {reason}", .path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file or folder could not be used.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A GGUF header makes no sense.
    #[error("{}", with_file(.file, .source))]
    Gguf {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: cachalot_gguf::Error,
    },
    /// The caller stopped it.
    #[error("stopped; what has arrived is kept")]
    Cancelled,
}

/// An error of a header, with its file unless it names that itself.
fn with_file(file: &str, source: &cachalot_gguf::Error) -> String {
    let text = source.to_string();
    if text.starts_with(file) { text } else { format!("{file}: {text}") }
}

/// The name with its first quantization, and the list of all.
fn example(name: &str, choices: &[String]) -> String {
    let first = choices.first().map_or("QUANT", String::as_str);
    format!("{name}:{first}`: {}", list(choices))
}

fn list(choices: &[String]) -> String {
    choices.join(", ")
}

/// Names the file or folder of an error.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { path, source }
}
