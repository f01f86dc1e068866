//! Stop strings: an answer ends where one of them appears, and no part of it is shown.

/// Searches a stream of text for stop strings. The result does not depend on how the text is cut:
/// the first complete string ends it; of two that end at one place, the longer one.
#[derive(Debug, Default, Clone)]
pub struct StopStrings {
    stops: Vec<String>,
    /// Text that may be the beginning of a stop string.
    held: String,
    stopped: bool,
}

/// What [`StopStrings`] lets through.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Filtered {
    /// Text that is part of the answer.
    pub text: String,
    /// Index of the stop string that ended it; all later text is dropped.
    pub stop: Option<usize>,
}

impl StopStrings {
    /// Searches for these strings; empty ones never match.
    pub fn new<S: Into<String>>(stops: impl IntoIterator<Item = S>) -> Self {
        let stops = stops.into_iter().map(Into::into).collect();
        Self { stops, ..Self::default() }
    }

    /// Takes the next text; only what may still become a stop string is held back.
    pub fn push(&mut self, text: &str) -> Filtered {
        if self.stopped {
            return Filtered::default();
        }
        self.held.push_str(text);
        let found = self.stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty()).filter_map(
            |(index, stop)| self.held.find(stop).map(|start| (start + stop.len(), start, index)),
        );
        if let Some((_, start, index)) = found.min() {
            self.stopped = true;
            self.held.truncate(start);
            return Filtered { text: std::mem::take(&mut self.held), stop: Some(index) };
        }
        let kept = partial_suffix(&self.held, self.stops.iter().map(String::as_str));
        let text = self.held.drain(..self.held.len() - kept).collect();
        Filtered { text, stop: None }
    }

    /// Bytes of text that are held back.
    pub fn held_len(&self) -> usize {
        self.held.len()
    }

    /// Ends the stream: returns text that was held back and did not become a stop string.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length in bytes of the longest proper prefix of one of `patterns` that `text` ends with.
pub(crate) fn partial_suffix<'a>(text: &str, patterns: impl IntoIterator<Item = &'a str>) -> usize {
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

    fn filtered(text: &str, stop: Option<usize>) -> Filtered {
        Filtered { text: text.to_owned(), stop }
    }

    #[test]
    fn holds_back_only_what_may_become_a_stop_string() {
        let mut stops = StopStrings::new(["<END>", "\n\n"]);
        assert_eq!(stops.push("a <"), filtered("a ", None));
        assert_eq!(stops.push("E b\n"), filtered("<E b", None));
        assert_eq!(stops.push("c"), filtered("\nc", None));
        assert_eq!(stops.push("d\n\ne<END>"), filtered("d", Some(1)));
        assert_eq!(stops.push("more"), Filtered::default());
        assert_eq!(stops.finish(), "");
    }

    #[test]
    fn the_first_complete_string_wins_then_the_longer() {
        assert_eq!(StopStrings::new(["abc", "b"]).push("xabc"), filtered("xa", Some(1)));
        assert_eq!(StopStrings::new(["c", "bc", ""]).push("abc"), filtered("a", Some(1)));
    }

    #[test]
    fn multi_byte_prefixes_are_cut_between_characters() {
        let mut stops = StopStrings::new(["｜User｜"]);
        assert_eq!(stops.push("é！"), filtered("é！", None), "shares its first bytes with ｜");
        assert_eq!(stops.push("é｜"), filtered("é", None));
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
                let mut all = Filtered::default();
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
                cuts.into_iter().filter(|cut| text.is_char_boundary(*cut)).collect();
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
                let mut stops = stops.iter().filter(|stop| !stop.is_empty());
                prop_assert!(!stops.any(|stop| whole.text.contains(stop.as_str())));
            }
        }
    }
}
