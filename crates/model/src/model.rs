//! A whole model: tokens in, logits out.

use std::sync::Arc;

use cachalot_gguf::KvType;
use cachalot_kernels::{Activations, Cpu, Product, Tokens};
use cachalot_store::Weights;

use crate::arch::deepseek2::config::ExpertGroups;
use crate::arch::{self, Parts};
use crate::bind::Weight;
use crate::rows::norm_rows;
use crate::scratch::ensure_len;
use crate::{Config, Error, Experts, KvCache, Stage};

/// What may be chosen when a model is loaded.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    /// Groups of experts to choose from.
    pub expert_groups: ExpertGroups,
    /// Active experts per token, in place of the file's number.
    pub experts: Option<usize>,
    /// Most tokens that pass through the layers together. More of them share the reading of weights,
    /// and take more memory: R1 needs about 0.5 MB for each.
    pub micro_batch: usize,
    /// Tokens of a batch from which on attention is computed in the expanded form; `None` leaves it to
    /// what is faster here.
    pub expanded_from: Option<usize>,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            expert_groups: ExpertGroups::Auto,
            experts: None,
            micro_batch: 2048,
            expanded_from: None,
        }
    }
}

/// Which tokens' logits a caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// None: a prompt goes on.
    None,
    /// The last token's.
    Last,
    /// Every token's.
    All,
}

/// A loaded model.
///
/// It computes one batch at a time, of one sequence; each sequence has a [`KvCache`] of its own.
pub struct Model {
    cpu: Arc<Cpu>,
    config: Config,
    embedding: Weight, // [vocabulary, hidden]
    stages: Vec<Box<dyn Stage>>,
    norm: Vec<f32>, // [hidden]
    head: Weight,   // [vocabulary, hidden]
    micro_batch: usize,
    hidden: Vec<f32>, // [tokens, hidden]
    x: Activations,   // [tokens, hidden]
    logits: Vec<f32>, // [rows, vocabulary]
}

impl Model {
    /// Binds weights that are all at hand.
    ///
    /// # Errors
    /// If the architecture is another, or a key or tensor is missing, impossible or of another shape.
    pub fn load(weights: &Weights, cpu: &Arc<Cpu>, options: &ModelOptions) -> Result<Self, Error> {
        let loader = arch::loader(weights)?;
        Ok(Self::new(loader(weights, cpu, options, None)?, cpu, options))
    }

    /// As [`Model::load`], with routed experts that are elsewhere: their tensors are not looked at.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_with_experts(
        weights: &Weights,
        cpu: &Arc<Cpu>,
        options: &ModelOptions,
        experts: Box<dyn Experts>,
    ) -> Result<Self, Error> {
        let loader = arch::loader(weights)?;
        Ok(Self::new(loader(weights, cpu, options, Some(experts))?, cpu, options))
    }

    fn new(parts: Parts, cpu: &Arc<Cpu>, options: &ModelOptions) -> Self {
        let Parts { config, embedding, stages, norm, head } = parts;
        Self {
            cpu: Arc::clone(cpu),
            config,
            embedding,
            stages,
            norm,
            head,
            micro_batch: options.micro_batch.max(1),
            hidden: Vec::new(),
            x: Activations::new(),
            logits: Vec::new(),
        }
    }

    /// Sizes and switches.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Tokens of the vocabulary: the length of a row of logits.
    pub fn vocab_size(&self) -> usize {
        self.head.rows()
    }

    /// Tokens that the model was made for.
    pub fn context_length(&self) -> usize {
        self.config.context
    }

    /// Room for one sequence of up to `capacity` tokens. It takes memory only as it fills.
    ///
    /// # Errors
    /// If there is no memory for it, or this model's rows cannot be stored in this type.
    pub fn cache(&self, capacity: usize, kind: KvType) -> Result<KvCache, Error> {
        let parts = self.stages.iter().map(|stage| stage.cache(capacity, kind));
        let parts = parts.collect::<Result<_, _>>()?;
        Ok(KvCache { parts, len: 0, capacity, bytes_per_token: self.cache_bytes_per_token(kind) })
    }

    /// Bytes that a cache takes for each token.
    pub fn cache_bytes_per_token(&self, kind: KvType) -> usize {
        self.stages.iter().map(|stage| stage.cache_bytes(kind)).sum()
    }

    /// Takes `tokens` through the model after those that `cache` remembers, and returns the logits
    /// that were asked for, `[rows, vocabulary]`, until the next call.
    ///
    /// `progress` is called after every layer with the number of tokens that the work done so far
    /// amounts to, at most `tokens.len()`, and stops the work by returning `false`.
    ///
    /// # Errors
    /// [`Error::Token`] or [`Error::ContextFull`] before anything is computed; [`Error::Stopped`], or
    /// what kept experts from being had, after which the cache remembers the batches that were finished.
    ///
    /// # Panics
    /// If the cache is another model's.
    pub fn forward(
        &mut self,
        cache: &mut KvCache,
        tokens: &[u32],
        logits: Logits,
        progress: &mut dyn FnMut(usize) -> bool,
    ) -> Result<&[f32], Error> {
        self.check(cache, tokens)?;
        let rows = match logits {
            Logits::None => 0,
            Logits::Last => tokens.len().min(1),
            Logits::All => tokens.len(),
        };
        let mut done = 0;
        for batch in tokens.chunks(self.micro_batch) {
            let layers = self.config.layers;
            let mut layer = 0;
            let keep_going = &mut || {
                layer += 1;
                progress(done + batch.len() * layer / layers)
            };
            self.through_stages(cache, batch, keep_going)?;
            done += batch.len();
            let wanted = match logits {
                Logits::None => 0,
                Logits::Last => usize::from(done == tokens.len()),
                Logits::All => batch.len(),
            };
            let end = if logits == Logits::All { done } else { wanted };
            self.head_of(batch.len(), wanted, end);
        }
        Ok(&self.logits[..rows * self.head.rows()])
    }

    fn check(&self, cache: &KvCache, tokens: &[u32]) -> Result<(), Error> {
        let vocabulary = self.embedding.rows();
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(Error::Token { token, vocabulary });
        }
        let &KvCache { capacity, len, .. } = cache;
        if tokens.len() > capacity - len {
            return Err(Error::ContextFull { capacity, len, more: tokens.len() });
        }
        Ok(())
    }

    /// Leaves the hidden states of `batch` in `self.hidden`.
    fn through_stages(
        &mut self,
        cache: &mut KvCache,
        batch: &[u32],
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
        let width = self.config.hidden;
        let hidden = ensure_len(&mut self.hidden, batch.len() * width);
        for (&token, row) in batch.iter().zip(hidden.chunks_exact_mut(width)) {
            self.embedding.matrix().row(token as usize, row);
        }
        for (stage, part) in self.stages.iter_mut().zip(&mut cache.parts) {
            stage.forward(part, cache.len, hidden, keep_going)?;
        }
        cache.len += batch.len();
        Ok(())
    }

    /// The logits of the last `wanted` of `tokens` hidden rows, up to row `end` of all logits.
    fn head_of(&mut self, tokens: usize, wanted: usize, end: usize) {
        if wanted == 0 {
            return;
        }
        let (width, vocabulary) = (self.config.hidden, self.head.rows());
        let hidden = &self.hidden[(tokens - wanted) * width..tokens * width];
        norm_rows(hidden, &self.norm, self.config.epsilon, &mut self.x);
        let logits = ensure_len(&mut self.logits, end * vocabulary);
        let columns = Tokens::Range { start: 0, len: wanted };
        let head = Product { matrix: self.head.matrix(), tokens: columns };
        self.cpu.multiply(&mut self.x, &[head], &mut logits[(end - wanted) * vocabulary..]);
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("config", &self.config).finish_non_exhaustive()
    }
}
