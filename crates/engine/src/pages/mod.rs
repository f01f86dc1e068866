//! Keys and values that leave the engine and return: the prefix cache on disk, and sequences
//! that are saved by hand (`handle/saved.rs`).
//!
//! Both are pages (`record.rs`). The engine's thread copies them out of and into its memory between
//! steps, a few at a time; files are read and written by others.

mod record;
mod store;

use std::collections::VecDeque;
use std::sync::mpsc::Sender;

use cachalot_model::PAGE_ROWS;

pub(crate) use record::PageData;
pub(crate) use store::{Arrived, Store};

use crate::blocks::{PageId, PageKey, Pages};
use crate::scheduler::Scheduler;
use crate::sequence::Sequence;
use crate::step::Compute;

impl PageData {
    pub(crate) fn is_full(&self) -> bool {
        self.tokens.len() == PAGE_ROWS
    }
}

/// The prefix cache as the engine's thread sees it.
#[derive(Default)]
pub(crate) struct Disk {
    store: Option<Store>,
    /// Pages to be written, the oldest first.
    unsaved: VecDeque<PageId>,
}

impl Disk {
    pub(crate) fn new(store: Option<Store>, pages: &mut Pages) -> Self {
        if store.is_some() {
            pages.note_filled();
        }
        Self { store, unsaved: VecDeque::new() }
    }

    /// Whether pages are still to be written.
    pub(crate) fn is_behind(&self) -> bool {
        !self.unsaved.is_empty()
    }

    /// Starts reading the pages of a new sequence that are on disk and not in memory.
    pub(crate) fn begin(&self, sequence: &mut Sequence, pages: &mut Pages) {
        let Some(store) = self.store.as_ref().filter(|_| sequence.reuses) else { return };
        // The last token is computed in any case.
        let tokens = &sequence.tokens[..sequence.tokens.len() - 1];
        let known = pages.touch(tokens);
        let mut key = PageKey::default();
        let keys = tokens.chunks_exact(PAGE_ROWS).map(|tokens| {
            key = key.then(tokens);
            key
        });
        let room = pages.available();
        let keys: Vec<PageKey> =
            keys.skip(known).take_while(|key| store.has(*key)).take(room).collect();
        if !keys.is_empty() {
            sequence.is_loading = true;
            store.read(&sequence.ticket, keys);
        }
    }

    /// Takes in what was read, and hands on what is to be written.
    pub(crate) fn step(&mut self, scheduler: &mut Scheduler, compute: &mut impl Compute) {
        let Some(store) = &self.store else { return };
        while let Some(arrived) = store.take() {
            match arrived {
                Arrived::Page(page) => {
                    import(&page, &mut scheduler.pages, compute);
                    // It came from there.
                    scheduler.pages.take_filled().iter().for_each(|page| {
                        let key = key_of(*page, &scheduler.pages);
                        if key.is_some_and(|key| !store.has(key)) {
                            self.unsaved.push_back(*page);
                        }
                    });
                }
                Arrived::End(id) => {
                    let waiting = scheduler.waiting.iter_mut();
                    for sequence in waiting.filter(|sequence| sequence.ticket.id == id) {
                        sequence.is_loading = false;
                    }
                }
            }
        }
        self.unsaved.extend(scheduler.pages.take_filled());
        while let Some(page) = self.unsaved.pop_front() {
            if let Some(page_data) = unsaved(page, store, &scheduler.pages, compute)
                && store.write(page_data).is_err()
            {
                self.unsaved.push_front(page);
                break;
            }
        }
        // A drive that is slower than the model loses pages, the oldest first.
        let most = scheduler.pages.len();
        self.unsaved.drain(..self.unsaved.len().saturating_sub(most));
    }

    /// Writes all that is left, and waits for it.
    pub(crate) fn finish(self, pages: &mut Pages, compute: &impl Compute) {
        let Some(store) = self.store else { return };
        for page in self.unsaved.into_iter().chain(pages.take_filled()) {
            if let Some(page) = unsaved(page, &store, pages, compute) {
                store.write_in_the_end(page);
            }
        }
    }
}

fn key_of(page: PageId, pages: &Pages) -> Option<PageKey> {
    let (parent, tokens) = pages.content(page)?;
    (tokens.len() == PAGE_ROWS).then(|| parent.then(tokens))
}

/// The content of a page, unless it is on disk already or was given away.
fn unsaved(page: PageId, store: &Store, pages: &Pages, compute: &impl Compute) -> Option<PageData> {
    let key = key_of(page, pages).filter(|key| !store.has(*key))?;
    let (parent, tokens) = pages.content(page)?;
    debug_assert_eq!(key, parent.then(tokens));
    Some(PageData { parent, tokens: tokens.to_vec(), bytes: compute.read_page(page) })
}

/// Takes a page in, so that prompts find it; returns whether there was room.
fn import(page: &PageData, pages: &mut Pages, compute: &mut impl Compute) -> bool {
    if page.bytes.len() as u64 != compute.page_bytes() {
        return false;
    }
    let Some(id) = pages.take() else { return false };
    compute.write_page(id, &page.bytes);
    pages.name(id, page.parent, &page.tokens);
    pages.release(id);
    true
}

/// What other threads want of the engine's pages. Who has left gets no answer.
pub(crate) enum Job {
    /// Bytes of a page.
    Size(Sender<u64>),
    /// Page `index` of a text, or the beginning of it, if it is there.
    Export { tokens: Vec<u32>, index: usize, reply: Sender<Option<PageData>> },
    /// Takes a page in; whether there was room.
    Import { page: PageData, reply: Sender<bool> },
    /// Forgets a text; how many tokens that were.
    Erase { tokens: Vec<u32>, reply: Sender<usize> },
}

impl Job {
    pub(crate) fn run(self, pages: &mut Pages, compute: &mut impl Compute) {
        match self {
            Self::Size(reply) => drop(reply.send(compute.page_bytes())),
            Self::Export { tokens, index, reply } => {
                let page = pages.locate(&tokens, index).map(|(page, parent, common)| PageData {
                    parent,
                    tokens: tokens[index * PAGE_ROWS..][..common].to_vec(),
                    bytes: compute.read_page(page),
                });
                drop(reply.send(page));
            }
            Self::Import { page, reply } => drop(reply.send(import(&page, pages, compute))),
            Self::Erase { tokens, reply } => drop(reply.send(pages.erase(&tokens))),
        }
    }
}
