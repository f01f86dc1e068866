//! Pages of the KV cache: who uses them, which tokens they hold, and which is reused next.
//!
//! A full page is named by the hash of its tokens and of the page before it, so that sequences that
//! begin alike share pages. Pages that no sequence uses stay findable until their memory is wanted;
//! the least recently used goes first. A page that is shared in part is copied, and never written.

mod exchange;

use std::collections::{BTreeSet, HashMap};

use cachalot_model::PAGE_ROWS;
use sha2::{Digest, Sha256};

pub(crate) use cachalot_model::PageId;

/// Names a full page by its content: half a SHA-256 of the page before it and its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PageKey(pub(crate) [u8; 16]);

impl PageKey {
    /// The page of these tokens after `self`; the default is before the first page.
    pub(crate) fn then(self, tokens: &[u32]) -> Self {
        let mut hash = Sha256::new_with_prefix(self.0);
        for token in tokens {
            hash.update(token.to_le_bytes());
        }
        let mut key = [0; 16];
        key.copy_from_slice(&hash.finalize()[..16]);
        Self(key)
    }
}

/// All pages.
#[derive(Debug)]
pub(crate) struct Pages {
    pages: Vec<Page>,
    /// Pages without content.
    free: Vec<PageId>,
    /// Pages with known content that no sequence uses, by when they were last used.
    idle: BTreeSet<(u64, PageId)>,
    /// Pages with known content by the page before them.
    children: HashMap<PageKey, Vec<PageId>>,
    /// Pages that became full, if that is noted.
    filled: Option<Vec<PageId>>,
    clock: u64,
}

#[derive(Clone, Debug, Default)]
struct Page {
    users: u32,
    used_at: u64,
    /// The page before it, and its tokens, if they are known: all, or the first ones.
    content: Option<(PageKey, Vec<u32>)>,
}

/// What is known of a prompt.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Prefix {
    /// Full pages, taken for the caller.
    pub(crate) pages: Vec<PageId>,
    /// The name of the last of them.
    pub(crate) key: PageKey,
    /// A page, taken for the caller, that holds this many of the tokens that follow: to be copied.
    pub(crate) partial: Option<(PageId, usize)>,
}

impl Pages {
    pub(crate) fn new(count: usize) -> Self {
        let ids = 0..count as PageId;
        Self {
            pages: vec![Page::default(); count],
            free: ids.rev().collect(),
            idle: BTreeSet::new(),
            children: HashMap::new(),
            filled: None,
            clock: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }

    /// Pages that can be taken.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Pages that are kept for prompts to come.
    pub(crate) fn idle(&self) -> usize {
        self.idle.len()
    }

    /// The pages that begin as `tokens` do.
    pub(crate) fn find(&mut self, tokens: &[u32]) -> Prefix {
        let mut prefix = Prefix::default();
        loop {
            let rest = &tokens[prefix.pages.len() * PAGE_ROWS..];
            let common = |page: &PageId| {
                let content = self.pages[*page as usize].content.as_ref();
                content.map_or(0, |(_, held)| {
                    held.iter().zip(rest).take_while(|(a, b)| a == b).count()
                })
            };
            let children = self.children.get(&prefix.key).map_or(&[][..], Vec::as_slice);
            let best = children.iter().map(|page| (common(page), *page)).max();
            let Some((common, page)) = best.filter(|(common, _)| *common > 0) else {
                return prefix;
            };
            self.share(page);
            if common < PAGE_ROWS {
                prefix.partial = Some((page, common));
                return prefix;
            }
            prefix.pages.push(page);
            prefix.key = prefix.key.then(&rest[..PAGE_ROWS]);
        }
    }

    /// A page to write.
    pub(crate) fn take(&mut self) -> Option<PageId> {
        let page = self.free.pop().or_else(|| {
            let (_, page) = self.idle.pop_first()?;
            self.forget(page);
            Some(page)
        })?;
        self.pages[page as usize].users = 1;
        Some(page)
    }

    fn share(&mut self, page: PageId) {
        let state = &mut self.pages[page as usize];
        if state.users == 0 {
            self.idle.remove(&(state.used_at, page));
        }
        state.users += 1;
    }

    /// Gives a page back.
    pub(crate) fn release(&mut self, page: PageId) {
        self.clock += 1;
        let state = &mut self.pages[page as usize];
        assert!(state.users > 0, "page {page} is released once too often");
        state.users -= 1;
        if state.users > 0 {
            return;
        }
        state.used_at = self.clock;
        if state.content.is_some() {
            self.idle.insert((self.clock, page));
        } else {
            self.free.push(page);
        }
    }

    /// Makes a page findable: it holds `tokens`, after `parent`. Returns the name of a full page.
    pub(crate) fn name(&mut self, page: PageId, parent: PageKey, tokens: &[u32]) -> PageKey {
        self.forget(page);
        let siblings = self.children.entry(parent).or_default();
        // A page that holds no more than another is not worth keeping.
        let pages = &self.pages;
        let is_known = siblings.iter().any(|sibling| {
            let content = pages[*sibling as usize].content.as_ref();
            content.is_some_and(|(_, held)| held.starts_with(tokens))
        });
        if !is_known {
            siblings.push(page);
            if let Some(filled) = self.filled.as_mut().filter(|_| tokens.len() == PAGE_ROWS) {
                filled.push(page);
            }
            self.pages[page as usize].content = Some((parent, tokens.to_vec()));
        }
        if tokens.len() == PAGE_ROWS { parent.then(tokens) } else { parent }
    }

    fn forget(&mut self, page: PageId) {
        let Some((parent, _)) = self.pages[page as usize].content.take() else { return };
        if let Some(siblings) = self.children.get_mut(&parent) {
            siblings.retain(|sibling| *sibling != page);
            if siblings.is_empty() {
                self.children.remove(&parent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(count: usize, seed: u32) -> Vec<u32> {
        (0..count as u32).map(|i| i * 7 + seed).collect()
    }

    /// Fills pages with tokens, as a sequence does, and gives them back.
    fn store(pages: &mut Pages, tokens: &[u32]) -> Vec<PageId> {
        let mut key = PageKey::default();
        let ids: Vec<PageId> = tokens.chunks(PAGE_ROWS).map(|_| pages.take().unwrap()).collect();
        for (id, tokens) in ids.iter().zip(tokens.chunks(PAGE_ROWS)) {
            key = pages.name(*id, key, tokens);
        }
        ids.iter().rev().for_each(|id| pages.release(*id));
        ids
    }

    #[test]
    fn prompts_find_the_pages_that_begin_as_they_do() {
        let mut pages = Pages::new(8);
        let first = tokens(150, 0);
        let ids = store(&mut pages, &first);
        assert_eq!((pages.available(), pages.idle()), (8, 3));
        let found = pages.find(&first[..140]);
        assert_eq!(found.pages, ids[..2]);
        assert_eq!(found.partial, Some((ids[2], 12)));
        assert_eq!(pages.available(), 5, "they are in use now");
        let mut other = first.clone();
        other[70] = 9999;
        let found = pages.find(&other);
        assert_eq!((found.pages, found.partial), (vec![ids[0]], Some((ids[1], 6))));
        assert_eq!(pages.find(&tokens(100, 3)), Prefix::default());
        other[0] = 9999;
        assert_eq!(pages.find(&other), Prefix::default(), "what follows depends on what precedes");
    }

    #[test]
    fn the_least_recently_used_page_goes_first_and_the_end_of_a_text_before_its_start() {
        let mut pages = Pages::new(4);
        let (old, new) = (tokens(128, 0), tokens(128, 5));
        let old_ids = store(&mut pages, &old);
        store(&mut pages, &new);
        assert_eq!(pages.take(), Some(old_ids[1]));
        assert_eq!(pages.find(&old).pages, old_ids[..1]);
        assert_eq!(pages.find(&new).pages.len(), 2);
        assert_eq!(pages.take(), None, "all are in use");
        old_ids[..1].iter().for_each(|id| pages.release(*id));
        assert_eq!(pages.take(), Some(old_ids[0]));
    }
}
