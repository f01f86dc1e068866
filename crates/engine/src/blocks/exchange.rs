//! Pages that come from elsewhere and go elsewhere: which of them hold a text, and what they hold.

use super::{PageId, PageKey, Pages};
use cachalot_model::PAGE_ROWS;

impl Pages {
    /// Notes from now on which pages become full, for [`Pages::take_filled`].
    pub(crate) fn note_filled(&mut self) {
        self.filled.get_or_insert_default();
    }

    /// The pages that became full since the last call.
    pub(crate) fn take_filled(&mut self) -> Vec<PageId> {
        self.filled.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What is known of a page: the page before it, and its tokens.
    pub(crate) fn content(&self, page: PageId) -> Option<(PageKey, &[u32])> {
        let content = self.pages[page as usize].content.as_ref();
        content.map(|(parent, tokens)| (*parent, tokens.as_slice()))
    }

    /// How many full pages of a text are there. They count as just used.
    pub(crate) fn touch(&mut self, tokens: &[u32]) -> usize {
        let found = self.find(tokens);
        let full = found.pages.len();
        found.partial.iter().for_each(|(page, _)| self.release(*page));
        found.pages.into_iter().rev().for_each(|page| self.release(page));
        full
    }

    /// The page that holds page `index` of a text, or the beginning of it: the page, the page
    /// before it, and how many tokens they have in common.
    pub(crate) fn locate(&self, tokens: &[u32], index: usize) -> Option<(PageId, PageKey, usize)> {
        let mut chunks = tokens.chunks(PAGE_ROWS);
        let parent = chunks.by_ref().take(index).fold(PageKey::default(), PageKey::then);
        let wanted = chunks.next()?;
        let children = self.children.get(&parent)?.iter().map(|page| {
            let held = self.content(*page).map_or(&[][..], |(_, held)| held);
            (held.iter().zip(wanted).take_while(|(a, b)| a == b).count(), *page)
        });
        let (common, page) = children.max().filter(|(common, _)| *common > 0)?;
        Some((page, parent, common))
    }

    /// Forgets the pages of a text that no sequence uses; returns how many tokens they held.
    pub(crate) fn erase(&mut self, tokens: &[u32]) -> usize {
        let mut erased = 0;
        for index in (0..tokens.len().div_ceil(PAGE_ROWS)).rev() {
            let Some((page, _, common)) = self.locate(tokens, index) else { continue };
            let state = &self.pages[page as usize];
            if state.users == 0 && self.idle.remove(&(state.used_at, page)) {
                self.forget(page);
                self.free.push(page);
                erased += common;
            }
        }
        erased
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_a_text_are_located_and_erased() {
        let mut pages = Pages::new(4);
        pages.note_filled();
        let text: Vec<u32> = (0..150).collect();
        let mut key = PageKey::default();
        for chunk in text.chunks(PAGE_ROWS) {
            let page = pages.take().unwrap();
            key = pages.name(page, key, chunk);
            pages.release(page);
        }
        assert_eq!(pages.take_filled().len(), 2);
        assert_eq!((pages.touch(&text), pages.touch(&text[..100])), (2, 1));
        assert_eq!(pages.locate(&text, 2).map(|(_, _, common)| common), Some(22));
        assert_eq!(pages.locate(&text[..70], 1).map(|(_, _, common)| common), Some(6));
        assert_eq!(pages.locate(&text, 3), None);
        let (page, parent, _) = pages.locate(&text, 1).unwrap();
        assert_eq!(pages.content(page), Some((parent, &text[64..128])));
        let used = pages.find(&text[..64]);
        assert_eq!(pages.erase(&text), 86, "the first page is in use");
        assert_eq!(pages.touch(&text), 1);
        assert_eq!(pages.available(), 3);
        pages.release(used.pages[0]);
        assert_eq!(pages.erase(&text), 64);
        assert_eq!((pages.available(), pages.idle()), (4, 0));
    }
}
