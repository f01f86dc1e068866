//! Given tokens through the model, without sampling: for measuring, and for the probabilities of
//! texts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cachalot_model::{Batch, PAGE_ROWS, PageId, Phase, Progress, Segment, Wanted};

use super::engine::Engine;
use crate::Error;

/// Tokens of one text, and what is wanted of them.
#[derive(Clone, Copy, Debug)]
pub struct Feed<'a> {
    /// The tokens.
    pub tokens: &'a [u32],
    /// The position of the first; those before were computed.
    pub start: usize,
    /// As which tokens they are computed.
    pub phase: Phase,
    /// The results that are wanted: of [`Wanted::Last`], those of the last token of all.
    pub want: Wanted,
}

impl Engine {
    /// Prepares for one text of up to `tokens` tokens, in place of all others.
    ///
    /// # Errors
    /// If there is no memory for them.
    #[doc(hidden)]
    pub fn begin_feed(&mut self, tokens: usize) -> Result<(), Error> {
        Ok(self.model.reserve_pages(tokens.div_ceil(PAGE_ROWS), self.info.kv_type)?)
    }

    /// Computes tokens in micro-batches. `sink` gets the wanted logits `[rows, vocabulary]`, or
    /// hidden states `[rows, hidden]`, in order, and `progress` the number of tokens that the work
    /// done so far amounts to; it stops the work by returning `false`.
    ///
    /// # Errors
    /// If a token is not in the vocabulary; if it was stopped; if a result is not finite; and the
    /// first error of `sink`.
    ///
    /// # Panics
    /// If [`Engine::begin_feed`] was called with fewer tokens than `feed` ends at.
    #[doc(hidden)]
    pub fn feed<E: From<Error>>(
        &mut self,
        feed: Feed<'_>,
        progress: &mut dyn FnMut(usize) -> bool,
        mut sink: impl FnMut(&[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Feed { tokens, mut start, phase, want } = feed;
        let end = start + tokens.len();
        let pages: Vec<PageId> = (0..end.div_ceil(PAGE_ROWS) as PageId).collect();
        let size = if want == Wanted::All { self.logit_rows() } else { self.micro_batch() };
        for tokens in tokens.chunks(size) {
            let is_last = start + tokens.len() == end;
            let want = if want == Wanted::Last && !is_last { Wanted::None } else { want };
            let rows = 0..tokens.len();
            let segment = Segment { seq: 0, start, rows, pages: &pages, phase, want };
            let batch = Batch { tokens, segments: &[segment] };
            let before = start - feed.start;
            let mut progress = |Progress { done, layers }: Progress| {
                progress(before + tokens.len() * done / layers)
            };
            let output = self.model.forward(&batch, &mut progress).map_err(Error::from)?;
            if let Some(failure) = output.failures().first() {
                return Err(Error::Computation(Arc::clone(&failure.error)).into());
            }
            let results = if want == Wanted::Hidden { output.hidden(0) } else { output.logits(0) };
            if !results.iter().all(|number| number.is_finite()) {
                return Err(Error::NotFinite.into());
            }
            if !results.is_empty() {
                sink(results)?;
            }
            start += tokens.len();
        }
        Ok(())
    }

    /// The logits of every one of `tokens`, chunk by chunk: `sink` gets some rows of
    /// `[rows, vocabulary]`, in order. Setting `cancel` ends it soon.
    ///
    /// # Errors
    /// If a token is not in the vocabulary, or there are more than the model was made for, before
    /// anything is computed; if a logit is not finite; if it was cancelled; and the first error of
    /// `sink`.
    #[doc(hidden)]
    pub fn logits<E: From<Error>>(
        &mut self,
        tokens: &[u32],
        cancel: &AtomicBool,
        sink: impl FnMut(&[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (vocabulary, context) = (self.vocab().len(), self.info.context.model);
        if tokens.len() > context {
            return Err(Error::PromptTooLong { prompt: tokens.len(), context }.into());
        }
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(Error::from(cachalot_model::Error::Token { token, vocabulary }).into());
        }
        self.begin_feed(tokens.len())?;
        let feed = Feed { tokens, start: 0, phase: Phase::Prefill, want: Wanted::All };
        self.feed(feed, &mut |_| !cancel.load(Ordering::Relaxed), sink)
    }

    fn micro_batch(&self) -> usize {
        (self.info.layout.micro_batch as usize).max(1)
    }

    /// Rows whose logits, with everything else that they need, fit into the planned buffers.
    fn logit_rows(&self) -> usize {
        let bytes = (self.info.vocab.len() * size_of::<f32>()) as u64;
        let layout = &self.info.layout;
        let of_row = layout.buffers / layout.micro_batch.max(1);
        (layout.buffers / (of_row + bytes).max(1)).clamp(1, layout.micro_batch.clamp(1, 256))
            as usize
    }
}
