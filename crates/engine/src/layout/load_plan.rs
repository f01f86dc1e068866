//! A model and where its parts will be: decided once, printed, and then carried out.
//!
//! [`LoadPlan::of`] reads a header and asks the planner; [`LoadPlan::load`] makes what its
//! [`Layout`] says. What `run` and `bench` announce, and what they load, is one value.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use cachalot_gguf::{Metadata, TensorInfo};
use cachalot_kernels::Cpu;
use cachalot_model::{Config, Experts, Model, ModelOptions, Stage, Traced, slice_bytes};
use cachalot_plan::fit::fit;
use cachalot_plan::layout::{DeviceId, Devices, ExpertPlan};
use cachalot_plan::{Constraints, Demand, Layout, MemoryBudget, ModelFacts, Placement, Stream};
use cachalot_probe::system;
use cachalot_store::{FileRange, Placement as Storage, Reader, TensorUse, Weights, cache_bytes};

use super::device::{Device, Site, cache_options};
use super::engine::{Engine, Parts, interleaved, processor};
use super::options::{Options, Source};
use crate::Error;
use crate::status::{Counted, Streaming};

/// What loading a model will do.
#[derive(Debug)]
pub struct LoadPlan {
    source: Source,
    options: Options,
    /// Mapped: only the header was read.
    weights: Weights,
    config: Config,
    facts: ModelFacts,
    placement: Placement,
    layout: Layout,
    /// What may be used, as it was when the plan was made.
    budget: MemoryBudget,
}

/// A model over its weights.
pub(super) struct Loaded {
    pub(super) weights: Weights,
    pub(super) model: Model,
    pub(super) streaming: Option<Streaming>,
}

impl LoadPlan {
    /// Reads the header of `source` and finds a place for everything.
    ///
    /// # Errors
    /// If the source is not a valid model of a supported architecture, or the options do not fit it
    /// or this machine.
    pub fn of(source: &Source, options: &Options) -> Result<Self, Error> {
        match source {
            Source::Embedded(bytes) => {
                // Its bytes are the program's, wherever that is.
                let fixed = Options { stream: Stream::Never, huge_pages: false, ..options.clone() };
                Self::with(source, "calf", Weights::from_static(bytes)?, fixed)
            }
            Source::File(path) => {
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                let weights = interleaved(options, || Weights::open(path, Storage::Mapped))?;
                Self::with(source, &name, weights, options.clone()).map_err(|error| match error {
                    Error::Store(_) | Error::Fit(_) => error,
                    _ => Error::InFile { path: path.clone(), source: Box::new(error) },
                })
            }
        }
    }

    fn with(
        source: &Source,
        name: &str,
        weights: Weights,
        options: Options,
    ) -> Result<Self, Error> {
        if weights.tensors().is_empty() {
            return Err(Error::NoWeights);
        }
        let config = Config::of(&weights, &model_options(&options))?;
        let tensors = weights.tensors().iter().map(|tensor| &tensor.info);
        let facts = described(name, weights.metadata(), tensors, &options)?;
        let files = weights.files().iter().map(PathBuf::as_path);
        let budget = memory_budget(&options);
        let placement = fit(&facts, budget, constraints(&options, files))?;
        let mut layout = Layout::over(&devices(&options), &facts, &placement);
        for experts in &mut layout.experts {
            round_cache(experts, &weights, &config, &options);
        }
        let source = source.clone();
        Ok(Self { source, options, weights, config, facts, placement, layout, budget })
    }

    /// Which device will hold what.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The same as sums of bytes, by kind of memory.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// The memory that may be used.
    pub fn budget(&self) -> MemoryBudget {
        self.budget
    }

    /// The model as the planner sees it.
    pub fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    /// Where the model comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// How it will be loaded.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The weights' description.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Whether experts are read from drives while it runs.
    pub fn is_streamed(&self) -> bool {
        self.layout.experts.iter().any(|experts| experts.cache.is_some())
    }

    /// The bytes that must be there before it is loaded: all, or if experts are streamed, all
    /// others.
    fn needed(&self) -> Vec<FileRange<'_>> {
        let is_streamed = self.is_streamed();
        let tensors = self.weights.tensors().iter().filter(|tensor| {
            !is_streamed || self.config.tensor_use(&tensor.info.name) == TensorUse::Loaded
        });
        let files = self.weights.files();
        let range = |info: &TensorInfo| info.offset..info.end();
        tensors.map(|tensor| (files[tensor.file].as_path(), range(&tensor.info))).collect()
    }

    /// Loads the model as planned. `progress` gets the bytes read and their total.
    ///
    /// # Errors
    /// If the file cannot be read or is not a valid model, or memory has become short.
    pub fn load(self, progress: &mut dyn FnMut(u64, u64)) -> Result<Engine, Error> {
        let begun = Instant::now();
        let Self { source, options, layout, placement, .. } = &self;
        let (source, options) = (source.clone(), options.clone());
        let (layout, reduced) = (layout.clone(), placement.context_reduced);
        let cpu = processor(&options);
        let loaded = interleaved(&options, || self.carry_out(&cpu, progress));
        let in_file = |error| match &source {
            Source::Embedded(_) => error,
            Source::File(path) => Error::InFile { path: path.clone(), source: Box::new(error) },
        };
        let loaded = loaded.map_err(|error| match error {
            Error::Store(_) => error,
            _ => in_file(error),
        })?;
        let parts = Parts { loaded, layout, reduced, cpu, begun };
        Engine::assemble(parts, &source, &options, progress).map_err(in_file)
    }

    /// Reads the weights, and makes each stage and its experts on the device that has them.
    fn carry_out(
        self,
        cpu: &Arc<Cpu>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Loaded, Error> {
        let is_streamed = self.is_streamed();
        if let Some(arriving) = &self.options.arriving {
            arriving.wait(&self.needed()).map_err(|source| Error::Arriving { source })?;
        }
        let Self { options, mut weights, config, layout, .. } = self;
        let path = weights.files().first().cloned();
        let mut go_on = |done, all| {
            progress(done, all);
            true
        };
        let mut reader = None;
        if let Some(path) = path.filter(|_| is_streamed) {
            drop(weights);
            let mut started = Reader::start().map_err(|source| Error::Reader { source })?;
            let tensor_use = |name: &str| config.tensor_use(name);
            let opened = Weights::open_arriving(
                &path,
                options.arriving.as_ref(),
                &mut started,
                &tensor_use,
                &mut go_on,
            )?;
            weights = opened.0;
            reader = Some((started, opened.1));
        } else if options.huge_pages && !weights.files().iter().all(|file| system::is_memory(file))
        {
            // What is memory already is used where it is.
            let path = weights.files()[0].clone();
            weights = Weights::open_with(&path, Storage::Resident, &mut go_on)?;
        }
        let model_options = model_options(&options);
        let mut site = Site {
            weights: &weights,
            cpu,
            config: &config,
            model_options: &model_options,
            options: &options,
            reader,
            streaming: None,
        };
        let mut stages: Vec<Box<dyn Stage>> = Vec::new();
        for stage in &layout.stages {
            let has = |experts: &&ExpertPlan| {
                experts.layers.start >= stage.layers.start && experts.layers.end <= stage.layers.end
            };
            let experts = match layout.experts.iter().find(has) {
                Some(plan) => Some(watched(
                    device(&options, plan.device)?.experts(&mut site, plan)?,
                    plan,
                    &site,
                )?),
                None => None,
            };
            stages.push(device(&options, stage.device)?.stage(&site, stage, experts)?);
        }
        let streaming = site.streaming.take();
        let model = Model::of_stages(&weights, config, stages)?;
        Ok(Loaded { weights, model, streaming })
    }
}

/// The device of a layout.
fn device(options: &Options, id: DeviceId) -> Result<&'static dyn Device, Error> {
    let found = options.devices.iter().find(|device| device.id() == id);
    found.copied().ok_or_else(|| Error::Device { device: id.to_string() })
}

/// Experts whose routing is written down or counted, if that is wanted.
fn watched(
    mut experts: Box<dyn Experts>,
    plan: &ExpertPlan,
    site: &Site<'_>,
) -> Result<Box<dyn Experts>, Error> {
    if let Some(path) = &site.options.trace {
        let file =
            File::create(path).map_err(|source| Error::Trace { path: path.clone(), source })?;
        let layers = plan.layers.start as usize..plan.layers.end as usize;
        experts = Box::new(Traced::new(experts, &site.config.expert_shape_of(&layers), file)?);
    }
    if let Some(used) = &site.options.count_experts {
        experts = Box::new(Counted { inner: experts, used: Arc::clone(used) });
    }
    Ok(experts)
}

/// Makes the bytes of a cache those that it will take: whole experts.
fn round_cache(plan: &mut ExpertPlan, weights: &Weights, config: &Config, options: &Options) {
    let Some(budget) = plan.cache else { return };
    let layers = plan.layers.start as usize..plan.layers.end as usize;
    let slices = slice_bytes(weights, &config.expert_shape_of(&layers));
    plan.cache = Some(cache_bytes(&slices, &cache_options(budget, config, &plan.layers, options)));
}

fn model_options(options: &Options) -> ModelOptions {
    ModelOptions {
        expert_groups: options.groups,
        experts: options.experts,
        reproducible: options.reproducible,
        ..ModelOptions::default()
    }
}

/// The devices as the planner sees them.
fn devices(options: &Options) -> Devices {
    let cards = options.devices.iter().filter_map(|device| Some((device.id(), device.memory()?)));
    let threads = options.threads.unwrap_or_else(system::physical_cores) as u32;
    Devices::new(cards.collect(), threads, system::memory_nodes().len() as u32)
}

/// The memory that a model may use here: the limit in `options`, or what is free less some
/// headroom.
fn memory_budget(options: &Options) -> MemoryBudget {
    let main = match (options.memory, system::memory_available()) {
        (Some(limit), _) => MemoryBudget::limited(limit),
        (None, Some(available)) => MemoryBudget::free(available),
        // Where the system does not say how much is free, allocation decides later.
        (None, None) => MemoryBudget { ram: u64::MAX, drive: true, ..MemoryBudget::default() },
    };
    let vram = options.devices.iter().filter_map(|device| device.memory());
    let threads = options.threads.unwrap_or_else(system::physical_cores) as u64;
    MemoryBudget { vram: vram.fold(0, u64::saturating_add), threads, ..main }
}

/// What `options` leave to the planner, for a model in these files.
fn constraints<'a>(options: &Options, mut files: impl Iterator<Item = &'a Path>) -> Constraints {
    // Files in memory are used where they are: a copy would take as much again.
    let in_memory = options.stream == Stream::Auto && files.all(system::is_memory);
    Constraints {
        context: options.context.map(|tokens| tokens as u64),
        cache_type: options.kv_type,
        stream: if in_memory { Stream::Never } else { options.stream },
        memory: options.memory,
        parallel: options.parallel.max(1) as u64,
        reproducible: options.reproducible,
    }
}

/// The model of this header as the planner sees it, with as many active experts as `options` want.
fn described<'a>(
    name: &str,
    metadata: &Metadata,
    tensors: impl Iterator<Item = &'a TensorInfo>,
    options: &Options,
) -> Result<ModelFacts, Error> {
    let demand = Demand::of(metadata, tensors);
    let model = ModelFacts::of(metadata, &demand, name).ok_or(Error::Header)?;
    let used = options.experts.map_or(model.experts_used, |used| used as u64);
    Ok(model.with_experts_used(used.clamp(1, model.experts.max(1))))
}
