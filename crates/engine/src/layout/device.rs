//! What computes: devices make the stages and the experts that a layout gives them.
//!
//! The program lists the devices that it was built with (`src/devices.rs`) and hands them in, as
//! [`Options::devices`]. The processor is always one of them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cachalot_kernels::Cpu;
use cachalot_model::{Config, Experts, ModelOptions, Resident, Stage, StageSpec, Streamed};
use cachalot_plan::layout::{DeviceId, ExpertPlan, StagePlan};
use cachalot_store::{CacheOptions, ReadRate, Reader, Weights};

use super::options::Options;
use crate::Error;
use crate::status::Streaming;

/// Something that computes layers, and what the planner has to know of it.
pub trait Device: fmt::Debug + Send + Sync {
    /// Its name in layouts.
    fn id(&self) -> DeviceId;

    /// Bytes of its own memory that a model may use; `None` if it computes in main memory.
    fn memory(&self) -> Option<u64>;

    /// Makes the routed experts of `plan`.
    ///
    /// # Errors
    /// If a tensor is missing or of another shape, or there is no memory.
    fn experts(&self, site: &mut Site<'_>, plan: &ExpertPlan) -> Result<Box<dyn Experts>, Error>;

    /// Makes the stage of `plan`. Its routed experts may be on another device.
    ///
    /// # Errors
    /// If a tensor is missing or of another shape, or there is no memory.
    fn stage(
        &self,
        site: &Site<'_>,
        plan: &StagePlan,
        experts: Option<Box<dyn Experts>>,
    ) -> Result<Box<dyn Stage>, Error>;
}

/// The devices of a program without any others.
pub const PROCESSOR_ALONE: &[&dyn Device] = &[&Processor];

/// What devices make stages from.
#[derive(Debug)]
pub struct Site<'a> {
    /// The weights; those that are streamed have no bytes.
    pub weights: &'a Weights,
    /// The threads of this machine.
    pub cpu: &'a Arc<Cpu>,
    /// Sizes and switches of the model.
    pub config: &'a Config,
    pub(super) model_options: &'a ModelOptions,
    pub(super) options: &'a Options,
    /// What reads experts that are streamed, and how fast; each plan that streams takes it.
    pub(super) reader: Option<(Reader, ReadRate)>,
    /// What is streamed, once a device does.
    pub(super) streaming: Option<Streaming>,
}

/// This machine's processor, in main memory.
#[derive(Clone, Copy, Debug)]
pub struct Processor;

impl Device for Processor {
    fn id(&self) -> DeviceId {
        DeviceId::Cpu
    }

    fn memory(&self) -> Option<u64> {
        None
    }

    fn experts(&self, site: &mut Site<'_>, plan: &ExpertPlan) -> Result<Box<dyn Experts>, Error> {
        let shape = site.config.expert_shape_of(&layers(&plan.layers));
        let (Some(budget), Some((reader, rate))) = (plan.cache, site.reader.take()) else {
            return Ok(Box::new(Resident::bind(site.weights, site.cpu, &shape)?));
        };
        let cache = cache_options(budget, site.config, &plan.layers, site.options);
        let mut streamed = Streamed::bind(site.weights, site.cpu, &shape, reader, &cache)?;
        if site.options.prefer_cached {
            streamed.route_cache_aware();
        }
        if let Some(folder) = &site.options.expert_stats {
            streamed.load_expert_stats(folder.join(stats_name(site.weights)));
        }
        let (monitor, is_locked) = (streamed.monitor(), streamed.is_locked());
        site.streaming = Some(Streaming { monitor, rate, is_locked, routed: plan.bytes });
        Ok(Box::new(streamed))
    }

    fn stage(
        &self,
        site: &Site<'_>,
        plan: &StagePlan,
        experts: Option<Box<dyn Experts>>,
    ) -> Result<Box<dyn Stage>, Error> {
        let &StagePlan { embeds, heads: has_head, .. } = plan;
        let spec = StageSpec { layers: layers(&plan.layers), embeds, has_head };
        let Site { weights, cpu, model_options, .. } = site;
        Ok(cachalot_model::cpu_stage(weights, cpu, model_options, &spec, experts)?)
    }
}

fn layers(layers: &std::ops::Range<u64>) -> std::ops::Range<usize> {
    layers.start as usize..layers.end as usize
}

/// A cache of `budget` bytes for the experts of some layers.
pub(super) fn cache_options(
    budget: u64,
    config: &Config,
    of: &std::ops::Range<u64>,
    options: &Options,
) -> CacheOptions {
    let shape = config.expert_shape_of(&layers(of));
    CacheOptions {
        prefetch: options.prefetch,
        ..CacheOptions::new(budget, shape.layers.start, shape.count, shape.used)
    }
}

/// The name of the file that remembers which experts of a model are popular: practically unique.
fn stats_name(weights: &Weights) -> String {
    let path = weights.files().first().map_or(Path::new("model"), PathBuf::as_path);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    format!("{stem}-{}.popular", weights.size())
}
