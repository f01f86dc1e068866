//! One sequence with pages of its own, for callers that compute one at a time.

use std::any::Any;
use std::fmt;

use cachalot_gguf::KvType;

use crate::seam::{Batch, PAGE_ROWS, PageId, Phase, Segment, Wanted};
use crate::{Error, Model};

/// The logits that are wanted of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// None: the prompt continues.
    None,
    /// The last token's.
    Last,
    /// Every token's.
    All,
}

/// The KV cache of one sequence. Made by [`Model::cache`].
pub struct KvCache {
    stages: Vec<Option<Box<dyn Any + Send>>>,
    pages: Vec<PageId>,
    len: usize,
    capacity: usize,
    bytes_per_token: usize,
}

impl KvCache {
    /// Tokens in the cache.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no token.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens that it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of one token in all layers.
    pub fn bytes_per_token(&self) -> usize {
        self.bytes_per_token
    }

    /// Drops all tokens from position `len` on; a longer `len` changes nothing.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl fmt::Debug for KvCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KvCache({} of {} tokens)", self.len, self.capacity)
    }
}

impl Model {
    /// A cache for one sequence of up to `capacity` tokens. It uses memory only as it fills.
    ///
    /// # Errors
    /// If there is no memory, or this model's rows cannot be stored in this type.
    pub fn cache(&mut self, capacity: usize, kv: KvType) -> Result<KvCache, Error> {
        let pages = capacity.div_ceil(PAGE_ROWS);
        let mut stages = Vec::with_capacity(self.stages.len());
        for stage in &mut self.stages {
            let before = stage.exchange_pages(None);
            let reserved = stage.reserve_pages(pages, kv);
            stages.push(stage.exchange_pages(before));
            reserved?;
        }
        let bytes_per_token = self.page_bytes(kv) / PAGE_ROWS;
        Ok(KvCache {
            stages,
            pages: (0..pages as PageId).collect(),
            len: 0,
            capacity,
            bytes_per_token,
        })
    }

    /// Takes `tokens` through the model after those in `cache`, and returns the wanted logits,
    /// `[rows, vocabulary]`, until the next call. A single token is decoded, several are a prompt.
    ///
    /// `progress` is called after every layer with the number of tokens that the work done so far
    /// amounts to, at most `tokens.len()`, and stops the work by returning `false`.
    ///
    /// # Errors
    /// [`Error::Token`] or [`Error::ContextFull`] before anything is computed; [`Error::Stopped`],
    /// or why the sequence failed, after which the cache holds the batches that were finished.
    pub fn forward_sequence(
        &mut self,
        cache: &mut KvCache,
        tokens: &[u32],
        logits: Logits,
        progress: &mut dyn FnMut(usize) -> bool,
    ) -> Result<&[f32], Error> {
        let &mut KvCache { capacity, len, .. } = cache;
        self.check_tokens(tokens)?;
        if tokens.len() > capacity - len {
            return Err(Error::ContextFull { capacity, len, more: tokens.len() });
        }
        let mut all = Vec::new();
        for (stage, pages) in self.stages.iter_mut().zip(&mut cache.stages) {
            *pages = stage.exchange_pages(pages.take());
        }
        let done = self.forward_chunks(cache, tokens, logits, progress, &mut all);
        for (stage, pages) in self.stages.iter_mut().zip(&mut cache.stages) {
            *pages = stage.exchange_pages(pages.take());
        }
        done?;
        if logits == Logits::All {
            self.rows.logits = all;
        } else if tokens.is_empty() || logits == Logits::None {
            self.rows.logits.clear();
        }
        Ok(&self.rows.logits)
    }

    fn forward_chunks(
        &mut self,
        cache: &mut KvCache,
        tokens: &[u32],
        logits: Logits,
        progress: &mut dyn FnMut(usize) -> bool,
        all: &mut Vec<f32>,
    ) -> Result<(), Error> {
        let layers = self.config.layers;
        let mut done = 0;
        for chunk in tokens.chunks(self.micro_batch) {
            let want = match logits {
                Logits::All => Wanted::All,
                Logits::Last if done + chunk.len() == tokens.len() => Wanted::Last,
                _ => Wanted::None,
            };
            let phase = if tokens.len() > 1 { Phase::Prefill } else { Phase::Decode };
            let segment = Segment {
                seq: 0,
                start: cache.len,
                rows: 0..chunk.len(),
                pages: &cache.pages,
                phase,
                want,
            };
            let mut layer = 0;
            let batch = Batch { tokens: chunk, segments: &[segment] };
            self.run(&batch, &mut || {
                layer += 1;
                progress(done + chunk.len() * layer / layers)
            })?;
            if let Some(failure) = self.rows.take_failure() {
                return Err(std::sync::Arc::into_inner(failure.error).unwrap_or(Error::NotFinite));
            }
            if logits == Logits::All {
                all.extend_from_slice(&self.rows.logits);
            }
            done += chunk.len();
            cache.len += chunk.len();
        }
        Ok(())
    }
}
