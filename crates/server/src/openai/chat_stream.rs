//! `/v1/chat/completions`: the answer, whole or in chunks.
//!
//! The order of chunks is llama-server's: the role, the thought, the answer or its tool calls, the
//! reason why it ended, the usage if it was asked for, `[DONE]`.

use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::wire::{Logprobs, Progress, Timings, Usage, logprobs};
use crate::app::unix;
use crate::error::{ApiError, Family};
use crate::generate::{Answer, Live, Outcome, Piece, Probed};
use crate::respond::{Dialect, SSE, comment, event};

/// What a client wants besides the answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extras {
    pub(crate) include_usage: bool,
    pub(crate) timings_per_token: bool,
    pub(crate) return_progress: bool,
    pub(crate) logprobs: bool,
    /// The prompt opened a thought that the answer is to show with its tags.
    pub(crate) opened: bool,
    /// The prompt's text, for `__verbose`.
    pub(crate) verbose: Option<String>,
}

/// A whole answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatCompletion {
    id: String,
    /// `chat.completion`
    object: &'static str,
    created: u64,
    model: String,
    system_fingerprint: String,
    choices: Vec<Choice>,
    usage: Usage,
    timings: Timings,
    #[serde(rename = "__verbose", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    verbose: Option<Value>,
}

/// One answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Choice {
    index: usize,
    message: AssistantMessage,
    logprobs: Option<Logprobs>,
    /// `stop`, `length` or `tool_calls`
    finish_reason: &'static str,
}

/// What the model says.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct AssistantMessage {
    /// `assistant`
    role: &'static str,
    content: Option<String>,
    refusal: Option<String>,
    /// The thought.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    /// The thought, under its other name.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
}

/// A tool call.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ToolCall {
    id: String,
    /// `function`
    #[serde(rename = "type")]
    kind: &'static str,
    function: Function,
}

/// The function of a tool call.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Function {
    name: String,
    /// JSON text.
    arguments: String,
}

/// One event of a stream.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatChunk {
    id: String,
    /// `chat.completion.chunk`
    object: &'static str,
    created: u64,
    model: String,
    system_fingerprint: String,
    choices: Vec<ChunkChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_progress: Option<Progress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_position: Option<usize>,
    #[serde(rename = "__verbose", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    verbose: Option<Value>,
}

/// One answer's part of an event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChunkChoice {
    index: usize,
    #[schema(value_type = Object)]
    delta: Value,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
}

/// Writes chat completions.
pub(crate) struct ChatStream {
    id: String,
    model: String,
    created: u64,
    extras: Extras,
    lives: Vec<Live>,
    /// Answers whose role was sent.
    begun: Vec<bool>,
}

impl ChatStream {
    pub(crate) fn new(id: String, model: String, n: usize, extras: Extras) -> Self {
        let created = unix(SystemTime::now());
        Self { id, model, created, extras, lives: vec![Live::default(); n], begun: vec![false; n] }
    }

    fn chunk(&self, choices: Vec<ChunkChoice>) -> ChatChunk {
        ChatChunk {
            id: self.id.clone(),
            object: "chat.completion.chunk",
            created: self.created,
            model: self.model.clone(),
            system_fingerprint: fingerprint(),
            choices,
            usage: None,
            timings: None,
            prompt_progress: None,
            queue_position: None,
            verbose: None,
        }
    }

    /// The role, once for each answer; a stream of `<think>` if the thought is part of the answer.
    fn open(&mut self, n: usize, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.begun[n], true) {
            return;
        }
        let role = json!({ "role": "assistant", "content": null });
        event(out, None, &self.chunk(vec![choice(n, role)]));
        if self.extras.opened {
            let delta = json!({ "content": "<think>\n" });
            event(out, None, &self.chunk(vec![choice(n, delta)]));
        }
    }

    fn delta(
        &self,
        n: usize,
        delta: Value,
        live: &Live,
        probs: Option<Logprobs>,
        out: &mut Vec<u8>,
    ) {
        let mut chunk = self.chunk(vec![ChunkChoice { logprobs: probs, ..choice(n, delta) }]);
        chunk.timings = self.extras.timings_per_token.then(|| Timings::of(live));
        event(out, None, &chunk);
    }

    fn probs(&self, answer: &[Probed], thought: &[Probed]) -> Option<Logprobs> {
        self.extras.logprobs.then(|| Logprobs {
            content: logprobs(answer),
            refusal: None,
            reasoning_content: logprobs(thought),
        })
    }

    /// What was computed and how it ended, if that is wanted.
    fn verbose(&self, outcome: Option<&Outcome>) -> Option<Value> {
        let mut verbose = json!({ "prompt": self.extras.verbose.as_ref()? });
        if let Some(outcome) = outcome {
            verbose["stop_type"] = outcome.end.stop_type().into();
            verbose["stopping_word"] = outcome.stop_text.clone().unwrap_or_default().into();
            verbose["generation_settings"] = json!({ "seed": outcome.seed });
        }
        Some(verbose)
    }

    /// An event that only tells how far the prompt is.
    fn progress(&mut self, n: usize, piece: &Piece, live: &Live, out: &mut Vec<u8>) {
        if !self.extras.return_progress {
            return;
        }
        self.open(n, out);
        let delta = json!({ "role": "assistant", "content": null });
        let mut chunk = self.chunk(vec![choice(n, delta)]);
        match piece {
            Piece::Queued(position) => chunk.queue_position = Some(*position),
            Piece::Prefill { done, total, cached } => {
                chunk.prompt_progress = Some(Progress {
                    total: *total,
                    cache: *cached,
                    processed: *done,
                    time_ms: live.prefill.as_secs_f64() * 1e3,
                });
                let timed = self.extras.timings_per_token;
                chunk.timings = timed.then(|| Timings::of_prompt(live, *done));
            }
            _ => {}
        }
        event(out, None, &chunk);
    }
}

fn choice(index: usize, delta: Value) -> ChunkChoice {
    ChunkChoice { index, delta, logprobs: None, finish_reason: None }
}

/// What tells builds apart; llama-server's clients expect it to begin with a `b`.
pub(crate) fn fingerprint() -> String {
    concat!("b-cachalot-", env!("CARGO_PKG_VERSION")).to_owned()
}

impl Dialect for ChatStream {
    const MEDIA: &'static str = SSE;

    fn begin(&mut self, out: &mut Vec<u8>) {
        self.open(0, out);
    }

    fn piece(&mut self, n: usize, piece: &Piece, live: &Live, out: &mut Vec<u8>) {
        match piece {
            Piece::Queued(_) | Piece::Prefill { .. } => return self.progress(n, piece, live, out),
            _ => self.open(n, out),
        }
        match piece {
            Piece::Reasoning(text) if !text.text.is_empty() => {
                let delta = json!({ "reasoning_content": text.text, "reasoning": text.text });
                self.delta(n, delta, live, self.probs(&[], &text.tokens), out);
            }
            Piece::Content(text) if !text.text.is_empty() => {
                let delta = json!({ "content": text.text });
                self.delta(n, delta, live, self.probs(&text.tokens, &[]), out);
            }
            Piece::Reasoning(text) if self.extras.logprobs && !text.tokens.is_empty() => {
                self.delta(n, json!({}), live, self.probs(&[], &text.tokens), out);
            }
            Piece::Content(text) if self.extras.logprobs && !text.tokens.is_empty() => {
                self.delta(n, json!({}), live, self.probs(&text.tokens, &[]), out);
            }
            Piece::Call { index, id, name, tokens } => {
                let function = json!({ "name": name, "arguments": "" });
                let call =
                    json!({ "index": index, "id": id, "type": "function", "function": function });
                self.delta(n, json!({ "tool_calls": [call] }), live, self.probs(tokens, &[]), out);
            }
            Piece::Arguments { index, text, tokens } => {
                let call = json!({ "index": index, "function": { "arguments": text } });
                self.delta(n, json!({ "tool_calls": [call] }), live, self.probs(tokens, &[]), out);
            }
            Piece::Done(outcome) => {
                self.lives[n] = outcome.live;
                let last =
                    ChunkChoice { finish_reason: Some(outcome.end.word()), ..choice(n, json!({})) };
                let mut chunk = self.chunk(vec![last]);
                // With usage, the timings are in the chunk of the usage.
                chunk.timings = (!self.extras.include_usage).then(|| Timings::of(&outcome.live));
                chunk.verbose = self.verbose(Some(outcome));
                event(out, None, &chunk);
            }
            _ => {}
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if self.extras.include_usage {
            let mut chunk = self.chunk(Vec::new());
            chunk.usage = Some(Usage::of(&self.lives));
            chunk.timings = self.lives.first().map(Timings::of);
            event(out, None, &chunk);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        event(out, None, &error.body(Family::OpenAi));
    }

    fn ping(&self, out: &mut Vec<u8>) {
        comment(out);
    }

    fn whole(&mut self, answers: Vec<Answer>) -> Value {
        let lives: Vec<Live> = answers.iter().map(Answer::live).collect();
        let verbose = self.verbose(answers.first().and_then(|answer| answer.outcome.as_ref()));
        let choices = answers.into_iter().enumerate().map(|(index, answer)| {
            let opened = if self.extras.opened { "<think>\n" } else { "" };
            let finish_reason = answer.end().word();
            let logprobs = self.probs(&answer.tokens, &answer.thoughts);
            let thought = Some(answer.reasoning).filter(|text| !text.is_empty());
            let content = format!("{opened}{}", answer.content);
            let calls = answer.calls.into_iter().map(|call| ToolCall {
                id: call.id,
                kind: "function",
                function: Function { name: call.name, arguments: call.arguments },
            });
            let tool_calls: Vec<ToolCall> = calls.collect();
            let message = AssistantMessage {
                role: "assistant",
                // Only an answer of tool calls alone has no content.
                content: (!content.is_empty() || tool_calls.is_empty()).then_some(content),
                refusal: None,
                reasoning_content: thought.clone(),
                reasoning: thought,
                tool_calls,
            };
            Choice { index, message, logprobs, finish_reason }
        });
        json!(ChatCompletion {
            id: self.id.clone(),
            object: "chat.completion",
            created: self.created,
            model: self.model.clone(),
            system_fingerprint: fingerprint(),
            choices: choices.collect(),
            usage: Usage::of(&lives),
            timings: lives.first().map(Timings::of).unwrap_or_default(),
            verbose,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{End, Text};

    fn text(text: &str) -> Text {
        Text { text: text.to_owned(), tokens: Vec::new() }
    }

    fn done(end: End) -> Piece {
        let live = Live { prompt: 5, generated: 2, ..Live::default() };
        Piece::Done(Outcome { end, stop_text: None, seed: 1, live, truncated: false })
    }

    /// The events of a stream, `[DONE]` as a text.
    fn events(extras: Extras, n: usize, pieces: &[(usize, Piece)]) -> Vec<Value> {
        let mut stream = ChatStream::new("chatcmpl-1".to_owned(), "m".to_owned(), n, extras);
        let mut out = Vec::new();
        stream.begin(&mut out);
        for (n, piece) in pieces {
            stream.piece(*n, piece, &Live::default(), &mut out);
        }
        stream.end(&mut out);
        let out = String::from_utf8(out).unwrap();
        let data = out.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap());
        data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| data.into())).collect()
    }

    fn deltas(events: &[Value]) -> Vec<&Value> {
        events.iter().filter_map(|event| event.pointer("/choices/0/delta")).collect()
    }

    #[test]
    fn chunks_come_in_llama_servers_order() {
        let pieces = [
            (0, Piece::Prefill { done: 5, total: 5, cached: 0 }),
            (0, Piece::Reasoning(text("hm"))),
            (0, Piece::Content(text(""))),
            (0, Piece::Content(text("yes"))),
            (0, done(End::Stop)),
        ];
        let extras = Extras { include_usage: true, ..Extras::default() };
        let events = events(extras, 1, &pieces);
        let expected = [
            json!({ "role": "assistant", "content": null }),
            json!({ "reasoning_content": "hm", "reasoning": "hm" }),
            json!({ "content": "yes" }),
            json!({}),
        ];
        assert_eq!(deltas(&events), expected.iter().collect::<Vec<_>>());
        assert_eq!(events[3]["choices"][0]["finish_reason"], "stop");
        assert_eq!(events[4]["choices"], json!([]));
        assert_eq!(events[4]["usage"]["total_tokens"], 7);
        assert!(events[4]["timings"].is_object());
        assert_eq!(events[5], "[DONE]");
        assert!(events[..4].iter().all(|event| event.get("usage").is_none()));
        assert!(events[..5].iter().all(|event| event["id"] == "chatcmpl-1"));
    }

    #[test]
    fn tool_calls_are_streamed_by_index() {
        let (id, name) = ("call_1".to_owned(), "f".to_owned());
        let pieces = [
            (0, Piece::Call { index: 0, id, name, tokens: Vec::new() }),
            (0, Piece::Arguments { index: 0, text: "{\"a\":".to_owned(), tokens: Vec::new() }),
            (0, Piece::Arguments { index: 0, text: "1}".to_owned(), tokens: Vec::new() }),
            (0, done(End::ToolCalls)),
        ];
        let events = events(Extras::default(), 1, &pieces);
        let call = &events[1]["choices"][0]["delta"]["tool_calls"][0];
        assert_eq!((&call["id"], &call["function"]["name"]), (&json!("call_1"), &json!("f")));
        let arguments =
            |i: usize| &events[i]["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"];
        assert_eq!((arguments(2), arguments(3)), (&json!("{\"a\":"), &json!("1}")));
        assert_eq!(events[4]["choices"][0]["finish_reason"], "tool_calls");
    }

    #[test]
    fn each_answer_has_its_role_and_usage_counts_all() {
        let pieces = [
            (1, Piece::Content(text("b"))),
            (0, Piece::Content(text("a"))),
            (1, done(End::Length)),
            (0, done(End::Stop)),
        ];
        let extras = Extras { include_usage: true, ..Extras::default() };
        let events = events(extras, 2, &pieces);
        let roles = events.iter().filter(|event| event.pointer("/choices/0/delta/role").is_some());
        assert_eq!(roles.count(), 2);
        let usage = events.iter().find_map(|event| event.get("usage")).unwrap();
        assert_eq!(usage["completion_tokens"], 4);
    }

    #[test]
    fn progress_repeats_the_role() {
        let pieces = [
            (0, Piece::Queued(2)),
            (0, Piece::Prefill { done: 3, total: 5, cached: 3 }),
            (0, done(End::Stop)),
        ];
        let extras = Extras { return_progress: true, ..Extras::default() };
        let events = events(extras, 1, &pieces);
        assert_eq!(events[1]["queue_position"], 2);
        assert_eq!(events[2]["prompt_progress"]["processed"], 3);
        assert_eq!(events[2]["choices"][0]["delta"]["role"], "assistant");
    }

    #[test]
    fn what_may_be_null_is_there_and_content_is_no_null_without_calls() {
        let mut stream = ChatStream::new("x".to_owned(), "m".to_owned(), 1, Extras::default());
        let whole = stream.whole(vec![Answer { reasoning: "hm".to_owned(), ..Answer::default() }]);
        let choice = &whole["choices"][0];
        assert_eq!(choice["message"]["content"], "");
        assert!(choice["message"].get("refusal").is_some_and(Value::is_null));
        assert!(choice.get("logprobs").is_some_and(Value::is_null));
    }
}
