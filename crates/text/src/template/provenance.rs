//! Which control tokens of a prompt the template wrote, and which came with a message.
//!
//! A message may contain `<｜User｜>` as text. In the tokens of the prompt it must stay text, or the
//! author of the message could open a turn. Templates trim, split and search messages, so messages
//! cannot simply be wrapped in marks. Instead the conversation is rendered again with certain
//! characters of all messages replaced by private-use characters that occur nowhere else:
//!
//! - *all*: the first and last characters of every control token. Any control token that is then
//!   found was written by the template. If the tags found are those of the plain rendering, all of
//!   them are the template's; if restoring the characters gives the plain rendering, the places are
//!   known.
//! - *marked*: tags that the template itself searches for stay, between two marks; the rest as
//!   above. Should restoring not give the plain rendering, this text is used as it is: at worst
//!   some white space differs, but no message writes a control token.
//!
//! Only conversations with a suspicious text pay for the further renderings.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::specials::Specials;

/// The replaced characters of one conversation, both ways.
pub(super) struct Disguise<'a> {
    tags: &'a Specials,
    /// Texts that stay in messages, between the marks; empty for *all*.
    searched: &'a [&'a str],
    marks: [char; 2],
    marked: Marked,
    unused: std::vec::IntoIter<char>,
    replaced: BTreeMap<char, char>,
    restored: BTreeMap<char, char>,
}

/// On which sides of a searched tag the marks are: templates may look at what is before or after
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marked {
    Around,
    After,
    Before,
}

impl Marked {
    pub(super) const ALL: [Self; 3] = [Self::Around, Self::After, Self::Before];
}

/// Text with the places of the template's own tags.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Traced {
    pub(crate) text: String,
    pub(crate) tags: Vec<Range<usize>>,
}

impl<'a> Disguise<'a> {
    /// `taken`: texts whose private-use characters must not be used. Nothing if they use all.
    pub(super) fn new<'t>(
        tags: &'a Specials,
        searched: &'a [&'a str],
        marked: Marked,
        taken: impl Iterator<Item = &'t str>,
    ) -> Option<Self> {
        const PRIVATE: std::ops::RangeInclusive<char> = '\u{100000}'..='\u{10fffd}';
        let mut used = BTreeSet::new();
        for text in taken.filter(|text| text.bytes().any(|byte| byte == 0xf4)) {
            used.extend(text.chars().filter(|char| PRIVATE.contains(char)));
        }
        // One for each first or last character of a tag, and some for the rest.
        let unused: Vec<char> = PRIVATE.filter(|char| !used.contains(char)).take(4096).collect();
        let mut unused = unused.into_iter();
        let marks = [unused.next()?, unused.next()?];
        (unused.len() >= 1024).then_some(())?;
        let (replaced, restored) = (BTreeMap::new(), BTreeMap::new());
        Some(Self { tags, searched, marks, marked, unused, replaced, restored })
    }

    /// A text of a message as the template gets to see it.
    pub(super) fn put_on(&mut self, text: &str) -> String {
        let mut disguised = String::with_capacity(text.len() + 16);
        let mut rest = text;
        if self.tags.contain(text.trim()) && !self.searched.contains(&text.trim()) {
            // Between two pieces of the template it could complete a tag.
            let start = text.len() - text.trim_start().len();
            disguised.push_str(&text[..start]);
            rest = &text[start..];
            let first = rest.chars().next();
            disguised.extend(first.map(|char| self.replace(char)));
            rest = &rest[first.map_or(0, char::len_utf8)..];
        }
        while let Some(char) = rest.chars().next() {
            let stays = self.searched.iter().find(|tag| rest.starts_with(**tag));
            if let Some(tag) = stays {
                // Outside of the white space, which templates strip from the pieces of a split.
                let end = disguised.trim_end().len();
                if self.marked != Marked::After {
                    disguised.insert(end, self.marks[0]);
                }
                disguised.push_str(tag);
                rest = &rest[tag.len()..];
                let text = rest.trim_start();
                disguised.push_str(&rest[..rest.len() - text.len()]);
                if self.marked != Marked::Before {
                    disguised.push(self.marks[1]);
                }
                rest = text;
                continue;
            }
            disguised.push(if self.tags.has_boundary(char) { self.replace(char) } else { char });
            rest = &rest[char.len_utf8()..];
        }
        disguised
    }

    fn replace(&mut self, char: char) -> char {
        if let Some(replaced) = self.replaced.get(&char) {
            return *replaced;
        }
        let Some(stand_in) = self.unused.next() else { return '\u{fffd}' };
        self.replaced.insert(char, stand_in);
        self.restored.insert(stand_in, char);
        stand_in
    }

    /// Whether a character stands for another, and is to be kept by filters that escape.
    pub(super) fn stand_ins(&self) -> BTreeSet<char> {
        self.restored.keys().copied().chain(self.marks).collect()
    }

    /// A rendering of disguised messages: its tags are the template's, unless marked.
    pub(super) fn take_off(&self, rendered: &str) -> Traced {
        let is_marked = |tag: &Range<usize>| {
            let before = rendered[..tag.start].trim_end().ends_with(self.marks[0]);
            let after = rendered[tag.end..].trim_start().starts_with(self.marks[1]);
            match self.marked {
                Marked::Around => before && after,
                Marked::After => after,
                Marked::Before => before,
            }
        };
        let mut found = self.tags.find(rendered).into_iter().peekable();
        let mut traced = Traced::default();
        let mut open = None;
        for (at, char) in rendered.char_indices() {
            if let Some(tag) = found.next_if(|tag| tag.start == at) {
                open = (!is_marked(&tag)).then_some((traced.text.len(), tag.end));
            }
            if !self.marks.contains(&char) {
                traced.text.push(self.restored.get(&char).copied().unwrap_or(char));
            }
            if let Some((start, end)) = open
                && at + char.len_utf8() == end
            {
                traced.tags.push(start..traced.text.len());
                open = None;
            }
        }
        traced
    }
}

impl Traced {
    /// Everything in `text` that is a tag is the template's.
    pub(crate) fn all(tags: &Specials, text: String) -> Self {
        Self { tags: tags.find(&text), text }
    }

    /// The texts of the tags, in order.
    pub(crate) fn tag_texts(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().map(|tag| &self.text[tag.clone()])
    }

    /// Adds text of the template's kind.
    pub(crate) fn push(&mut self, tags: &Specials, text: &str) {
        let at = self.text.len();
        self.tags.extend(tags.find(text).into_iter().map(|tag| tag.start + at..tag.end + at));
        self.text.push_str(text);
    }

    /// Cuts the text.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.text.truncate(len);
        self.tags.retain(|tag| tag.end <= len);
    }

    /// Whether the text ends in this tag, written by the template; white space may follow.
    pub(crate) fn ends_with(&self, tag: &str) -> bool {
        let end = self.text.trim_end().len();
        self.tags.last().is_some_and(|last| last.end == end && &self.text[last.clone()] == tag)
    }
}
