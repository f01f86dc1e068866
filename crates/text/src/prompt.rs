//! A rendered prompt, and which of its control tokens are real.

use std::ops::Range;

use crate::Vocab;
use crate::error::Result;

/// How a prompt ends, and so where the answer begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tail {
    /// Neither of the following: the model decides whether to think.
    #[default]
    Plain,
    /// In an open thought: the first token of the answer is part of it.
    OpenThought,
    /// In a closed thought: the answer proper begins.
    ClosedThought,
}

/// A prompt: text of which only the template's control tokens are control tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompt {
    pub(crate) text: String,
    /// The control tokens that the template wrote, in order.
    pub(crate) control: Vec<Range<usize>>,
    pub(crate) tail: Tail,
}

impl Prompt {
    /// The text, as `--show-prompt` prints it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The byte ranges of the control tokens; everything else is ordinary text.
    pub fn control(&self) -> &[Range<usize>] {
        &self.control
    }

    /// How it ends.
    pub fn tail(&self) -> Tail {
        self.tail
    }

    /// Whether the answer begins inside a thought.
    pub fn opens_thought(&self) -> bool {
        self.tail == Tail::OpenThought
    }

    /// The tokens, with exactly one BOS if the vocabulary asks for it.
    ///
    /// # Errors
    /// As [`Vocab::encode`].
    pub fn tokens(&self, vocab: &Vocab) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(self.text.len() / 3 + 1);
        let mut from = 0;
        for control in &self.control {
            let Some(id) = vocab.special_id(&self.text[control.clone()]) else { continue };
            ids.extend(vocab.encode(&self.text[from..control.start], false)?);
            ids.push(id);
            from = control.end;
        }
        ids.extend(vocab.encode(&self.text[from..], false)?);
        vocab.with_one_bos(&mut ids);
        Ok(ids)
    }
}
