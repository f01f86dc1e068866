//! A whole model: batches of tokens in, logits out.

use std::sync::Arc;

use cachalot_gguf::KvType;
use cachalot_kernels::Cpu;
use cachalot_store::Weights;

use crate::arch;
use crate::arch::deepseek2::config::ExpertGroups;
use crate::bind::Binder;
use crate::seam::{Batch, Experts, Failure, PageId, Rows, Stage, StageSpec, Wanted};
use crate::{Config, Error};

/// Options of loading.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    /// Groups of experts to choose from.
    pub expert_groups: ExpertGroups,
    /// Active experts per token, in place of the file's number.
    pub experts: Option<usize>,
    /// Rows of a prompt's chunk from which on attention is computed in the expanded form; `None` is
    /// what is faster here.
    pub expanded_from: Option<usize>,
    /// Whether the bits of a sequence's results are independent of all other sequences, of how its
    /// prompt is divided, and of whether some of it was computed before; see [`crate::Precision`].
    pub reproducible: bool,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            expert_groups: ExpertGroups::Auto,
            experts: None,
            expanded_from: None,
            reproducible: false,
        }
    }
}

/// How far a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Layers that are computed.
    pub done: usize,
    /// All layers.
    pub layers: usize,
}

/// A loaded model. It computes one batch at a time.
pub struct Model {
    config: Config,
    vocabulary: usize,
    stages: Vec<Box<dyn Stage>>,
    rows: Rows,
}

/// The results of a batch.
#[derive(Debug)]
pub struct Output<'a> {
    batch: &'a Batch<'a>,
    rows: &'a Rows,
    vocabulary: usize,
    hidden: usize,
}

impl<'a> Output<'a> {
    /// The logits that segment `index` wanted, `[rows, vocabulary]`. Those of a sequence that has
    /// failed mean nothing.
    pub fn logits(&self, index: usize) -> &'a [f32] {
        let (before, rest) = self.batch.segments.split_at(index);
        let start: usize = before.iter().map(crate::seam::Segment::logit_rows).sum();
        let end = start + rest[0].logit_rows();
        &self.rows.logits[start * self.vocabulary..end * self.vocabulary]
    }

    /// The hidden states that segment `index` wanted, `[rows, hidden]`.
    pub fn hidden(&self, index: usize) -> &'a [f32] {
        let segment = &self.batch.segments[index];
        if segment.want != Wanted::Hidden {
            return &[];
        }
        &self.rows.hidden[segment.rows.start * self.hidden..segment.rows.end * self.hidden]
    }

    /// Whether segment `index` has failed.
    pub fn has_failed(&self, index: usize) -> bool {
        self.rows.has_failed(index)
    }

    /// The sequences that have failed. Their rows' keys and values are not to be used.
    pub fn failures(&self) -> &'a [Failure] {
        self.rows.failures()
    }
}

impl Model {
    /// Binds weights that are all in memory, or mapped, to one stage on the processor.
    ///
    /// # Errors
    /// If the architecture is not supported, or a key or tensor is missing, impossible or of
    /// another shape.
    pub fn load(weights: &Weights, cpu: &Arc<Cpu>, options: &ModelOptions) -> Result<Self, Error> {
        Self::on_processor(weights, cpu, options, None)
    }

    /// As [`Model::load`], with other routed experts: their tensors are not used.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_with_experts(
        weights: &Weights,
        cpu: &Arc<Cpu>,
        options: &ModelOptions,
        experts: Box<dyn Experts>,
    ) -> Result<Self, Error> {
        Self::on_processor(weights, cpu, options, Some(experts))
    }

    fn on_processor(
        weights: &Weights,
        cpu: &Arc<Cpu>,
        options: &ModelOptions,
        experts: Option<Box<dyn Experts>>,
    ) -> Result<Self, Error> {
        let config = Config::of(weights, options)?;
        let spec = StageSpec { layers: 0..config.layers, embeds: true, has_head: true };
        let stage = arch::cpu_stage(weights, cpu, options, &spec, experts)?;
        Self::of_stages(weights, config, vec![stage])
    }

    /// A model of stages on any devices, in order.
    ///
    /// # Errors
    /// If the file has no embedding.
    ///
    /// # Panics
    /// If the stages are not all layers in order, or others than the first embed, or others than
    /// the last compute logits.
    pub fn of_stages(
        weights: &Weights,
        config: Config,
        stages: Vec<Box<dyn Stage>>,
    ) -> Result<Self, Error> {
        let (_, vocabulary) = Binder::new(weights).shape("token_embd.weight")?;
        let specs: Vec<StageSpec> = stages.iter().map(|stage| stage.spec()).collect();
        let mut next = 0;
        for (index, StageSpec { layers, embeds, has_head }) in specs.iter().enumerate() {
            let (is_first, is_last) = (index == 0, index + 1 == specs.len());
            assert_eq!(layers.start, next, "stages follow each other: {specs:?}");
            assert_eq!((*embeds, *has_head), (is_first, is_last), "ends of {specs:?}");
            next = layers.end;
        }
        assert_eq!(next, config.layers, "stages have all layers: {specs:?}");
        Ok(Self { config, vocabulary, stages, rows: Rows::default() })
    }

    /// The logits of the last batch, of all segments that wanted some, in order.
    pub fn logits(&self) -> &[f32] {
        &self.rows.logits
    }

    /// Sizes and switches.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Tokens of the vocabulary: the length of a row of logits.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary
    }

    /// Tokens that the model was made for.
    pub fn context_length(&self) -> usize {
        self.config.context
    }

    /// Bytes of a page of the KV cache: [`crate::PAGE_ROWS`] tokens in all layers.
    pub fn page_bytes(&self, kv: KvType) -> usize {
        self.stages.iter().map(|stage| stage.page_bytes(kv)).sum()
    }

    /// Reserves all pages of the KV cache, in place of those reserved before. Memory is used from
    /// when a page is first written; nothing is reserved later.
    ///
    /// # Errors
    /// If there is no memory, or this model's rows cannot be stored in this type.
    pub fn reserve_pages(&mut self, pages: usize, kv: KvType) -> Result<(), Error> {
        self.stages.iter_mut().try_for_each(|stage| stage.reserve_pages(pages, kv))
    }

    /// Copies a page in all layers, so that a shared one can be continued.
    pub fn copy_page(&mut self, from: PageId, to: PageId) {
        self.stages.iter_mut().for_each(|stage| stage.copy_page(from, to));
    }

    /// The keys and values of a page, in all layers.
    pub fn read_page(&self, page: PageId) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.stages.iter().for_each(|stage| stage.read_page(page, &mut bytes));
        bytes
    }

    /// Replaces a page by bytes that [`Model::read_page`] gave, in the type `kv` of this cache.
    ///
    /// # Panics
    /// If they are fewer than a page has.
    pub fn write_page(&mut self, page: PageId, bytes: &[u8], kv: KvType) {
        let mut rest = bytes;
        for stage in &mut self.stages {
            let (own, others) = rest.split_at(stage.page_bytes(kv));
            stage.write_page(page, own);
            rest = others;
        }
    }

    /// Takes a batch through the model; keys and values of its rows go to their pages.
    ///
    /// `progress` is called after every layer and stops the work by returning `false`.
    ///
    /// # Errors
    /// [`Error::Token`] before anything is computed; [`Error::Stopped`], or what concerns all
    /// sequences, after which the pages of the batch's rows are unfinished, and all others
    /// unchanged. What concerns some sequences is in [`Output::failures`].
    ///
    /// # Panics
    /// If the segments are not consecutive, or a page is missing or was not reserved.
    pub fn forward<'a>(
        &'a mut self,
        batch: &'a Batch<'_>,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Output<'a>, Error> {
        self.check_tokens(batch.tokens)?;
        let layers = self.config.layers;
        let mut done = 0;
        let mut keep_going = || {
            done += 1;
            progress(Progress { done, layers })
        };
        self.rows.begin(batch);
        for stage in &mut self.stages {
            stage.forward(batch, &mut self.rows, &mut keep_going)?;
        }
        let (vocabulary, hidden) = (self.vocabulary, self.config.hidden);
        Ok(Output { batch, rows: &self.rows, vocabulary, hidden })
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<(), Error> {
        let vocabulary = self.vocabulary;
        match tokens.iter().find(|&&token| token as usize >= vocabulary) {
            Some(&token) => Err(Error::Token { token, vocabulary }),
            None => Ok(()),
        }
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("config", &self.config).finish_non_exhaustive()
    }
}
