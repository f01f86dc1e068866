//! Texts of special tokens, found in a text.

use std::collections::BTreeSet;
use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};

use crate::error::{Error, Result};

/// Finds special tokens in a text: the leftmost, of those the longest.
#[derive(Debug, Clone)]
pub(crate) struct Specials {
    automaton: AhoCorasick,
    texts: Vec<String>,
    ids: Vec<Option<u32>>,
    /// First and last characters of all texts.
    boundaries: BTreeSet<char>,
    longest: usize,
}

impl Specials {
    /// The texts with their ids; an id is missing where the text is not a token of the vocabulary.
    pub(crate) fn new(texts: impl IntoIterator<Item = (String, Option<u32>)>) -> Result<Self> {
        let (texts, ids): (Vec<String>, Vec<Option<u32>>) =
            texts.into_iter().filter(|(text, _)| !text.is_empty()).unzip();
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&texts)
            .map_err(|error| Error::Table { key: "tokens", fault: error.to_string() })?;
        let ends = texts
            .iter()
            .flat_map(|text| text.chars().next().into_iter().chain(text.chars().last()));
        let boundaries = ends.collect();
        let longest = texts.iter().map(String::len).max().unwrap_or(0);
        Ok(Self { automaton, ids, boundaries, longest, texts })
    }

    /// Where they are.
    pub(crate) fn find(&self, text: &str) -> Vec<Range<usize>> {
        self.automaton.find_iter(text).map(|found| found.range()).collect()
    }

    /// Where they are, with their ids.
    pub(crate) fn find_ids(&self, text: &str) -> impl Iterator<Item = (Range<usize>, u32)> {
        self.automaton
            .find_iter(text)
            .filter_map(|found| Some((found.range(), self.ids[found.pattern()]?)))
    }

    /// The id of the token with this text.
    pub(crate) fn id(&self, text: &str) -> Option<u32> {
        let found = self.automaton.find(text).filter(|found| found.len() == text.len())?;
        self.ids[found.pattern()]
    }

    /// Texts and ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Option<u32>)> {
        self.texts.iter().map(String::as_str).zip(self.ids.iter().copied())
    }

    /// Whether this character is the first or last of one.
    pub(crate) fn has_boundary(&self, char: char) -> bool {
        self.boundaries.contains(&char)
    }

    /// Whether a text is part of one.
    pub(crate) fn contain(&self, text: &str) -> bool {
        let fits = !text.is_empty() && text.len() < self.longest;
        fits && self.texts.iter().any(|special| special.contains(text))
    }

    /// Whether a text contains one, or may have a part in one that a template puts together.
    pub(crate) fn may_be_in(&self, text: &str) -> bool {
        text.chars().any(|char| self.has_boundary(char)) || self.contain(text.trim())
    }
}
