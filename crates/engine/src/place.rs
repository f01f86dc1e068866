//! From a source of bytes to a model over weights that lie where there is room for them. Where that is,
//! the planner says ([`cachalot_plan::fit`]); this carries it out.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cachalot_gguf::{KvType, Metadata, TensorInfo};
use cachalot_kernels::Cpu;
use cachalot_model::{Config, Experts, Model, ModelOptions, Resident, Streamed, Traced};
use cachalot_plan::fit::fit;
use cachalot_plan::{Constraints, Demand, MemoryBudget, Mode, Placement, Stream};
use cachalot_store::{CacheOptions, Placement as Storage, Reader, Weights};

use crate::assemble::interleaved;
use crate::experts::Counted;
use crate::options::{Options, Source};
use crate::stream::Streaming;
use crate::{Error, host};

/// A model over its weights.
#[derive(Debug)]
pub struct Placed {
    /// The weights; those that are streamed have no bytes.
    pub weights: Weights,
    /// The model.
    pub model: Model,
    /// What lies where.
    pub fit: Placement,
    /// If experts are streamed.
    pub streaming: Option<Streaming>,
}

impl Placed {
    /// How keys and values are stored.
    pub fn kv_type(&self) -> KvType {
        self.fit.cache_type
    }

    /// Reads mapped files that are not in memory, if all of them have room beside everything else.
    /// `progress` gets the bytes read and their total.
    pub fn warm(&self, progress: &mut dyn FnMut(u64, u64)) {
        let room = host::memory_available().unwrap_or(u64::MAX);
        self.weights.warm(room.saturating_sub(self.fit.kv + self.fit.buffers), progress);
    }
}

/// The memory that a model may use here: the limit in `options`, or what is free less some headroom.
pub fn memory_budget(options: &Options) -> MemoryBudget {
    match (options.memory, host::memory_available()) {
        (Some(limit), _) => MemoryBudget::limited(limit),
        (None, Some(available)) => MemoryBudget::free(available),
        // Where the system does not say how much is free, allocation decides later.
        (None, None) => MemoryBudget { ram: u64::MAX, drive: true, ..MemoryBudget::default() },
    }
}

/// What `options` leave to the planner, for a model in these files.
pub fn constraints<'a>(
    options: &Options,
    mut files: impl Iterator<Item = &'a Path>,
) -> Constraints {
    // Files in memory are used where they are: a copy would take as much again.
    let in_memory = options.stream == Stream::Auto && files.all(host::is_memory);
    Constraints {
        context: options.context.map(|tokens| tokens as u64),
        cache_type: options.kv_type,
        stream: if in_memory { Stream::Never } else { options.stream },
        memory: options.memory,
        parallel: options.parallel.max(1) as u64,
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
    interleaved(options, || match source {
        Source::Embedded(bytes) => {
            // Its bytes are the program's, wherever that is.
            let options = Options { stream: Stream::Never, huge_pages: false, ..options.clone() };
            placed("calf", Weights::from_static(bytes)?, &options, cpu, progress)
        }
        Source::File(path) => {
            // Mapped, this reads the header alone.
            let weights = Weights::open(path, Storage::Mapped)?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            placed(&name, weights, options, cpu, progress).map_err(|error| match error {
                Error::Store(_) | Error::Fit(_) => error,
                _ => Error::InFile { path: path.clone(), source: Box::new(error) },
            })
        }
    })
}

fn placed(
    name: &str,
    weights: Weights,
    options: &Options,
    cpu: &Arc<Cpu>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Placed, Error> {
    if weights.tensors().is_empty() {
        return Err(Error::NoWeights);
    }
    let model_options = ModelOptions {
        expert_groups: options.groups,
        experts: options.experts,
        reproducible: options.reproducible,
        ..ModelOptions::default()
    };
    let config = Config::of(&weights, &model_options)?;
    let files = weights.files().iter().map(PathBuf::as_path);
    let tensors = weights.tensors().iter().map(|tensor| &tensor.info);
    let described = described(name, weights.metadata(), tensors, options)?;
    let fit = fit(&described, memory_budget(options), constraints(options, files))?;
    let model_options = ModelOptions { micro_batch: fit.micro_batch as usize, ..model_options };
    let path = weights.files()[0].clone();
    let mut go_on = |done, all| {
        progress(done, all);
        true
    };
    let Mode::Streamed { cache } = fit.mode else {
        let mut weights = weights;
        // What is memory already is used where it is.
        if options.huge_pages && !weights.files().iter().all(|file| host::is_memory(file)) {
            weights = Weights::open_with(&path, Storage::Resident, &mut go_on)?;
        }
        let model = load(&weights, cpu, &model_options, &config, None, options)?;
        return Ok(Placed { weights, model, fit, streaming: None });
    };
    let routed = fit.routed_ram + fit.routed_disk;
    drop(weights);
    let mut reader = Reader::start().map_err(|e| Error::Reader { source: e })?;
    let (weights, rate) =
        Weights::open_streamed(&path, &mut reader, &|name| config.tensor_use(name), &mut go_on)?;
    let experts = config.experts.as_ref().ok_or(cachalot_model::Error::NoExperts)?;
    let cache = CacheOptions {
        prefetch: options.prefetch,
        ..CacheOptions::new(cache, config.dense_layers, experts.count, experts.used)
    };
    let mut streamed = Streamed::bind(&weights, cpu, &config.expert_shape(), reader, &cache)?;
    if options.prefer_cached {
        streamed.route_cache_aware();
    }
    if let Some(folder) = &options.expert_stats {
        streamed.load_expert_stats(folder.join(memory_name(&weights, &path)));
    }
    let (monitor, is_locked) = (streamed.monitor(), streamed.is_locked());
    let streaming = Some(Streaming { monitor, rate, is_locked, routed });
    let experts: Box<dyn Experts> = Box::new(streamed);
    let model = load(&weights, cpu, &model_options, &config, Some(experts), options)?;
    Ok(Placed { weights, model, fit, streaming })
}

/// The model of this header as the planner sees it, with as many active experts as `options` want.
///
/// # Errors
/// If the header says too little.
pub fn described<'a>(
    name: &str,
    metadata: &Metadata,
    tensors: impl Iterator<Item = &'a TensorInfo>,
    options: &Options,
) -> Result<cachalot_plan::ModelFacts, Error> {
    let demand = Demand::of(metadata, tensors);
    let model = cachalot_plan::ModelFacts::of(metadata, &demand, name).ok_or(Error::Header)?;
    let used = options.experts.map_or(model.experts_used, |used| used as u64);
    Ok(model.with_experts_used(used.clamp(1, model.experts.max(1))))
}

/// The name of the file that remembers which experts of a model are popular: practically unique.
fn memory_name(weights: &Weights, path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    format!("{stem}-{}.popular", weights.size())
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
    let is_watched = options.trace.is_some() || options.count_experts.is_some();
    let mut experts = match experts {
        Some(experts) => experts,
        None if is_watched && config.experts.is_some() => {
            Box::new(Resident::bind(weights, cpu, &config.expert_shape())?)
        }
        None => return Ok(Model::load(weights, cpu, model_options)?),
    };
    if let Some(path) = &options.trace {
        let file =
            File::create(path).map_err(|source| Error::Trace { path: path.clone(), source })?;
        experts = Box::new(Traced::new(experts, &config.expert_shape(), file)?);
    }
    if let Some(used) = &options.count_experts {
        experts = Box::new(Counted { inner: experts, used: Arc::clone(used) });
    }
    Ok(Model::load_with_experts(weights, cpu, model_options, experts)?)
}
