//! Answers in the making: the engine's events, turned into the pieces that every dialect writes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cachalot_engine::Event;
use cachalot_engine::event::{FinishReason, Finished, Kind, Token};
use cachalot_engine::handle::Generation;
use cachalot_text::{Channel, ToolEvent, ToolParser, Vocab};

use crate::app::Served;
use crate::error::ApiError;
use crate::slots::Place;
use crate::tools;

/// Something to write.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    /// It waits, behind this number of others.
    Queued(usize),
    /// So much of the prompt is done.
    Prefill { done: usize, total: usize, cached: usize },
    /// More of the thought.
    Reasoning(Text),
    /// More of the answer.
    Content(Text),
    /// A tool call begins.
    Call { index: usize, id: String, name: String, tokens: Vec<Probed> },
    /// More of the arguments of a tool call: JSON text.
    Arguments { index: usize, text: String, tokens: Vec<Probed> },
    /// The answer is complete.
    Done(Outcome),
    /// It ended with an error.
    Failed(ApiError),
}

/// Text, and the tokens that it came from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) tokens: Vec<Probed>,
}

/// A token with its bytes and, if they were asked for, probabilities.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Probed {
    pub(crate) id: u32,
    pub(crate) bytes: Vec<u8>,
    pub(crate) logprob: Option<f32>,
    pub(crate) top: Vec<(u32, Vec<u8>, f32)>,
}

/// How an answer ended.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) end: End,
    /// The stop text that ended it.
    pub(crate) stop_text: Option<String>,
    pub(crate) seed: u64,
    pub(crate) live: Live,
    /// The context had no room for more.
    pub(crate) truncated: bool,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Stop,
    StopText,
    Length,
    ToolCalls,
}

impl End {
    /// OpenAI's and Ollama's word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Stop | Self::StopText => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
        }
    }
}

impl End {
    /// llama-server's word.
    pub(crate) fn stop_type(self) -> &'static str {
        match self {
            Self::Length => "limit",
            Self::StopText => "word",
            Self::Stop | Self::ToolCalls => "eos",
        }
    }
}

/// Counts and times so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Live {
    pub(crate) prompt: usize,
    pub(crate) cached: usize,
    pub(crate) generated: usize,
    pub(crate) reasoning: usize,
    pub(crate) queued: Duration,
    pub(crate) prefill: Duration,
    pub(crate) decode: Duration,
    /// Since the request came.
    pub(crate) total: Duration,
}

/// One answer: its generation, and what is known of it.
pub(crate) struct Source {
    served: Arc<Served>,
    generation: Generation,
    place: Place,
    calls: Option<ToolParser>,
    ready: VecDeque<Piece>,
    live: Live,
    begun: Instant,
    admitted: Option<Instant>,
    first: Option<Instant>,
    /// Tokens of the prompt that were reported as computed.
    prefilled: Option<usize>,
    over: bool,
}

impl Source {
    pub(crate) fn new(
        served: Arc<Served>,
        generation: Generation,
        place: Place,
        prompt: usize,
        calls: Option<ToolParser>,
    ) -> Self {
        Self {
            served,
            generation,
            place,
            calls,
            ready: VecDeque::new(),
            live: Live { prompt, ..Live::default() },
            begun: Instant::now(),
            admitted: None,
            first: None,
            prefilled: None,
            over: false,
        }
    }

    /// The engine's name for it.
    pub(crate) fn id(&self) -> cachalot_engine::request::RequestId {
        self.generation.id()
    }

    /// The next piece, with the counts at that time; `None` after the last one.
    pub(crate) async fn next(&mut self) -> Option<(Piece, Live)> {
        while self.ready.is_empty() && !self.over {
            match self.generation.recv_async().await {
                Some(event) => self.take(event),
                None => self.over = true,
            }
        }
        self.live.total = self.begun.elapsed();
        self.ready.pop_front().map(|piece| (piece, self.live))
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Queued { position } => self.ready.push_back(Piece::Queued(position)),
            Event::Prefill { done, total, cached } => {
                let now = Instant::now();
                let admitted = *self.admitted.get_or_insert(now);
                self.live.queued = admitted.duration_since(self.begun);
                self.live.prefill = now.duration_since(admitted);
                self.live.cached = cached;
                // First what is cached, then whatever is more.
                let steps = [self.prefilled.is_none().then_some(cached), Some(done)];
                for done in steps.into_iter().flatten() {
                    if self.prefilled.is_none_or(|before| done > before) {
                        self.prefilled = Some(done);
                        self.ready.push_back(Piece::Prefill { done, total, cached });
                    }
                }
            }
            Event::Token(token) => {
                let first = *self.first.get_or_insert_with(Instant::now);
                self.live.decode = first.elapsed();
                self.live.generated += token.tokens.len();
                self.place.extend(token.tokens.iter().map(|token| token.id));
                let tokens = probed(&self.served.info().vocab, token.tokens);
                if token.kind == Kind::Reasoning {
                    self.live.reasoning += tokens.len();
                }
                self.text(token.kind, token.text, tokens);
            }
            Event::Finished(finished) => self.finish(&finished),
            Event::Failed(error) => {
                self.over = true;
                let message = format!("the answer ended with an error: {error}");
                let error = if is_requests_fault(&error) {
                    ApiError::invalid(error.to_string())
                } else {
                    ApiError::unavailable(message)
                };
                self.ready.push_back(Piece::Failed(error));
            }
            _ => {}
        }
    }

    fn text(&mut self, kind: Kind, text: String, tokens: Vec<Probed>) {
        let channel = tools::channel(kind);
        match &mut self.calls {
            None => self.ready.push_back(in_channel(channel, Text { text, tokens })),
            Some(parser) => {
                let events = parser.push(channel, &text);
                self.events(channel, events, tokens);
            }
        }
    }

    /// What a text was; its tokens go with the first event.
    fn events(&mut self, channel: Channel, events: Vec<ToolEvent>, mut tokens: Vec<Probed>) {
        for event in events.into_iter().filter(|event| !tools::is_end(event)) {
            let tokens = std::mem::take(&mut tokens);
            self.ready.push_back(match event {
                ToolEvent::Text { channel, text } => in_channel(channel, Text { text, tokens }),
                ToolEvent::Call { index, id, name } => Piece::Call { index, id, name, tokens },
                ToolEvent::Arguments { index, delta: text } => {
                    Piece::Arguments { index, text, tokens }
                }
                ToolEvent::End { .. } => continue,
            });
        }
        if !tokens.is_empty() {
            // The text is held back, since it may become a call; its tokens are not.
            self.ready.push_back(in_channel(channel, Text { text: String::new(), tokens }));
        }
    }

    fn finish(&mut self, finished: &Finished) {
        self.over = true;
        let mut called = false;
        if let Some(mut parser) = self.calls.take() {
            let rest = parser.finish();
            self.events(Channel::Answer, rest, Vec::new());
            called = parser.calls() > 0;
        }
        let (usage, timings) = (finished.usage, finished.timings);
        self.live = Live {
            prompt: usage.prompt,
            cached: usage.cached,
            generated: usage.generated,
            reasoning: usage.reasoning,
            queued: timings.queued,
            prefill: timings.prefill,
            decode: timings.decode,
            total: self.begun.elapsed(),
        };
        let end = match finished.reason {
            FinishReason::Stop | FinishReason::StopText if called => End::ToolCalls,
            FinishReason::StopText => End::StopText,
            FinishReason::Length | FinishReason::ContextFull => End::Length,
            FinishReason::Cancelled | FinishReason::ReaderStalled => {
                let what = "the answer was cancelled: the server is shutting down";
                self.ready.push_back(Piece::Failed(ApiError::unavailable(what)));
                return;
            }
            _ => End::Stop,
        };
        self.ready.push_back(Piece::Done(Outcome {
            end,
            stop_text: finished.stop_text.clone(),
            seed: finished.seed,
            live: self.live,
            truncated: finished.reason == FinishReason::ContextFull,
        }));
    }
}

fn in_channel(channel: Channel, text: Text) -> Piece {
    match channel {
        Channel::Reasoning => Piece::Reasoning(text),
        Channel::Answer => Piece::Content(text),
    }
}

/// Whether an error is the request's own fault, not the machine's or the file's.
fn is_requests_fault(error: &cachalot_engine::Error) -> bool {
    use cachalot_engine::Error;
    matches!(
        error,
        Error::PromptEmpty
            | Error::Token { .. }
            | Error::ParameterRange { .. }
            | Error::Constraint { .. }
            | Error::ConstraintStuck { .. }
    )
}

fn probed(vocab: &Vocab, tokens: Vec<Token>) -> Vec<Probed> {
    let bytes = |id| vocab.token_bytes(id).to_vec();
    let with_bytes = |token: Token| Probed {
        id: token.id,
        bytes: bytes(token.id),
        logprob: token.logprob,
        top: token.top.iter().map(|top| (top.id, bytes(top.id), top.logprob)).collect(),
    };
    tokens.into_iter().map(with_bytes).collect()
}

/// A whole answer.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) reasoning: String,
    pub(crate) content: String,
    pub(crate) calls: Vec<Call>,
    /// Tokens of the answer, those of tool calls included.
    pub(crate) tokens: Vec<Probed>,
    pub(crate) thoughts: Vec<Probed>,
    pub(crate) outcome: Option<Outcome>,
}

/// A whole tool call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) name: String,
    /// JSON text.
    pub(crate) arguments: String,
}

impl Answer {
    /// Adds a piece.
    pub(crate) fn push(&mut self, piece: Piece) {
        match piece {
            Piece::Queued(_) | Piece::Prefill { .. } | Piece::Failed(_) => {}
            Piece::Reasoning(text) => {
                self.reasoning.push_str(&text.text);
                self.thoughts.extend(text.tokens);
            }
            Piece::Content(text) => {
                self.content.push_str(&text.text);
                self.tokens.extend(text.tokens);
            }
            Piece::Call { id, name, tokens, .. } => {
                self.calls.push(Call { id, name, arguments: String::new() });
                self.tokens.extend(tokens);
            }
            Piece::Arguments { index, text, tokens } => {
                if let Some(call) = self.calls.get_mut(index) {
                    call.arguments.push_str(&text);
                }
                self.tokens.extend(tokens);
            }
            Piece::Done(outcome) => self.outcome = Some(outcome),
        }
    }

    /// Why it ended; a stream that broke off has been reported before.
    pub(crate) fn end(&self) -> End {
        self.outcome.as_ref().map_or(End::Stop, |outcome| outcome.end)
    }

    pub(crate) fn live(&self) -> Live {
        self.outcome.as_ref().map(|outcome| outcome.live).unwrap_or_default()
    }
}
