//! Thought and answer: how a prompt asks for reasoning, and how a stream is divided again.
//!
//! Models of the R1 family think between `<think>` and `</think>`. R1 of January 2025 needs a
//! prompt that already ends in `<think>\n`; R1-0528 writes the tag itself. So it is the tail of the
//! rendered prompt, not the model's name, that tells whether the answer begins inside a thought.
//!
//! This parser is for vocabularies where the tags are not tokens. Where they are, only those tokens
//! count, since a thought may mention `</think>` in letters.

use crate::prompt::Tail;
use crate::specials::Specials;
use crate::stop::partial_suffix;
use crate::template::Traced;

pub(crate) const OPEN: &str = "<think>";
pub(crate) const CLOSE: &str = "</think>";

/// Whether the model is to think before it answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Think {
    /// As the template does when thinking is enabled.
    #[default]
    Auto,
    /// The prompt ends in an open thought, if the template knows of thoughts.
    Force,
    /// The prompt ends in a closed thought, if the template knows of thoughts.
    Off,
}

impl Think {
    /// The value of `enable_thinking` (R1, Qwen) and `thinking` (V3.1) in templates.
    pub(crate) fn is_wanted(self) -> bool {
        self != Self::Off
    }

    /// Gives a rendered generation prompt the requested tail. A thought that the template already
    /// opened or closed as requested stays as it is.
    pub(crate) fn shape(self, prompt: &mut Traced, tags: &Specials) {
        let (opened, closed) = (prompt.ends_with(OPEN), prompt.ends_with(CLOSE));
        match self {
            Self::Force if !opened => {
                if closed {
                    // `<think>` white space `</think>`, or a bare `</think>` as V3.1 writes
                    prompt.truncate(prompt.text.trim_end().len() - CLOSE.len());
                    if prompt.ends_with(OPEN) {
                        prompt.truncate(prompt.text.trim_end().len() - OPEN.len());
                    }
                }
                prompt.push(tags, "<think>\n");
            }
            Self::Off if opened => {
                prompt.truncate(prompt.text.trim_end().len());
                prompt.push(tags, "\n</think>\n\n");
            }
            Self::Off if !closed => prompt.push(tags, "<think>\n</think>\n\n"),
            _ => {}
        }
    }
}

/// The part of an assistant's message that belongs in later prompts: what follows the last
/// `</think>`. A thought that never ended leaves nothing.
pub fn strip_reasoning(text: &str) -> &str {
    match text.rsplit_once(CLOSE) {
        Some((_, answer)) => answer.trim_start(),
        None if text.trim_start().starts_with(OPEN) => "",
        None => text,
    }
}

/// A piece of a model's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Part of the thought, without its tags.
    Reasoning(String),
    /// Part of the answer.
    Answer(String),
}

/// Position in the output. `trim`: white space here follows a tag, and is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Only white space so far: a tag may open a thought, anything else is the answer.
    Start {
        trim: bool,
    },
    Reasoning {
        trim: bool,
    },
    Answer {
        trim: bool,
    },
}

/// Divides a stream into thought and answer. Tags may be cut anywhere; only what may still become a
/// tag is held back. The joined events do not depend on how the text is cut.
#[derive(Debug, Clone)]
pub struct ReasoningParser {
    state: State,
    held: String,
}

impl ReasoningParser {
    /// A parser for what a model writes after a prompt with this tail.
    pub fn new(tail: Tail) -> Self {
        let state = match tail {
            Tail::OpenThought => State::Reasoning { trim: true },
            Tail::ClosedThought => State::Start { trim: true },
            Tail::Plain => State::Start { trim: false },
        };
        Self { state, held: String::new() }
    }

    /// A parser for what a model writes after this prompt, with tags in letters.
    pub fn from_prompt_tail(prompt: &str) -> Self {
        let prompt = prompt.trim_end();
        let tail = if prompt.ends_with(OPEN) {
            Tail::OpenThought
        } else if prompt.ends_with(CLOSE) {
            Tail::ClosedThought
        } else {
            Tail::Plain
        };
        Self::new(tail)
    }

    /// Whether the next text belongs to a thought, as far as is known.
    pub fn is_reasoning(&self) -> bool {
        matches!(self.state, State::Reasoning { .. })
    }

    /// Bytes of text that are held back.
    pub fn held_len(&self) -> usize {
        self.held.len()
    }

    /// Takes the next text; returns what it makes certain: at most one event of each kind.
    pub fn push(&mut self, text: &str) -> Vec<Event> {
        self.held.push_str(text);
        let mut events = Vec::new();
        while let Some(next) = self.step(&mut events) {
            self.state = next;
        }
        events
    }

    /// Ends the stream. Held text belongs to its position; a thought without an end remains a
    /// thought.
    pub fn finish(&mut self) -> Option<Event> {
        let held = std::mem::take(&mut self.held);
        let (State::Start { trim } | State::Reasoning { trim } | State::Answer { trim }) =
            self.state;
        let text = if trim { held.trim_start() } else { &held };
        (!text.is_empty()).then(|| self.event(text))
    }

    fn event(&self, text: &str) -> Event {
        if self.is_reasoning() {
            Event::Reasoning(text.to_owned())
        } else {
            Event::Answer(text.to_owned())
        }
    }

    /// Processes the held text; returns the next state, or nothing if more text is needed.
    fn step(&mut self, events: &mut Vec<Event>) -> Option<State> {
        let trimmed = self.held.trim_start();
        match self.state {
            State::Start { trim } => {
                if let Some(rest) = trimmed.strip_prefix(OPEN) {
                    self.held = rest.to_owned();
                    return Some(State::Reasoning { trim: true });
                }
                (!OPEN.starts_with(trimmed)).then_some(State::Answer { trim })
            }
            State::Reasoning { trim: true } => {
                // A model may repeat the `<think>` of its prompt.
                let mut rest = trimmed;
                while let Some(after) = rest.strip_prefix(OPEN) {
                    rest = after.trim_start();
                }
                let next = (!OPEN.starts_with(rest)).then_some(State::Reasoning { trim: false });
                self.held = rest.to_owned();
                next
            }
            State::Reasoning { trim: false } => {
                let end = self.held.find(CLOSE);
                let kept = partial_suffix(&self.held, [CLOSE]);
                let shown = end.unwrap_or(self.held.len() - kept);
                if shown > 0 {
                    events.push(self.event(&self.held[..shown]));
                }
                self.held.drain(..end.map_or(shown, |end| end + CLOSE.len()));
                end.map(|_| State::Answer { trim: true })
            }
            State::Answer { trim } => {
                let text = if trim { trimmed } else { &self.held };
                if !text.is_empty() {
                    events.push(self.event(text));
                    self.state = State::Answer { trim: false };
                }
                self.held.clear();
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The joined thought and answer of a stream in these pieces.
    fn parse(prompt: &str, pieces: &[&str]) -> (String, String) {
        let mut parser = ReasoningParser::from_prompt_tail(prompt);
        let mut events: Vec<Event> = pieces.iter().flat_map(|piece| parser.push(piece)).collect();
        events.extend(parser.finish());
        let (mut reasoning, mut answer) = (String::new(), String::new());
        for event in events {
            match event {
                Event::Reasoning(text) => {
                    assert!(answer.is_empty(), "a thought after the answer began");
                    reasoning.push_str(&text);
                }
                Event::Answer(text) => answer.push_str(&text),
            }
        }
        (reasoning, answer)
    }

    #[test]
    fn begins_where_the_prompt_ends() {
        let both = |thought: &str, answer: &str| (thought.to_owned(), answer.to_owned());
        // R1 with a forced thought
        assert_eq!(parse("<think>\n", &["Hm.\n</think>\n\nYes."]), both("Hm.\n", "Yes."));
        // 0528 writes the tag itself
        assert_eq!(parse("<｜Assistant｜>", &["\n<think>\nHm.</think>Yes."]), both("Hm.", "Yes."));
        // the tag once more, although the prompt has it
        assert_eq!(parse("<think>\n", &["<think>\nHm.</think>Yes."]), both("Hm.", "Yes."));
        // no thought at all
        assert_eq!(
            parse("<｜Assistant｜>", &[" Yes, <think> is a tag"]),
            both("", " Yes, <think> is a tag")
        );
        // thinking switched off
        assert_eq!(parse("<think>\n</think>\n\n", &["\nYes."]), both("", "Yes."));
        // an empty thought
        assert_eq!(parse("x", &["<think>\n\n</think>\n\nYes."]), both("", "Yes."));
        // never ended
        assert_eq!(parse("<think>\n", &["Hm. </thin"]), both("Hm. </thin", ""));
        assert_eq!(parse("x", &["<thi"]), both("", "<thi"));
        // only the first thought is one
        assert_eq!(
            parse("<think>", &["a</think>b</think><think>c"]),
            both("a", "b</think><think>c")
        );
    }

    #[test]
    fn holds_back_only_what_may_become_a_tag() {
        let mut parser = ReasoningParser::from_prompt_tail("<think>\n");
        assert!(parser.is_reasoning());
        assert_eq!(parser.push("if a <"), [Event::Reasoning("if a ".into())]);
        assert_eq!(parser.push(" b </"), [Event::Reasoning("< b ".into())]);
        assert_eq!(parser.push("think"), []);
        assert_eq!(parser.push(">\n"), []);
        assert!(!parser.is_reasoning());
        assert_eq!(parser.push("\nYes"), [Event::Answer("Yes".into())]);
        assert_eq!(parser.push(" <"), [Event::Answer(" <".into())], "the answer is never delayed");
    }

    #[test]
    fn tails_are_shaped() {
        let shaped = |think: Think, prompt: &str| {
            let tags = Specials::new([OPEN, CLOSE].map(|tag| (tag.to_owned(), None))).unwrap();
            let mut prompt = Traced::all(&tags, prompt.to_owned());
            think.shape(&mut prompt, &tags);
            assert_eq!(prompt, Traced::all(&tags, prompt.text.clone()), "all tags are known");
            prompt.text
        };
        for prompt in
            ["A", "A<think>\n", "A<think>\n</think>", "A</think>", "A<think>\n\n</think>\n\n"]
        {
            assert_eq!(shaped(Think::Auto, prompt), prompt);
            assert_eq!(shaped(Think::Force, prompt), "A<think>\n", "{prompt:?}");
        }
        assert_eq!(shaped(Think::Off, "A"), "A<think>\n</think>\n\n");
        assert_eq!(shaped(Think::Off, "A<think>\n"), "A<think>\n</think>\n\n");
        assert_eq!(shaped(Think::Off, "A</think>"), "A</think>");
        assert_eq!(shaped(Think::Off, "A<think>\n</think>"), "A<think>\n</think>");
        assert_eq!(shaped(Think::Force, "A<think>"), "A<think>", "V3.1 puts no newline there");
    }

    #[test]
    fn thoughts_do_not_return() {
        assert_eq!(strip_reasoning("<think>\na</think>\n\nb"), "b");
        assert_eq!(strip_reasoning("a</think>b"), "b");
        assert_eq!(strip_reasoning("<think>a"), "");
        assert_eq!(strip_reasoning(" b <think>"), " b <think>");
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(
            prompt in prop::sample::select(vec!["", "<think>\n", "<think>\n</think>\n\n"]),
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    OPEN, CLOSE, "<", "/", "think>", "</th", "\n", " ", "é", "ab",
                ]),
                0..10,
            ),
            cuts in prop::collection::vec(0_usize..60, 0..8),
        ) {
            let text = parts.concat();
            let whole = parse(prompt, &[&text]);
            let mut cuts: Vec<usize> =
                cuts.into_iter().filter(|cut| text.is_char_boundary(*cut)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&str> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
            prop_assert_eq!(&parse(prompt, &pieces), &whole);
            let chars: Vec<String> = text.chars().map(String::from).collect();
            let chars: Vec<&str> = chars.iter().map(String::as_str).collect();
            prop_assert_eq!(parse(prompt, &chars), whole);
        }
    }
}
