//! One request as the scheduler sees it: its tokens, and which of them are in which pages.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use cachalot_model::PAGE_ROWS;

use crate::Error;
use crate::answer::Answer;
use crate::blocks::{PageId, PageKey, Pages};
use crate::event::Token;
use crate::handle::{Submission, Ticket};
use crate::status::ModelInfo;

/// A request that waits or is being answered.
pub(crate) struct Sequence {
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) answer: Answer,
    /// The prompt, and what was generated.
    pub(crate) tokens: Vec<u32>,
    pub(crate) prompt: usize,
    /// Tokens whose keys and values are in `pages`.
    pub(crate) computed: usize,
    pub(crate) pages: Vec<PageId>,
    /// Pages that were named, and the name of the last of them.
    named: (usize, PageKey),
    /// Whether it uses what others left in the cache.
    pub(crate) reuses: bool,
    /// Pages of its prompt are being read from the prefix cache.
    pub(crate) is_loading: bool,
    /// Whether it was admitted before: it has lost its pages since, if it waits.
    pub(crate) was_admitted: bool,
    /// Among prompts that run, the smaller ones come first.
    pub(crate) turn: u64,
    /// Its place in the queue, as its receiver knows it.
    pub(crate) position: Option<usize>,
    /// Its reader is behind, since then.
    pub(crate) is_paused: bool,
    pub(crate) paused_at: Option<Instant>,
    /// Where its logits of this step are: nowhere if none were wanted.
    pub(crate) logits: Range<usize>,
    /// The token that was chosen in this step, if its logits were computed; `None` within that if
    /// the answer is complete.
    pub(crate) chosen: Option<Result<Option<Token>, Error>>,
}

impl Sequence {
    pub(crate) fn new(mut submission: Submission, info: &ModelInfo) -> Self {
        let tokens = std::mem::take(&mut submission.request.prompt);
        Self {
            ticket: Arc::clone(&submission.ticket),
            prompt: tokens.len(),
            computed: 0,
            pages: Vec::new(),
            named: (0, PageKey::default()),
            reuses: submission.request.cache_prompt,
            is_loading: false,
            was_admitted: false,
            turn: 0,
            position: None,
            is_paused: false,
            paused_at: None,
            logits: 0..0,
            chosen: None,
            answer: Answer::new(submission, &tokens, info),
            tokens,
        }
    }

    /// Tokens that are not computed yet: one while it generates, more of a prompt.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Whether it continues a text, rather than computing a prompt.
    pub(crate) fn is_decoding(&self) -> bool {
        self.pending() == 1 && self.tokens.len() > self.prompt
    }

    /// Finds what the cache holds of its tokens; all but the last one, whose logits are needed.
    /// Returns a page to be copied to its last page, if there is one.
    pub(crate) fn adopt(&mut self, pages: &mut Pages) -> Option<(PageId, PageId)> {
        if !self.reuses {
            return None;
        }
        let found = pages.find(&self.tokens[..self.tokens.len() - 1]);
        self.computed = found.pages.len() * PAGE_ROWS;
        self.named = (found.pages.len(), found.key);
        self.pages = found.pages;
        let (from, common) = found.partial?;
        let to = pages.take();
        pages.release(from);
        self.computed += if to.is_some() { common } else { 0 };
        self.pages.extend(to);
        Some((from, to?))
    }

    /// Pages that it lacks to compute `count` more tokens.
    pub(crate) fn lacks(&self, count: usize) -> usize {
        (self.computed + count).div_ceil(PAGE_ROWS).saturating_sub(self.pages.len())
    }

    /// `count` more tokens were computed. Full pages can be found by others.
    pub(crate) fn advance(&mut self, count: usize, pages: &mut Pages) {
        self.computed += count;
        while (self.named.0 + 1) * PAGE_ROWS <= self.computed {
            let (index, parent) = self.named;
            let tokens = &self.tokens[index * PAGE_ROWS..(index + 1) * PAGE_ROWS];
            self.named = (index + 1, pages.name(self.pages[index], parent, tokens));
        }
    }

    /// Gives its pages back. What the last one holds can be found by others, too, if it is sound.
    pub(crate) fn release(&mut self, is_sound: bool, pages: &mut Pages) {
        let (index, parent) = self.named;
        let start = index * PAGE_ROWS;
        if is_sound && start < self.computed {
            pages.name(self.pages[index], parent, &self.tokens[start..self.computed]);
        }
        // The end first, so that it is reused first.
        self.pages.drain(..).rev().for_each(|page| pages.release(page));
        self.computed = 0;
        self.named = (0, PageKey::default());
    }
}
