//! The lines of `/api/chat` and `/api/generate`.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::show::rfc3339;
use crate::error::{ApiError, Family};
use crate::generate::{Answer, Live, Outcome, Piece, Probed};
use crate::openai::wire::logprobs;
use crate::respond::{Dialect, NDJSON, line};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Chat,
    Generate,
}

/// Writes lines.
pub(crate) struct OllamaStream {
    kind: Kind,
    model: String,
    logprobs: bool,
    /// Tool calls are whole objects here: what has come of each.
    calls: Vec<(String, String, String)>,
}

impl OllamaStream {
    pub(crate) fn new(kind: Kind, model: String, logprobs: bool) -> Self {
        Self { kind, model, logprobs, calls: Vec::new() }
    }

    fn base(&self) -> Map<String, Value> {
        let mut base = Map::new();
        base.insert("model".to_owned(), json!(self.model));
        base.insert("created_at".to_owned(), json!(rfc3339(SystemTime::now())));
        base
    }

    /// An object with parts of an answer.
    fn object(&self, content: &str, thinking: &str, calls: Vec<Value>, done: bool) -> Value {
        let mut object = self.base();
        match self.kind {
            Kind::Chat => {
                let mut message = json!({ "role": "assistant", "content": content });
                if !thinking.is_empty() {
                    message["thinking"] = thinking.into();
                }
                if !calls.is_empty() {
                    message["tool_calls"] = calls.into();
                }
                object.insert("message".to_owned(), message);
            }
            Kind::Generate => {
                object.insert("response".to_owned(), content.into());
                if !thinking.is_empty() {
                    object.insert("thinking".to_owned(), thinking.into());
                }
            }
        }
        object.insert("done".to_owned(), done.into());
        Value::Object(object)
    }

    fn probs(&self, object: &mut Value, tokens: &[Probed]) {
        if self.logprobs && !tokens.is_empty() {
            object["logprobs"] = json!(logprobs(tokens));
        }
    }

    fn calls_so_far(&mut self) -> Vec<Value> {
        let calls = std::mem::take(&mut self.calls);
        calls.into_iter().enumerate().map(|(i, call)| tool_call(i, &call)).collect()
    }
}

/// A tool call, whose arguments are an object.
fn tool_call(index: usize, (id, name, arguments): &(String, String, String)) -> Value {
    let arguments: Value = serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
    json!({ "id": id, "function": { "index": index, "name": name, "arguments": arguments } })
}

/// Counts and nanoseconds at the end of an answer.
fn costs(object: &mut Value, outcome: &Outcome) {
    let live = &outcome.live;
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    object["done_reason"] = match outcome.end.word() {
        "tool_calls" => "stop",
        word => word,
    }
    .into();
    object["total_duration"] = nanos(live.total).into();
    object["load_duration"] = nanos(live.queued).into();
    object["prompt_eval_count"] = live.prompt.into();
    object["prompt_eval_duration"] = nanos(live.prefill).into();
    object["eval_count"] = live.generated.into();
    object["eval_duration"] = nanos(live.decode).into();
}

impl Dialect for OllamaStream {
    const MEDIA: &'static str = NDJSON;

    fn piece(&mut self, _: usize, piece: &Piece, _: &Live, out: &mut Vec<u8>) {
        let (mut object, tokens) = match piece {
            Piece::Reasoning(text) => {
                (self.object("", &text.text, Vec::new(), false), &text.tokens)
            }
            Piece::Content(text) => (self.object(&text.text, "", Vec::new(), false), &text.tokens),
            Piece::Call { id, name, .. } => {
                self.calls.push((id.clone(), name.clone(), String::new()));
                return;
            }
            Piece::Arguments { index, text, .. } => {
                if let Some(call) = self.calls.get_mut(*index) {
                    call.2.push_str(text);
                }
                return;
            }
            Piece::Done(outcome) => {
                let calls = self.calls_so_far();
                if !calls.is_empty() {
                    line(out, &self.object("", "", calls, false));
                }
                let mut last = self.object("", "", Vec::new(), true);
                costs(&mut last, outcome);
                line(out, &last);
                return;
            }
            _ => return,
        };
        let text = match piece {
            Piece::Reasoning(text) | Piece::Content(text) => &text.text,
            _ => return,
        };
        if text.is_empty() && (tokens.is_empty() || !self.logprobs) {
            return;
        }
        self.probs(&mut object, tokens);
        line(out, &object);
    }

    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        line(out, &error.body(Family::Ollama));
    }

    fn whole(&mut self, answers: Vec<Answer>) -> Value {
        let Some(answer) = answers.into_iter().next() else { return Value::Null };
        let calls = answer.calls.iter().enumerate().map(|(i, call)| {
            tool_call(i, &(call.id.clone(), call.name.clone(), call.arguments.clone()))
        });
        let mut object = self.object(&answer.content, &answer.reasoning, calls.collect(), true);
        self.probs(&mut object, &answer.tokens);
        if let Some(outcome) = &answer.outcome {
            costs(&mut object, outcome);
        }
        object
    }
}

/// The answer to a request without messages or prompt, which loads or unloads elsewhere.
pub(crate) fn nothing(kind: Kind, model: String, unloads: bool) -> Value {
    let mut object = OllamaStream::new(kind, model, false).object("", "", Vec::new(), true);
    object["done_reason"] = if unloads { "unload" } else { "load" }.into();
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{End, Text};

    fn lines(kind: Kind, pieces: &[Piece]) -> Vec<Value> {
        let mut stream = OllamaStream::new(kind, "m".to_owned(), false);
        let mut out = Vec::new();
        for piece in pieces {
            stream.piece(0, piece, &Live::default(), &mut out);
        }
        let text = String::from_utf8(out).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn done() -> Piece {
        let live =
            Live { prompt: 3, generated: 2, decode: Duration::from_millis(2), ..Live::default() };
        Piece::Done(Outcome { end: End::Length, stop_text: None, seed: 1, live, truncated: false })
    }

    #[test]
    fn a_chat_is_lines_of_messages_and_a_last_one_with_costs() {
        let text = |text: &str| Text { text: text.to_owned(), tokens: Vec::new() };
        let pieces = [
            Piece::Reasoning(text("hm")),
            Piece::Content(text("")),
            Piece::Content(text("yes")),
            done(),
        ];
        let lines = lines(Kind::Chat, &pieces);
        assert_eq!(
            lines[0]["message"],
            json!({ "role": "assistant", "content": "", "thinking": "hm" })
        );
        assert_eq!(lines[1]["message"], json!({ "role": "assistant", "content": "yes" }));
        assert_eq!((&lines[2]["done"], &lines[2]["done_reason"]), (&json!(true), &json!("length")));
        assert_eq!(lines[2]["eval_duration"], 2_000_000);
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn arguments_of_tools_are_objects() {
        let pieces = [
            Piece::Call { index: 0, id: "c".to_owned(), name: "f".to_owned(), tokens: Vec::new() },
            Piece::Arguments { index: 0, text: "{\"a\"".to_owned(), tokens: Vec::new() },
            Piece::Arguments { index: 0, text: ":1}".to_owned(), tokens: Vec::new() },
            done(),
        ];
        let lines = lines(Kind::Chat, &pieces);
        let call = &lines[0]["message"]["tool_calls"][0];
        assert_eq!(call["function"], json!({ "index": 0, "name": "f", "arguments": { "a": 1 } }));
    }

    #[test]
    fn a_completion_has_its_text_in_response() {
        let text = Text { text: "x".to_owned(), tokens: Vec::new() };
        let lines = lines(Kind::Generate, &[Piece::Content(text), done()]);
        assert_eq!((&lines[0]["response"], &lines[1]["response"]), (&json!("x"), &json!("")));
    }
}
