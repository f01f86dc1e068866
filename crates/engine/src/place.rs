//! From a source of bytes to a model over weights that lie where there is room for them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cachalot_kernels::Cpu;
use cachalot_model::{Config, Experts, Model, ModelOptions, Resident, Streamed, Traced};
use cachalot_store::{Placement, Reader, Weights};

use crate::assemble::{CONTEXT_DEFAULT_MAX, Options, Source};
use crate::stream::{Needs, Plan, Stream, Streaming, headroom, plan};
use crate::warm::warm;
use crate::{Error, machine};

/// Memory of the program itself, with vocabulary and stacks, that a budget must cover as well.
const PROGRAM_BYTES: u64 = 96 << 20;

/// A model over its weights.
#[derive(Debug)]
pub struct Placed {
    /// The weights; those that are streamed have no bytes.
    pub weights: Weights,
    /// The model.
    pub model: Model,
    /// If experts are streamed.
    pub streaming: Option<Streaming>,
    /// Tokens of context that memory was set aside for, if experts are streamed.
    pub context: Option<usize>,
    /// Files that are mapped, and should be read before they are needed.
    mapped: Vec<PathBuf>,
}

impl Placed {
    /// Reads mapped files that are not in memory, if all of them have room beside what `needed`
    /// bytes are for. `progress` gets the bytes read and their total.
    pub fn warm(&self, needed: u64, progress: &mut dyn FnMut(u64, u64)) {
        let room = machine::memory_available().unwrap_or(u64::MAX);
        warm(&self.mapped, room.saturating_sub(needed), progress);
    }
}

/// Puts a model in its place. `progress` gets the bytes read and their total.
///
/// # Errors
/// If the source is no valid model of a supported architecture, or the options do not fit it or
/// this machine.
pub fn place(
    source: &Source,
    options: &Options,
    cpu: &Arc<Cpu>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Placed, Error> {
    match source {
        Source::Embedded(bytes) => resident(Weights::from_static(bytes)?, options, cpu, Vec::new()),
        Source::File(path) => {
            // Mapped, this reads the header alone.
            let weights = Weights::open(path, Placement::Mapped)?;
            placed_file(path, weights, options, cpu, progress).map_err(|error| match error {
                Error::Store(_) => error,
                _ => Error::InFile { path: path.clone(), source: Box::new(error) },
            })
        }
    }
}

fn placed_file(
    path: &Path,
    weights: Weights,
    options: &Options,
    cpu: &Arc<Cpu>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Placed, Error> {
    if weights.tensors().is_empty() {
        return Err(Error::NoWeights);
    }
    let model_options = model_options(options);
    let config = Config::of(&weights, &model_options)?;
    if let Some(asked) = options.context.filter(|&asked| asked > config.context) {
        return Err(Error::ContextTooLong { asked, model: config.context });
    }
    // A file in memory is used where it is: a copy would take as much again.
    let in_memory = weights.files().iter().all(|path| machine::is_memory(path));
    let stream =
        if in_memory && options.stream == Stream::Auto { Stream::Never } else { options.stream };
    let room = match (options.memory, machine::memory_available()) {
        (Some(memory), _) => memory.saturating_sub(PROGRAM_BYTES),
        (None, Some(available)) => {
            available.saturating_sub(headroom(available).saturating_add(PROGRAM_BYTES))
        }
        (None, None) => u64::MAX,
    };
    let needs = Needs::of(&weights, &config, options.kv_type);
    let context_max = config.context.min(CONTEXT_DEFAULT_MAX) as u64;
    let context = (options.context.map(|tokens| tokens as u64), context_max);
    match plan(&needs, stream, context, room)? {
        Plan::Resident => {
            let files = weights.files().to_vec();
            resident(weights, options, cpu, files)
        }
        Plan::Streamed { cache, context, micro_batch } => {
            drop(weights);
            let model_options = ModelOptions { micro_batch, ..model_options };
            let mut reader = Reader::start().map_err(|e| Error::Reader { source: e })?;
            let mut go_on = |done, all| {
                progress(done, all);
                true
            };
            let (weights, rate) = Weights::open_streamed(path, &mut reader, &mut go_on)?;
            let mut streamed = Streamed::bind(&weights, &config, reader, cache)?;
            if let Some(folder) = &options.memories {
                streamed.remember(folder.join(memory_name(&weights, path)));
            }
            let is_locked = streamed.is_locked();
            let monitor = streamed.monitor();
            let streaming = Streaming { monitor, rate, is_locked, routed: needs.routed };
            let experts: Box<dyn Experts> = Box::new(streamed);
            let model = load(&weights, cpu, &model_options, &config, Some(experts), options)?;
            Ok(Placed {
                weights,
                model,
                streaming: Some(streaming),
                context: Some(context as usize),
                mapped: Vec::new(),
            })
        }
    }
}

/// The name of the file that remembers which experts of a model are popular: as good as unique.
fn memory_name(weights: &Weights, path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    format!("{stem}-{}.popular", weights.size())
}

fn resident(
    weights: Weights,
    options: &Options,
    cpu: &Arc<Cpu>,
    mapped: Vec<PathBuf>,
) -> Result<Placed, Error> {
    if weights.tensors().is_empty() {
        return Err(Error::NoWeights);
    }
    let model_options = model_options(options);
    let config = Config::of(&weights, &model_options)?;
    let model = load(&weights, cpu, &model_options, &config, None, options)?;
    Ok(Placed { weights, model, streaming: None, context: None, mapped })
}

fn model_options(options: &Options) -> ModelOptions {
    ModelOptions {
        expert_groups: options.groups,
        experts: options.experts,
        ..ModelOptions::default()
    }
}

/// The model, its routing written down if that is wanted.
fn load(
    weights: &Weights,
    cpu: &Arc<Cpu>,
    model_options: &ModelOptions,
    config: &Config,
    experts: Option<Box<dyn Experts>>,
    options: &Options,
) -> Result<Model, Error> {
    let experts = match (&options.trace, experts) {
        (None, None) => return Ok(Model::load(weights, cpu, model_options)?),
        (None, Some(experts)) => experts,
        (Some(path), experts) => {
            let inner = match experts {
                Some(experts) => experts,
                None => Box::new(Resident::bind(weights, config, 0..config.layers)?),
            };
            let file =
                File::create(path).map_err(|source| Error::Trace { path: path.clone(), source })?;
            Box::new(Traced::new(inner, config, file)?)
        }
    };
    Ok(Model::load_with_experts(weights, cpu, model_options, experts)?)
}
