//! Tokens -> events: whole characters, thought and answer told apart, nothing of a stop text.
//!
//! Where the tags of a thought are tokens of the vocabulary, only those tokens begin and end one: a
//! model may write about `</think>`. Otherwise the tags are found in the text.

use std::collections::VecDeque;

use cachalot_text::{Event as Parsed, ReasoningParser, StopStrings, Utf8Stream, Vocab};

use crate::event::{Kind, Token, TokenEvent};
use crate::request::ThoughtState;

/// The tokens that begin and end a thought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThoughtTags {
    pub(crate) open: u32,
    pub(crate) close: u32,
}

impl ThoughtTags {
    /// Those of a vocabulary that has them.
    pub(crate) fn of(vocab: &Vocab) -> Option<Self> {
        Some(Self { open: vocab.special_id("<think>")?, close: vocab.special_id("</think>")? })
    }
}

/// The state of one output.
#[derive(Debug)]
pub(crate) struct Output {
    characters: Utf8Stream,
    splitter: Splitter,
    stops: StopStrings,
    /// Tokens whose text is not out yet.
    pending: VecDeque<Pending>,
    /// Bytes of text that came out of `characters`.
    decoded: usize,
    /// Some of the answer is out.
    answered: bool,
}

/// A token, and where its text is in the output of `characters`, in bytes.
#[derive(Debug)]
struct Pending {
    start: usize,
    end: usize,
    token: Token,
}

#[derive(Debug)]
enum Splitter {
    /// Everything is the answer.
    None,
    ByToken(ByToken),
    ByText(ReasoningParser),
}

/// Thought and answer by the tokens of the tags.
#[derive(Debug)]
struct ByToken {
    tags: ThoughtTags,
    state: State,
    /// White space at the start, which belongs to the answer unless a thought follows.
    held: String,
}

/// Where in the output we are. `trim`: white space that comes now follows a tag and is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    Thought { trim: bool },
    Answer { trim: bool },
}

impl ByToken {
    fn new(tags: ThoughtTags, thought: ThoughtState) -> Self {
        let state = match thought {
            ThoughtState::Open => State::Thought { trim: true },
            ThoughtState::Closed => State::Answer { trim: true },
            ThoughtState::Undecided | ThoughtState::Ignored => State::Start,
        };
        Self { tags, state, held: String::new() }
    }

    /// The state after `token`, if it is a tag here.
    fn tag(&self, token: u32) -> Option<State> {
        match self.state {
            // A model that is given `<think>` may write it once more.
            State::Start | State::Thought { trim: true } if token == self.tags.open => {
                Some(State::Thought { trim: true })
            }
            // One whose prompt ends in `</think>` may repeat that.
            State::Thought { .. } | State::Answer { trim: true } if token == self.tags.close => {
                Some(State::Answer { trim: true })
            }
            _ => None,
        }
    }

    fn text(&mut self, text: &str) -> Option<Parsed> {
        let trimmed = text.trim_start();
        match self.state {
            State::Start if trimmed.is_empty() => {
                self.held.push_str(text);
                None
            }
            State::Start => {
                self.state = State::Answer { trim: false };
                Some(Parsed::Answer(std::mem::take(&mut self.held) + text))
            }
            State::Thought { trim: true } | State::Answer { trim: true } if trimmed.is_empty() => {
                None
            }
            State::Thought { trim } => {
                self.state = State::Thought { trim: false };
                Some(Parsed::Reasoning(if trim { trimmed } else { text }.to_owned()))
            }
            State::Answer { trim } => {
                self.state = State::Answer { trim: false };
                Some(Parsed::Answer(if trim { trimmed } else { text }.to_owned()))
            }
        }
    }
}

impl Splitter {
    fn text(&mut self, text: &str) -> Vec<Parsed> {
        match self {
            _ if text.is_empty() => Vec::new(),
            Self::None => vec![Parsed::Answer(text.to_owned())],
            Self::ByToken(by_token) => by_token.text(text).into_iter().collect(),
            Self::ByText(parser) => parser.push(text),
        }
    }

    fn finish(&mut self) -> Option<Parsed> {
        match self {
            Self::None => None,
            Self::ByToken(by_token) => {
                let held = std::mem::take(&mut by_token.held);
                (!held.is_empty()).then_some(Parsed::Answer(held))
            }
            Self::ByText(parser) => parser.finish(),
        }
    }

    fn held_len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::ByToken(by_token) => by_token.held.len(),
            Self::ByText(parser) => parser.held_len(),
        }
    }

    fn is_reasoning(&self) -> bool {
        match self {
            Self::None => false,
            Self::ByToken(by_token) => matches!(by_token.state, State::Thought { .. }),
            Self::ByText(parser) => parser.is_reasoning(),
        }
    }
}

impl Output {
    pub(crate) fn new(thought: ThoughtState, tags: Option<ThoughtTags>, stops: &[String]) -> Self {
        let splitter = match (thought, tags) {
            (ThoughtState::Ignored, _) => Splitter::None,
            (_, Some(tags)) => Splitter::ByToken(ByToken::new(tags, thought)),
            (ThoughtState::Open, None) => {
                Splitter::ByText(ReasoningParser::from_prompt_tail("<think>"))
            }
            (ThoughtState::Closed, None) => {
                Splitter::ByText(ReasoningParser::from_prompt_tail("</think>"))
            }
            (ThoughtState::Undecided, None) => {
                Splitter::ByText(ReasoningParser::from_prompt_tail(""))
            }
        };
        Self {
            characters: Utf8Stream::default(),
            splitter,
            stops: StopStrings::new(stops),
            pending: VecDeque::new(),
            decoded: 0,
            answered: false,
        }
    }

    /// Whether the next token belongs to a thought, as far as is known.
    pub(crate) fn is_reasoning(&self) -> bool {
        self.splitter.is_reasoning()
    }

    /// The token that would open a thought, if the next one may.
    pub(crate) fn may_open_thought(&self) -> Option<u32> {
        match &self.splitter {
            Splitter::ByToken(by_token) if by_token.state == State::Start => {
                Some(by_token.tags.open)
            }
            _ => None,
        }
    }

    /// Takes a token and its bytes; calls `sink` with what that makes certain. Returns the index of
    /// the stop text that ends the answer, if one does; nothing may be pushed after that.
    pub(crate) fn push(
        &mut self,
        token: Token,
        bytes: &[u8],
        sink: &mut dyn FnMut(TokenEvent),
    ) -> Option<usize> {
        if let Splitter::ByToken(by_token) = &mut self.splitter
            && let Some(state) = by_token.tag(token.id)
        {
            // White space before a tag that opens a thought is not text.
            by_token.held.clear();
            let text = self.characters.finish();
            let stop = self.pass(&text, sink);
            debug_assert!(stop.is_none(), "a tag follows no answer");
            if let Splitter::ByToken(by_token) = &mut self.splitter {
                by_token.state = state;
            }
            let mut tokens: Vec<Token> = self.take(usize::MAX);
            tokens.push(token);
            sink(TokenEvent { kind: Kind::Reasoning, text: String::new(), tokens });
            return None;
        }
        let text = self.characters.push(bytes);
        // A token that ends within a character is complete with the next byte of text.
        let unfinished = usize::from(self.characters.held_len() > 0);
        let (start, end) = (self.decoded, self.decoded + text.len() + unfinished);
        self.pending.push_back(Pending { start, end, token });
        self.pass(&text, sink)
    }

    /// Ends the output: what was held back is shown, but for the beginning of a character.
    pub(crate) fn finish(&mut self, sink: &mut dyn FnMut(TokenEvent)) {
        if let Some(parsed) = self.splitter.finish() {
            let (kind, text) = match parsed {
                Parsed::Reasoning(text) => (Kind::Reasoning, text),
                Parsed::Answer(text) => {
                    let passed = self.stops.push(&text);
                    (Kind::Answer, passed.text)
                }
            };
            self.emit(kind, text, usize::MAX, sink);
        }
        let rest = self.stops.finish();
        if !rest.is_empty() {
            self.emit(Kind::Answer, rest, usize::MAX, sink);
        }
        self.release(usize::MAX, sink);
    }

    /// Takes text that came out of `characters`.
    fn pass(&mut self, text: &str, sink: &mut dyn FnMut(TokenEvent)) -> Option<usize> {
        // Where a thought ends within this text, tokens before it belong to the thought.
        let before = self.splitter.is_reasoning().then_some(self.decoded);
        self.decoded += text.len();
        for parsed in self.splitter.text(text) {
            match parsed {
                Parsed::Reasoning(text) => {
                    let until = if self.splitter.is_reasoning() { None } else { before };
                    self.emit(Kind::Reasoning, text, until.unwrap_or(self.certain()), sink);
                }
                Parsed::Answer(text) => {
                    let of_thought = before.map_or(Vec::new(), |before| self.take(before));
                    if !of_thought.is_empty() {
                        let (kind, text) = (Kind::Reasoning, String::new());
                        sink(TokenEvent { kind, text, tokens: of_thought });
                    }
                    let held = self.stops.held_len();
                    let passed = self.stops.push(&text);
                    if passed.stop.is_some() {
                        let hidden = held + text.len() - passed.text.len();
                        self.end_at(self.decoded - hidden, passed.text, sink);
                        return passed.stop;
                    }
                    self.emit(Kind::Answer, passed.text, self.certain(), sink);
                }
            }
        }
        self.release(self.certain(), sink);
        None
    }

    /// Bytes of text that nothing holds back any more.
    fn certain(&self) -> usize {
        self.decoded - self.splitter.held_len() - self.stops.held_len()
    }

    fn emit(&mut self, kind: Kind, text: String, until: usize, sink: &mut dyn FnMut(TokenEvent)) {
        if text.is_empty() {
            return;
        }
        self.answered |= kind == Kind::Answer;
        let tokens = self.take(until);
        sink(TokenEvent { kind, text, tokens });
    }

    /// Tokens without text of their own.
    fn release(&mut self, until: usize, sink: &mut dyn FnMut(TokenEvent)) {
        let tokens = self.take(until);
        if !tokens.is_empty() {
            let is_answer = self.answered || matches!(self.splitter, Splitter::None);
            let kind = if is_answer { Kind::Answer } else { Kind::Reasoning };
            sink(TokenEvent { kind, text: String::new(), tokens });
        }
    }

    /// The last text before a stop text that begins at `shown`, with the tokens that have a share
    /// in it.
    fn end_at(&mut self, shown: usize, text: String, sink: &mut dyn FnMut(TokenEvent)) {
        let has_share = |pending: &&Pending| pending.end <= shown || pending.start < shown;
        let count = self.pending.iter().take_while(has_share).count();
        let tokens: Vec<Token> = self.pending.drain(..count).map(|pending| pending.token).collect();
        self.pending.clear();
        if !text.is_empty() || !tokens.is_empty() {
            self.answered |= !text.is_empty();
            sink(TokenEvent { kind: Kind::Answer, text, tokens });
        }
    }

    fn take(&mut self, until: usize) -> Vec<Token> {
        let count = self.pending.iter().take_while(|pending| pending.end <= until).count();
        self.pending.drain(..count).map(|pending| pending.token).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TAGS: ThoughtTags = ThoughtTags { open: 1000, close: 1001 };

    fn token(id: u32) -> Token {
        Token { id, logprob: None, top: Vec::new() }
    }

    /// Thought, answer, the tokens of each, and the stop text.
    #[derive(Debug, Default, PartialEq)]
    struct Shown {
        thought: String,
        answer: String,
        thought_tokens: Vec<u32>,
        answer_tokens: Vec<u32>,
        stop: Option<usize>,
    }

    fn shown(
        thought: ThoughtState,
        tags: Option<ThoughtTags>,
        stop: &[&str],
        pieces: &[(u32, &[u8])],
    ) -> Shown {
        let stop: Vec<String> = stop.iter().map(ToString::to_string).collect();
        let mut output = Output::new(thought, tags, &stop);
        let mut all = Shown::default();
        let mut sink = |event: TokenEvent| {
            let (text, tokens) = match event.kind {
                Kind::Reasoning => (&mut all.thought, &mut all.thought_tokens),
                Kind::Answer => (&mut all.answer, &mut all.answer_tokens),
            };
            text.push_str(&event.text);
            tokens.extend(event.tokens.iter().map(|token| token.id));
        };
        let mut stopped = None;
        for &(id, bytes) in pieces {
            stopped = output.push(token(id), bytes, &mut sink);
            if stopped.is_some() {
                break;
            }
        }
        if stopped.is_none() {
            output.finish(&mut sink);
        }
        Shown { stop: stopped, ..all }
    }

    #[test]
    fn thoughts_and_answer_are_told_apart_and_characters_stay_whole() {
        let whole = "Grüße?\n</think>\n\nJa 🐋".as_bytes();
        let bytes: Vec<(u32, &[u8])> = (0..).zip(whole.chunks(1)).collect();
        for pieces in [vec![(0, whole)], bytes] {
            let all = shown(ThoughtState::Open, None, &[], &pieces);
            assert_eq!((all.thought.trim_end(), all.answer.as_str()), ("Grüße?", "Ja 🐋"));
            assert_eq!(all.thought_tokens.len() + all.answer_tokens.len(), pieces.len());
        }
    }

    #[test]
    fn where_tags_are_tokens_only_those_count() {
        let pieces: [(u32, &[u8]); 6] = [
            (1, b"the text "),
            (2, b"</think> is"),
            (3, b" a tag"),
            (TAGS.close, b"</think>"),
            (4, b"\n\n"),
            (5, b"Yes </think>"),
        ];
        let all = shown(ThoughtState::Open, Some(TAGS), &[], &pieces);
        assert_eq!(all.thought, "the text </think> is a tag");
        assert_eq!(all.answer, "Yes </think>");
        assert_eq!((all.thought_tokens, all.answer_tokens), (vec![1, 2, 3, 1001, 4], vec![5]));
    }

    #[test]
    fn a_model_may_open_the_thought_itself_or_not() {
        let thinks: [(u32, &[u8]); 4] =
            [(7, b"\n"), (TAGS.open, b"<think>"), (8, b"\nHm"), (TAGS.close, b"</think>")];
        let all = shown(ThoughtState::Undecided, Some(TAGS), &[], &thinks);
        assert_eq!((all.thought.as_str(), all.answer.as_str()), ("Hm", ""));
        let answers: [(u32, &[u8]); 2] = [(7, b"\n"), (8, b"Yes")];
        let all = shown(ThoughtState::Undecided, Some(TAGS), &[], &answers);
        assert_eq!((all.thought.as_str(), all.answer.as_str()), ("", "\nYes"));
        let all = shown(ThoughtState::Ignored, Some(TAGS), &[], &thinks);
        assert_eq!((all.thought.as_str(), all.answer.as_str()), ("", "\n<think>\nHm</think>"));
        let repeats: [(u32, &[u8]); 2] = [(TAGS.close, b"</think>"), (8, b"\nYes")];
        let all = shown(ThoughtState::Closed, Some(TAGS), &[], &repeats);
        assert_eq!((all.thought.as_str(), all.answer.as_str()), ("", "Yes"));
    }

    #[test]
    fn stop_texts_end_the_answer_but_not_the_thoughts() {
        let pieces: [(u32, &[u8]); 5] =
            [(1, b"a END b</thi"), (2, b"nk>c"), (3, b" E"), (4, b"N"), (5, b"D d")];
        let all = shown(ThoughtState::Open, None, &["END"], &pieces);
        assert_eq!((all.thought.as_str(), all.answer.as_str()), ("a END b", "c "));
        assert_eq!(all.stop, Some(0));
        assert_eq!(all.answer_tokens, [2, 3], "3 has a share in the answer, 4 and 5 have none");
        let all = shown(ThoughtState::Undecided, None, &["END"], &[(1, b"c EN")]);
        assert_eq!((all.answer.as_str(), all.stop), ("c EN", None), "what was held back is shown");
    }

    #[test]
    fn nothing_is_shown_of_half_a_character() {
        let all = shown(ThoughtState::Ignored, None, &[], &[(1, b"a"), (2, &[0xF0, 0x9F])]);
        assert_eq!((all.answer.as_str(), all.answer_tokens), ("a", vec![1, 2]));
    }

    proptest! {
        /// Joined, texts and tokens are the same however the bytes are cut, and no token is lost.
        #[test]
        fn any_cut_gives_the_same_text_and_every_token(
            parts in prop::collection::vec(prop::sample::select(vec![
                "<think>", "</think>", "<", "think>", "</th", "\n", " ", "é", "ab", "🐋",
            ]), 0..12),
            size in 1_usize..7,
            thought in prop::sample::select(vec![
                ThoughtState::Open, ThoughtState::Closed, ThoughtState::Undecided,
                ThoughtState::Ignored,
            ]),
        ) {
            let text = parts.concat();
            let whole = shown(thought, None, &[], &[(0, text.as_bytes())]);
            let pieces: Vec<(u32, &[u8])> = (0..).zip(text.as_bytes().chunks(size)).collect();
            let cut = shown(thought, None, &[], &pieces);
            prop_assert_eq!(&cut.thought, &whole.thought);
            prop_assert_eq!(&cut.answer, &whole.answer);
            let tokens: Vec<u32> = [cut.thought_tokens, cut.answer_tokens].concat();
            prop_assert_eq!(tokens, (0..pieces.len() as u32).collect::<Vec<_>>());
        }
    }
}
