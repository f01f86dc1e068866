//! DeepSeek-V2 and what came of it: V3, R1, V3.1, Kimi-K2 (GGUF architecture `deepseek2`).
//!
//! A layer: norm, latent attention, add; norm, feed-forward network or mixture of experts, add. In
//! decoding a layer of experts is ten parallel regions: two projections down, one up, keys into
//! queries, attention and its merge, values, output, router, gate and up, down.

pub(crate) mod config;
mod mla;
mod moe;
#[cfg(feature = "oracle")]
pub mod reference;
mod router;
mod weights;

use std::ops::Range;
use std::sync::Arc;

use cachalot_gguf::KvType;
use cachalot_kernels::{Activations, Cpu};
use cachalot_store::Weights;

use self::config::Config;
use self::mla::{Mla, MlaScratch};
use self::moe::{Moe, MoeScratch, NextRouter};
use super::Parts;
use crate::bind::Binder;
use crate::experts::resident::Resident;
use crate::kv::LatentRows;
use crate::mlp::{self, MlpScratch, MlpWeights};
use crate::rope::Rope;
use crate::rows::norm_rows;
use crate::{Error, Experts, ModelOptions, Stage, StageCache};

/// Tokens of a batch from which the expanded form of attention is faster: on a Xeon with AMX, too, where 128 tokens go
/// 1.2 times and 512 tokens 1.4 times as fast as in the absorbed form on tiles.
const EXPANDED_FROM: usize = 128;

/// Binds a whole model to this machine.
pub(crate) fn load(
    weights: &Weights,
    cpu: &Arc<Cpu>,
    options: &ModelOptions,
    experts: Option<Box<dyn Experts>>,
) -> Result<Parts, Error> {
    let config = Config::new(weights, options.expert_groups, options.experts)?;
    let binder = Binder::new(weights);
    let (_, vocabulary) = binder.shape("token_embd.weight")?;
    let embedding = binder.matrix("token_embd.weight", vocabulary, config.hidden)?;
    let head = if binder.has("output.weight") { "output.weight" } else { "token_embd.weight" };
    let layers = 0..config.layers;
    let experts = match experts {
        Some(experts) => experts,
        None => Box::new(Resident::bind(weights, &config.expert_shape())?),
    };
    let expanded_from = options.expanded_from.unwrap_or(EXPANDED_FROM);
    let stage = CpuStage::bind(binder, cpu, &config, layers, experts, expanded_from)?;
    Ok(Parts {
        norm: binder.vector("output_norm.weight", config.hidden)?,
        head: binder.matrix(head, vocabulary, config.hidden)?,
        embedding,
        stages: vec![Box::new(stage)],
        config,
    })
}

/// Layers computed by this machine's processor.
struct CpuStage {
    cpu: Arc<Cpu>,
    config: Config,
    first: usize,
    layers: Vec<Layer>,
    experts: Box<dyn Experts>,
    rope: Rope,
    expanded_from: usize,
    mla: MlaScratch,
    x: Activations, // [tokens, hidden]
    mlp: MlpScratch,
    moe: MoeScratch,
}

struct Layer {
    attention: Mla,
    norm: Vec<f32>, // [hidden]
    network: Network,
}

enum Network {
    Dense(MlpWeights),
    Experts(Moe),
}

impl Layer {
    fn bind(binder: Binder<'_>, cpu: &Cpu, layer: usize, config: &Config) -> Result<Self, Error> {
        let attention = Mla::bind(binder, cpu, layer, config)?;
        let norm = binder.vector(&format!("blk.{layer}.ffn_norm.weight"), config.hidden)?;
        let network = if layer < config.dense_layers {
            let name = |part: &str| format!("blk.{layer}.ffn_{part}.weight");
            Network::Dense(MlpWeights::bind(binder, name, config.hidden, config.dense_width)?)
        } else {
            Network::Experts(Moe::bind(binder, layer, config)?)
        };
        Ok(Self { attention, norm, network })
    }

    fn next_router(&self, epsilon: f32) -> Option<NextRouter<'_>> {
        match &self.network {
            Network::Experts(moe) => {
                Some(NextRouter { norm: &self.norm, epsilon, router: &moe.router })
            }
            Network::Dense(_) => None,
        }
    }
}

impl CpuStage {
    fn bind(
        binder: Binder<'_>,
        cpu: &Arc<Cpu>,
        config: &Config,
        layers: Range<usize>,
        experts: Box<dyn Experts>,
        expanded_from: usize,
    ) -> Result<Self, Error> {
        let first = layers.start;
        let layers = layers.map(|layer| Layer::bind(binder, cpu, layer, config));
        Ok(Self {
            layers: layers.collect::<Result<_, _>>()?,
            cpu: Arc::clone(cpu),
            rope: Rope::new(config.rope, config.rope_base, &config.scaling),
            config: config.clone(),
            first,
            experts,
            expanded_from,
            mla: MlaScratch::default(),
            x: Activations::new(),
            mlp: MlpScratch::default(),
            moe: MoeScratch::default(),
        })
    }

    /// One layer, by its place in this stage.
    fn layer(
        &mut self,
        index: usize,
        rows: &mut LatentRows,
        expand: bool,
        hidden: &mut [f32],
    ) -> Result<(), Error> {
        let (cpu, config) = (&*self.cpu, &self.config);
        let layer = &self.layers[index];
        layer.attention.forward(cpu, config, (rows, index), expand, &mut self.mla, hidden);
        norm_rows(hidden, &layer.norm, config.epsilon, &mut self.x);
        match &layer.network {
            Network::Dense(dense) => {
                let mlp = dense.mlp(self.x.rows());
                mlp::add(cpu, mlp, &mut self.x, &mut self.mlp, hidden);
                Ok(())
            }
            Network::Experts(moe) => {
                let next = self.layers.get(index + 1);
                let next = next.and_then(|layer| layer.next_router(config.epsilon));
                let at = (self.first + index, next);
                moe.forward(cpu, at, &mut self.x, &mut *self.experts, &mut self.moe, hidden)
            }
        }
    }
}

impl Stage for CpuStage {
    fn layers(&self) -> Range<usize> {
        self.first..self.first + self.layers.len()
    }

    fn cache(&self, capacity: usize, kind: KvType) -> Result<StageCache, Error> {
        let row = (self.config.cache_width(), self.config.latent);
        Ok(Box::new(LatentRows::new(kind, self.layers.len(), row, capacity)?))
    }

    fn cache_bytes(&self, kind: KvType) -> usize {
        let row_bytes = crate::kv::format(kind).row_bytes(self.config.cache_width());
        row_bytes.unwrap_or(0) * self.layers.len()
    }

    fn forward(
        &mut self,
        cache: &mut StageCache,
        past: usize,
        hidden: &mut [f32],
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
        let Some(rows) = cache.downcast_mut::<LatentRows>() else {
            panic!("the cache was made by another stage")
        };
        let tokens = hidden.len() / self.config.hidden;
        self.mla.begin(&self.config, &self.rope, past, tokens);
        let expand = tokens >= self.expanded_from;
        (0..self.layers.len()).try_for_each(|index| {
            self.layer(index, rows, expand, hidden)?;
            if keep_going() { Ok(()) } else { Err(Error::Stopped) }
        })
    }
}
