//! A conversation: messages in, events out.
//!
//! The cache keeps what the last prompt and answer left in it. A new prompt that begins with the same
//! tokens computes only the rest; thoughts of earlier turns are not part of it, so what is common
//! usually ends where the last answer began.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use cachalot_model::{KvCache, Logits};
use cachalot_text::{
    Event as Parsed, Message, ReasoningParser, RenderOptions, StopStrings, Think, Utf8Stream,
    strip_reasoning,
};

use crate::{CacheStats, Engine, Error, Sampler, Sampling, Stats, Streaming};

/// What an answer shall be like.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The same seed gives the same answer; `None` takes another one each time.
    pub seed: Option<u64>,
    /// Texts that end the answer; thoughts are not searched for them.
    pub stop: Vec<String>,
    /// The most tokens to compute, thoughts included; `None` is as many as the context holds.
    pub max_tokens: Option<usize>,
    /// Whether to think first.
    pub think: Think,
}

/// What happens while an answer comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The prompt is being computed.
    Progress {
        /// What the work done so far amounts to, in tokens.
        done: usize,
        /// Tokens in all.
        total: usize,
    },
    /// More of the thoughts.
    Reasoning(&'a str),
    /// More of the answer.
    Answer(&'a str),
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The model ended it.
    Stop,
    /// One of the texts of the request did.
    StopString,
    /// It has as many tokens as the request allows.
    Length,
    /// The context is full.
    ContextFull,
    /// Somebody stopped it.
    Cancelled,
}

/// A conversation's cache.
#[derive(Debug)]
pub struct Session {
    cache: KvCache,
    /// The tokens whose keys and values the cache holds.
    tokens: Vec<u32>,
}

impl Session {
    pub(crate) fn new(cache: KvCache) -> Self {
        Self { tokens: Vec::with_capacity(cache.capacity()), cache }
    }

    /// Answers the conversation `messages`, whose last one awaits an answer. `sink` is told what
    /// happens; setting `cancel` ends the answer soon.
    ///
    /// # Errors
    /// If the template refuses the conversation or the prompt is longer than the context, before
    /// anything is computed; if the model computes no number.
    pub fn answer(
        &mut self,
        engine: &mut Engine,
        messages: &[Message],
        request: &Request,
        cancel: &AtomicBool,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<(Ending, Stats), Error> {
        let prompt = render(engine, messages, request.think)?;
        let tokens = engine.vocab.encode_prompt(&prompt)?;
        let context = self.cache.capacity();
        if tokens.len() >= context {
            return Err(Error::PromptTooLong { prompt: tokens.len(), context });
        }
        let seed = request.seed.unwrap_or_else(another_seed);
        let mut sampler = Sampler::new(request.sampling.clone(), seed, engine.vocab.len());
        tokens.iter().for_each(|&token| sampler.accept(token));
        let prompt_cached = self.keep_common(&tokens);
        let stats = Stats {
            prompt_cached,
            prompt_computed: tokens.len() - prompt_cached,
            seed,
            cache_capacity: context,
            cache_bytes: (self.cache.bytes_per_token() * context) as u64,
            ..Stats::default()
        };
        let output = Output::new(&prompt, &request.stop);
        let limit = request.max_tokens.unwrap_or(usize::MAX);
        let turn = Turn { session: self, engine, sampler, output, limit, cancel, sink, stats };
        turn.run(&tokens)
    }

    /// Forgets what the cache holds beyond the tokens in common with `tokens`; returns how many they
    /// are. The last token is always computed anew, for its logits.
    fn keep_common(&mut self, tokens: &[u32]) -> usize {
        let common = self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let common = common.min(tokens.len().saturating_sub(1));
        self.tokens.truncate(common);
        self.cache.truncate(common);
        common
    }

    /// Tokens that the cache holds now.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether nothing was said yet.
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }
}

/// The prompt. Thoughts of earlier turns do not return to it: R1's template drops them, and for
/// templates that would not, they are dropped here.
fn render(engine: &Engine, messages: &[Message], think: Think) -> Result<String, Error> {
    let mut messages = messages.to_vec();
    for message in messages.iter_mut().filter(|message| message.role == "assistant") {
        message.reasoning = None;
        message.content = message.content.as_deref().map(|text| strip_reasoning(text).to_owned());
    }
    let options = RenderOptions { think, add_generation_prompt: true };
    Ok(engine.template.render(&messages, None, options)?)
}

/// A seed nobody asked for: the standard library's source of hash keys is the system's.
fn another_seed() -> u64 {
    // 53 bits, so that every program that reads JSON can hand the number back.
    RandomState::new().build_hasher().finish() >> 11
}

/// One answer in the making.
struct Turn<'a> {
    session: &'a mut Session,
    engine: &'a mut Engine,
    sampler: Sampler,
    output: Output,
    limit: usize,
    cancel: &'a AtomicBool,
    sink: &'a mut dyn FnMut(Event<'_>),
    stats: Stats,
}

impl Turn<'_> {
    fn run(mut self, prompt: &[u32]) -> Result<(Ending, Stats), Error> {
        let new = &prompt[self.stats.prompt_cached..];
        let streamed = |engine: &Engine| engine.streaming().map(Streaming::stats);
        let before = streamed(self.engine);
        let begun = Instant::now();
        let first = if self.limit == 0 { None } else { self.step(new, true)? };
        self.stats.prompt_time = begun.elapsed();
        let between = streamed(self.engine);
        let begun = Instant::now();
        let ending = match first {
            Some(first) => self.decode(first)?,
            None if self.limit == 0 => Ending::Length,
            None => Ending::Cancelled,
        };
        self.stats.answer_time = begun.elapsed();
        let since =
            |late: Option<CacheStats>, early: Option<CacheStats>| Some(late?.since(&early?));
        self.stats.prompt_streamed = since(between, before);
        self.stats.answer_streamed = since(streamed(self.engine), between);
        self.stats.cache_used = self.session.len();
        if ending != Ending::StopString {
            self.output.finish(self.sink);
        }
        Ok((ending, self.stats))
    }

    fn decode(&mut self, first: u32) -> Result<Ending, Error> {
        let mut token = first;
        loop {
            if self.engine.vocab.is_end(token) {
                return Ok(Ending::Stop);
            }
            self.stats.answer_tokens += 1;
            self.sampler.accept(token);
            if self.output.push(self.engine.vocab.token_bytes(token), self.sink) {
                return Ok(Ending::StopString);
            }
            if self.stats.answer_tokens >= self.limit {
                return Ok(Ending::Length);
            }
            if self.session.len() == self.session.cache.capacity() {
                return Ok(Ending::ContextFull);
            }
            match self.step(&[token], false)? {
                Some(next) => token = next,
                None => return Ok(Ending::Cancelled),
            }
        }
    }

    /// Computes `tokens` and chooses the one that follows; `None` if that was cancelled.
    fn step(&mut self, tokens: &[u32], is_prompt: bool) -> Result<Option<u32>, Error> {
        self.engine.relieve();
        let Session { cache, tokens: cached } = &mut *self.session;
        let past = cache.len();
        let (cancel, sink) = (self.cancel, &mut *self.sink);
        let computed = self.engine.model.forward(cache, tokens, Logits::Last, &mut |done| {
            if is_prompt {
                sink(Event::Progress { done, total: tokens.len() });
            }
            !cancel.load(Ordering::Relaxed)
        });
        // A cancelled prompt leaves as much in the cache as was computed.
        let sampled = match computed {
            Ok(logits) => self.sampler.sample(logits).map(Some).ok_or(Error::NotFinite),
            Err(cachalot_model::Error::Stopped) => Ok(None),
            Err(error) => Err(error.into()),
        };
        cached.extend(&tokens[..cache.len() - past]);
        sampled
    }
}

/// From the bytes of tokens to events: whole characters, thoughts and answer told apart, nothing of a
/// stop string.
struct Output {
    characters: Utf8Stream,
    parser: ReasoningParser,
    stops: StopStrings,
}

impl Output {
    fn new(prompt: &str, stop: &[String]) -> Self {
        Self {
            characters: Utf8Stream::default(),
            parser: ReasoningParser::from_prompt_tail(prompt),
            stops: StopStrings::new(stop),
        }
    }

    /// Takes the bytes of a token; returns whether a stop string ends the answer.
    fn push(&mut self, bytes: &[u8], sink: &mut dyn FnMut(Event<'_>)) -> bool {
        let text = self.characters.push(bytes);
        let events = self.parser.push(&text);
        events.into_iter().any(|event| self.pass(event, sink))
    }

    /// Ends the stream: whatever was held back is shown.
    fn finish(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
        let text = self.characters.finish();
        let events = self.parser.push(&text);
        let stopped =
            events.into_iter().chain(self.parser.finish()).any(|event| self.pass(event, sink));
        let rest = self.stops.finish();
        if !stopped && !rest.is_empty() {
            sink(Event::Answer(&rest));
        }
    }

    fn pass(&mut self, event: Parsed, sink: &mut dyn FnMut(Event<'_>)) -> bool {
        match event {
            Parsed::Reasoning(text) => {
                sink(Event::Reasoning(&text));
                false
            }
            Parsed::Answer(text) => {
                let passed = self.stops.push(&text);
                if !passed.text.is_empty() {
                    sink(Event::Answer(&passed.text));
                }
                passed.stop.is_some()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a model's output becomes, whatever pieces it comes in.
    fn shown(prompt: &str, stop: &[&str], pieces: &[&[u8]]) -> (String, String, bool) {
        let stop: Vec<String> = stop.iter().map(ToString::to_string).collect();
        let mut output = Output::new(prompt, &stop);
        let (mut thoughts, mut answer) = (String::new(), String::new());
        let mut sink = |event: Event<'_>| match event {
            Event::Reasoning(text) => thoughts.push_str(text),
            Event::Answer(text) => answer.push_str(text),
            Event::Progress { .. } => panic!("nothing is computed here"),
        };
        let stopped = pieces.iter().any(|piece| output.push(piece, &mut sink));
        if !stopped {
            output.finish(&mut sink);
        }
        (thoughts, answer, stopped)
    }

    #[test]
    fn thoughts_and_answer_are_told_apart_and_characters_stay_whole() {
        let whole = "Grüße?\n</think>\n\nJa 🐋".as_bytes();
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        for pieces in [vec![whole], bytes] {
            let (thoughts, answer, _) = shown("<think>\n", &[], &pieces);
            assert_eq!((thoughts.trim_end(), answer.as_str()), ("Grüße?", "Ja 🐋"));
        }
    }

    #[test]
    fn stop_strings_end_the_answer_but_not_the_thoughts() {
        let pieces: [&[u8]; 4] = [b"a END b</thi", b"nk>c E", b"N", b"D d"];
        let (thoughts, answer, stopped) = shown("<think>\n", &["END"], &pieces);
        assert_eq!((thoughts.as_str(), answer.as_str(), stopped), ("a END b", "c ", true));
        let (_, answer, stopped) = shown("", &["END"], &[b"c EN"]);
        assert_eq!((answer.as_str(), stopped), ("c EN", false), "what was held back is shown");
    }

    #[test]
    fn seeds_differ() {
        assert_ne!(another_seed(), another_seed());
    }
}
