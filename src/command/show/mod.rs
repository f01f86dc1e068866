//! `cachalot show`: what a file is and what it requires, from its header alone.
//!
//! The verdict comes first, because the usual question is whether this is the real R1. Any GGUF
//! file is described, whether cachalot runs it or not, and a model of 700 GB as fast as one of 1
//! MB.

mod json;
mod page;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use cachalot_engine::layout::{Verdict, verdict};
use cachalot_gguf::split::{Part, Set};
use cachalot_kernels::Format;
use cachalot_plan::{Demand, Identity, identity};

use crate::models;
use crate::settings::Environment;

/// Arguments of `cachalot show`.
#[derive(clap::Args, Debug)]
pub(crate) struct ShowArgs {
    /// A .gguf file, any part of a split model, or the name of one that is here or being downloaded
    #[arg(value_name = "MODEL")]
    pub(crate) file: PathBuf,
    /// Print everything as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// List every tensor with its type, shape, size and offset
    #[arg(long)]
    pub(crate) tensors: bool,
}

/// Describes the model that `args.file` belongs to.
pub(crate) fn run(
    args: &ShowArgs,
    environment: &Environment,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let shown = Shown::open(&models::local(&args.file, environment, true)?)?;
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &json::object(&shown, args.tensors))?;
        writeln!(out)?;
    } else {
        out.write_all(page::text(&shown, args.tensors).as_bytes())?;
    }
    Ok(out.flush()?)
}

/// A model as described by its headers.
pub(crate) struct Shown {
    pub(crate) set: Set,
    /// Total bytes of its files.
    size: u64,
    pub(crate) demand: Demand,
    pub(crate) identity: Identity,
    /// Why `run` would refuse it, or what it would warn of.
    verdict: Result<Verdict, String>,
}

impl Shown {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let set = Set::open(path)?;
        let mut size = 0;
        for Part { path, .. } in &set.parts {
            size += fs::metadata(path).with_context(|| path.display().to_string())?.len();
        }
        Ok(Self::new(set, size))
    }

    pub(crate) fn new(set: Set, size: u64) -> Self {
        let demand = Demand::of(&set.metadata, set.tensors.iter().map(|tensor| &tensor.info));
        let identity = identity::identify(&set.metadata, &demand, &file_name(&set.parts[0].path));
        let tensors = set.tensors.iter().map(|tensor| &tensor.info);
        let verdict = verdict(&set.metadata, tensors)
            .map_err(|error| format!("{:#}", anyhow::Error::from(error)));
        Self { set, size, demand, identity, verdict }
    }

    /// Tensor types without a kernel.
    pub(crate) fn types_without_kernel(&self) -> Vec<&'static str> {
        let types = self.demand.types.iter().map(|(ty, _)| *ty);
        types.filter(|ty| Format::from_id(ty.id()).is_none()).map(|ty| ty.name()).collect()
    }

    /// Whether cachalot runs it.
    pub(crate) fn runs(&self) -> bool {
        self.identity.runs && self.types_without_kernel().is_empty() && self.verdict.is_ok()
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
