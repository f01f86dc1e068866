//! Stop strings: an answer ends where one of them appears, and none of its text is shown.

/// Watches a stream of text for stop strings. However the text is cut into pieces, the result is the
/// same: the first string to be complete ends it, of two that end together the longer one.
#[derive(Debug, Default, Clone)]
pub struct StopStrings {
    stops: Vec<String>,
    /// Text that may be the beginning of a stop string.
    held: String,
    stopped: bool,
}

/// What came through [`StopStrings`].
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Text that belongs to the answer.
    pub text: String,
    /// The stop string that ended it, by its index in the list given; nothing passes afterwards.
    pub stop: Option<usize>,
}

impl StopStrings {
    /// Watches for these strings; empty ones never match.
    pub fn new<S: Into<String>>(stops: impl IntoIterator<Item = S>) -> Self {
        let stops = stops.into_iter().map(Into::into).collect();
        Self { stops, ..Self::default() }
    }

    /// Takes the next text; only what may still become a stop string is held back.
    pub fn push(&mut self, text: &str) -> Passed {
        if self.stopped {
            return Passed::default();
        }
        self.held.push_str(text);
        let found = self.stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty()).filter_map(
            |(index, stop)| self.held.find(stop).map(|start| (start + stop.len(), start, index)),
        );
        if let Some((_, start, index)) = found.min() {
            self.stopped = true;
            self.held.truncate(start);
            return Passed { text: std::mem::take(&mut self.held), stop: Some(index) };
        }
        let kept = beginning_at_end(&self.held, self.stops.iter().map(String::as_str));
        let text = self.held.drain(..self.held.len() - kept).collect();
        Passed { text, stop: None }
    }

    /// Ends the stream: what was held back was no stop string after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Bytes of the longest end of `text` with which one of `patterns` begins but is not complete.
pub(crate) fn beginning_at_end<'a>(
    text: &str,
    patterns: impl IntoIterator<Item = &'a str>,
) -> usize {
    let kept = |pattern: &str| {
        let longest = text.len().min(pattern.len().saturating_sub(1));
        (1..=longest).rev().find(|kept| text.as_bytes().ends_with(&pattern.as_bytes()[..*kept]))
    };
    patterns.into_iter().filter_map(kept).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn passed(text: &str, stop: Option<usize>) -> Passed {
        Passed { text: text.to_owned(), stop }
    }

    #[test]
    fn holds_back_only_what_may_become_a_stop_string() {
        let mut stops = StopStrings::new(["<END>", "\n\n"]);
        assert_eq!(stops.push("a <"), passed("a ", None));
        assert_eq!(stops.push("E b\n"), passed("<E b", None));
        assert_eq!(stops.push("c"), passed("\nc", None));
        assert_eq!(stops.push("d\n\ne<END>"), passed("d", Some(1)));
        assert_eq!(stops.push("more"), Passed::default());
        assert_eq!(stops.finish(), "");
    }

    #[test]
    fn the_first_to_be_complete_wins_then_the_longer() {
        assert_eq!(StopStrings::new(["abc", "b"]).push("xabc"), passed("xa", Some(1)));
        assert_eq!(StopStrings::new(["c", "bc", ""]).push("abc"), passed("a", Some(1)));
    }

    #[test]
    fn multi_byte_beginnings_are_cut_between_characters() {
        let mut stops = StopStrings::new(["｜User｜"]);
        assert_eq!(stops.push("é！"), passed("é！", None), "shares its first bytes with ｜");
        assert_eq!(stops.push("é｜"), passed("é", None));
        assert_eq!(stops.finish(), "｜");
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(
            text in "[ab｜]{0,20}",
            stops in prop::collection::vec("[ab｜]{0,4}", 0..4),
            cuts in prop::collection::vec(0_usize..20, 0..6),
        ) {
            let run = |pieces: &[&str]| {
                let mut watch = StopStrings::new(stops.clone());
                let mut all = Passed::default();
                for piece in pieces {
                    let next = watch.push(piece);
                    all.text.push_str(&next.text);
                    all.stop = all.stop.or(next.stop);
                }
                all.text.push_str(&watch.finish());
                all
            };
            let whole = run(&[&text]);
            let mut cuts: Vec<usize> =
                cuts.into_iter().filter(|cut| text.is_char_boundary(*cut) && *cut <= text.len()).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&str> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
            prop_assert_eq!(&run(&pieces), &whole);
            let chars: Vec<String> = text.chars().map(String::from).collect();
            let chars: Vec<&str> = chars.iter().map(String::as_str).collect();
            prop_assert_eq!(&run(&chars), &whole);
            if whole.stop.is_none() {
                prop_assert_eq!(whole.text, text);
            } else {
                prop_assert!(!stops.iter().any(|stop| !stop.is_empty() && whole.text.contains(stop.as_str())));
            }
        }
    }
}
