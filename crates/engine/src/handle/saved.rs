//! Sequences that are saved and restored by hand: their pages, one after another, in one file.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Sender, channel};

use cachalot_model::PAGE_ROWS;

use super::Handle;
use crate::blocks::PageKey;
use crate::pages::{Job, PageData};

/// What was saved or restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// The tokens whose keys and values there are.
    pub tokens: Vec<u32>,
    /// Bytes that were written or read.
    pub bytes: u64,
}

/// Why a sequence cannot be saved or restored.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say what the variants are
pub enum SaveError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("all pages of the KV cache are in use by other requests: try again later")]
    NoRoom,
    #[error("the engine is shutting down")]
    Gone,
}

impl Handle {
    fn ask<T>(&self, job: impl FnOnce(Sender<T>) -> Job) -> Result<T, SaveError> {
        let (reply, answer) = channel();
        self.send(job(reply));
        answer.recv().map_err(|_| SaveError::Gone)
    }

    /// Writes the keys and values of a text, as far as they are in the cache. Waits for a step of
    /// the engine with each page.
    ///
    /// # Errors
    /// If `out` cannot be written, or the engine ends.
    pub fn save(&self, tokens: &[u32], out: &mut impl Write) -> Result<Saved, SaveError> {
        let mut saved = Saved::default();
        for index in 0..tokens.len().div_ceil(PAGE_ROWS) {
            let tokens = tokens.to_vec();
            let page = self.ask(|reply| Job::Export { tokens, index, reply })?;
            let Some(page) = page else { break };
            let bytes = page.encode(&self.info().fingerprint);
            out.write_all(&bytes)?;
            saved.bytes += bytes.len() as u64;
            saved.tokens.extend(&page.tokens);
            if !page.is_full() {
                break;
            }
        }
        Ok(saved)
    }

    /// Reads what [`Handle::save`] wrote, so that prompts that begin as it does find it.
    ///
    /// # Errors
    /// If it is damaged, or of another model or other options of computation; if there is no room.
    /// What precedes the damage is there then.
    pub fn restore(&self, from: &mut impl Read) -> Result<Saved, SaveError> {
        let size = self.ask(Job::Size)?;
        let mut restored = Saved::default();
        let mut parent = PageKey::default();
        loop {
            let page = PageData::decode(from, &self.info().fingerprint, size)?;
            let Some(page) = page else { return Ok(restored) };
            let follows = page.parent == parent && restored.tokens.len() % PAGE_ROWS == 0;
            if !follows {
                let what = "its pages do not follow each other";
                return Err(io::Error::new(io::ErrorKind::InvalidData, what).into());
            }
            parent = page.key();
            restored.bytes += page.encode_len();
            restored.tokens.extend(&page.tokens);
            if !self.ask(|reply| Job::Import { page, reply })? {
                return Err(SaveError::NoRoom);
            }
        }
    }

    /// Forgets the keys and values of a text, except those that running requests use; returns of
    /// how many tokens.
    ///
    /// # Errors
    /// If the engine ends.
    pub fn erase(&self, tokens: &[u32]) -> Result<usize, SaveError> {
        let tokens = tokens.to_vec();
        self.ask(|reply| Job::Erase { tokens, reply })
    }
}
