//! Layers computed by this machine's processor.
//!
//! A layer: norm, latent attention, add; norm, feed-forward network or mixture of experts, add. A
//! layer of experts that are in memory is ten parallel regions, whatever the batch: two projections
//! down, one up, keys into queries, attention, values, output, router, its choice, gate and up,
//! down; and one more if sequences attend in the expanded form.

use std::ops::Range;
use std::sync::Arc;

use cachalot_gguf::KvType;
use cachalot_kernels::{Activations, Cpu, Inputs, Product, Tokens};

use super::config::Config;
use super::mla::{FormChoice, Mla, MlaScratch, MlaStep};
use super::moe::{Moe, MoeScratch, MoeStep, NextRouter, Norm};
use crate::bind::{Binder, Weight};
use crate::kv::{self, KvPages, RowShape};
use crate::mlp::{MlpScratch, MlpWeights};
use crate::rope::Rope;
use crate::scratch::resize;
use crate::seam::{Batch, Experts, PAGE_ROWS, PageId, Rows, Segment, Stage, StageSpec};
use crate::{Error, ModelOptions, Precision};

/// Rows of a prompt's chunk from which on the expanded form of attention is faster, with AMX, too.
const EXPANDED_FROM: usize = 128;

/// A [`Stage`] on this machine's processor.
pub(super) struct CpuStage {
    cpu: Arc<Cpu>,
    config: Config,
    first: usize,
    layers: Vec<Layer>,
    experts: Box<dyn Experts>,
    embedding: Option<Weight>, // [vocabulary, hidden]
    head: Option<Head>,
    rope: Rope,
    form: FormChoice,
    reproducible: bool,
    kv: Option<KvPages>,
    mla: MlaScratch,
    wanted: Vec<usize>, // rows whose logits are wanted
    x: Activations,     // [rows, hidden]
    mlp: MlpScratch,
    moe: MoeScratch,
}

/// From hidden states to logits.
pub(super) struct Head {
    pub(super) norm: Vec<f32>, // [hidden]
    pub(super) weight: Weight, // [vocabulary, hidden]
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

    fn norm(&self, epsilon: f32) -> Norm<'_> {
        Norm { weight: &self.norm, epsilon }
    }

    fn next_router(&self, epsilon: f32) -> Option<NextRouter<'_>> {
        match &self.network {
            Network::Experts(moe) => Some(moe.next_router(self.norm(epsilon))),
            Network::Dense(_) => None,
        }
    }
}

impl CpuStage {
    pub(super) fn bind(
        binder: Binder<'_>,
        cpu: &Arc<Cpu>,
        config: &Config,
        layers: Range<usize>,
        experts: Box<dyn Experts>,
        options: &ModelOptions,
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
            embedding: None,
            head: None,
            form: FormChoice { expanded_from: options.expanded_from.unwrap_or(EXPANDED_FROM) },
            reproducible: options.reproducible,
            kv: None,
            mla: MlaScratch::default(),
            wanted: Vec::new(),
            x: Activations::new(),
            mlp: MlpScratch::default(),
            moe: MoeScratch::default(),
        })
    }

    /// Makes it the first stage.
    pub(super) fn embed_with(&mut self, embedding: Weight) {
        self.embedding = Some(embedding);
    }

    /// Makes it the last stage.
    pub(super) fn compute_logits_with(&mut self, head: Head) {
        self.head = Some(head);
    }

    fn embed(&self, batch: &Batch<'_>, rows: &mut Rows) {
        let Some(embedding) = &self.embedding else { return };
        let (matrix, width) = (embedding.matrix(), self.config.hidden);
        resize(&mut rows.hidden, batch.rows() * width);
        self.cpu.for_rows(&mut rows.hidden, width, |row, hidden| {
            matrix.row(batch.tokens[row] as usize, hidden);
        });
    }

    /// One layer, by its index in this stage.
    fn layer(
        &mut self,
        index: usize,
        batch: &Batch<'_>,
        precision: Precision,
        rows: &mut Rows,
    ) -> Result<(), Error> {
        let (cpu, config) = (&*self.cpu, &self.config);
        let layer = &self.layers[index];
        let Some(kv) = &mut self.kv else { panic!("pages are reserved before a batch") };
        let mut step = MlaStep { cpu, config, batch, precision, kv, layer: index };
        layer.attention.forward(&mut step, &mut self.mla, &mut rows.hidden);
        let norm = layer.norm(config.epsilon);
        match &layer.network {
            Network::Dense(dense) => {
                let normed = |row: usize, x: &mut [f32]| norm.row(cpu, &rows.hidden, row, x);
                let x = Inputs::made(&mut self.x, [batch.rows(), config.hidden], &normed);
                let inner = self.mlp.gate_up(cpu, dense.mlp(precision), x);
                inner.add(cpu, &mut rows.hidden);
                Ok(())
            }
            Network::Experts(moe) => {
                let next = self.layers.get(index + 1);
                let next = next.and_then(|layer| layer.next_router(config.epsilon));
                let experts = &mut *self.experts;
                let layer = self.first + index;
                let mut step = MoeStep { cpu, batch, precision, layer, norm, next, experts };
                moe.forward(&mut step, &mut self.x, &mut self.moe, rows)
            }
        }
    }

    /// The logits of the rows that want them.
    fn logits(&mut self, batch: &Batch<'_>, precision: Precision, rows: &mut Rows) {
        let Some(head) = &self.head else { return };
        let width = self.config.hidden;
        let count: usize = batch.segments.iter().map(Segment::logit_rows).sum();
        resize(&mut rows.logits, count * head.weight.rows());
        if count == 0 {
            return;
        }
        self.wanted.clear();
        for segment in batch.segments {
            self.wanted.extend(segment.rows.end - segment.logit_rows()..segment.rows.end);
        }
        let (cpu, epsilon, wanted) = (&*self.cpu, self.config.epsilon, &self.wanted);
        let (weight, hidden) = (&head.norm, &rows.hidden);
        let normed = |i: usize, x: &mut [f32]| {
            cpu.rms_norm(&hidden[wanted[i] * width..][..width], weight, epsilon, x);
        };
        let x = Inputs::made(&mut self.x, [count, width], &normed);
        let matrix = precision.exacting(head.weight.matrix());
        let product = Product { matrix, tokens: Tokens::Range { start: 0, len: count } };
        cpu.multiply(x, &[product], &mut rows.logits);
    }
}

impl Stage for CpuStage {
    fn spec(&self) -> StageSpec {
        StageSpec {
            layers: self.first..self.first + self.layers.len(),
            embeds: self.embedding.is_some(),
            has_head: self.head.is_some(),
        }
    }

    fn page_bytes(&self, kv: KvType) -> usize {
        let row_bytes = kv::format(kv).row_bytes(self.config.cache_width());
        row_bytes.unwrap_or(0) * PAGE_ROWS * self.layers.len()
    }

    fn reserve_pages(&mut self, pages: usize, kv: KvType) -> Result<(), Error> {
        let shape = RowShape { width: self.config.cache_width(), latent: self.config.latent };
        self.kv = None; // before the new pages are reserved
        self.kv = Some(KvPages::new(kv, self.layers.len(), shape, pages)?);
        Ok(())
    }

    fn copy_page(&mut self, from: PageId, to: PageId) {
        if let Some(kv) = &mut self.kv {
            kv.copy_page(from, to);
        }
    }

    fn read_page(&self, page: PageId, out: &mut Vec<u8>) {
        if let Some(kv) = &self.kv {
            kv.read_page(page, out);
        }
    }

    fn write_page(&mut self, page: PageId, bytes: &[u8]) {
        if let Some(kv) = &mut self.kv {
            kv.write_page(page, bytes);
        }
    }

    fn forward(
        &mut self,
        batch: &Batch<'_>,
        rows: &mut Rows,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
        let precision = Precision::of(batch, self.reproducible);
        batch.check(self.kv.as_ref().map_or(0, KvPages::len));
        self.embed(batch, rows);
        self.mla.begin(&self.config, &self.rope, batch, self.form, precision);
        for index in 0..self.layers.len() {
            self.layer(index, batch, precision, rows)?;
            if !keep_going() {
                return Err(Error::Stopped);
            }
            if rows.all_failed() {
                break;
            }
        }
        rows.check_finite(batch, self.config.hidden);
        self.logits(batch, precision, rows);
        Ok(())
    }
}
