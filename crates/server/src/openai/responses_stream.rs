//! The events of `/v1/responses`, and the whole response.
//!
//! Each item of the output (the thought, the message, each function call) begins with
//! `response.output_item.added` and ends with `response.output_item.done`; every event has the next
//! `sequence_number`.

use std::time::SystemTime;

use cachalot_engine::Request;
use serde_json::{Map, Value, json};

use super::wire::logprobs;
use crate::app::{fresh_id, unix};
use crate::error::{ApiError, Family};
use crate::generate::{Answer, End, Live, Outcome, Piece, Text};
use crate::respond::{Dialect, SSE, comment, event};

/// Tools with all of their fields.
fn tools(mut tools: Value) -> Value {
    for tool in tools.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        for (field, value) in [("description", Value::Null), ("strict", true.into())] {
            tool.entry(field).or_insert(value);
        }
        tool.entry("parameters").or_insert(Value::Null);
    }
    tools
}

/// What a response repeats of its request.
pub(crate) struct Echo {
    id: String,
    created: u64,
    fields: Map<String, Value>,
    logprobs: bool,
}

impl Echo {
    pub(crate) fn new(
        id: String,
        model: &str,
        asked: &Map<String, Value>,
        request: &Request,
    ) -> Self {
        let given = |key: &str, default: Value| {
            asked.get(key).filter(|value| !value.is_null()).cloned().unwrap_or(default)
        };
        let effort = asked.get("reasoning").and_then(|reasoning| reasoning.get("effort"));
        let fields = json!({
            "model": model,
            "background": false,
            "instructions": given("instructions", Value::Null),
            "max_output_tokens": given("max_output_tokens", Value::Null),
            "max_tool_calls": given("max_tool_calls", Value::Null),
            "metadata": given("metadata", json!({})),
            "parallel_tool_calls": given("parallel_tool_calls", true.into()),
            "previous_response_id": null,
            "prompt_cache_key": given("prompt_cache_key", Value::Null),
            "reasoning": { "effort": effort.cloned().unwrap_or_default(), "summary": null },
            "safety_identifier": given("safety_identifier", Value::Null),
            "service_tier": "default",
            "store": false,
            "temperature": request.sampling.temperature,
            "presence_penalty": request.sampling.presence_penalty,
            "frequency_penalty": request.sampling.frequency_penalty,
            "text": given("text", json!({ "format": { "type": "text" } })),
            "tool_choice": given("tool_choice", "auto".into()),
            "tools": tools(given("tools", json!([]))),
            "top_logprobs": request.logprobs.unwrap_or(0),
            "top_p": request.sampling.top_p,
            "truncation": "disabled",
            "user": given("user", Value::Null),
        });
        Self {
            id,
            created: unix(SystemTime::now()),
            fields: fields.as_object().cloned().unwrap_or_default(),
            logprobs: request.logprobs.is_some(),
        }
    }

    /// A response object with this status and output.
    fn response(&self, status: &str, output: &[Value], outcome: Option<&Outcome>) -> Value {
        let mut response = self.fields.clone();
        let incomplete = match outcome.map(|outcome| outcome.end) {
            Some(End::Length) => json!({ "reason": "max_output_tokens" }),
            _ => Value::Null,
        };
        let own = json!({
            "id": self.id, "object": "response", "created_at": self.created, "status": status,
            "completed_at": outcome.map(|_| unix(SystemTime::now())), "error": null,
            "incomplete_details": incomplete, "output": output,
            "usage": outcome.map(|outcome| usage(&outcome.live)),
        });
        response.extend(own.as_object().cloned().unwrap_or_default());
        Value::Object(response)
    }
}

fn usage(live: &Live) -> Value {
    json!({
        "input_tokens": live.prompt,
        // Prompts go into the cache as they are read; OpenAI counts here what it bills for that.
        "input_tokens_details": { "cached_tokens": live.cached, "cache_write_tokens": 0 },
        "output_tokens": live.generated,
        "output_tokens_details": { "reasoning_tokens": live.reasoning },
        "total_tokens": live.prompt + live.generated,
    })
}

fn status(outcome: Option<&Outcome>) -> &'static str {
    match outcome.map(|outcome| outcome.end) {
        Some(End::Length) => "incomplete",
        _ => "completed",
    }
}

/// An item of the output.
#[derive(Clone, Debug)]
enum Item {
    Reasoning { id: String, text: String },
    Message { id: String, text: String, probs: Vec<Value> },
    Call { id: String, call_id: String, name: String, arguments: String },
}

impl Item {
    fn id(&self) -> &str {
        match self {
            Self::Reasoning { id, .. } | Self::Message { id, .. } | Self::Call { id, .. } => id,
        }
    }

    /// The part that holds its text. A thought goes out as its own summary: those are the events
    /// that both OpenAI's clients and the Open Responses specification know.
    fn part(&self) -> Value {
        match self {
            Self::Reasoning { text, .. } => json!({ "type": "summary_text", "text": text }),
            Self::Message { text, probs, .. } => json!({
                "type": "output_text", "text": text, "annotations": [], "logprobs": probs,
            }),
            Self::Call { .. } => Value::Null,
        }
    }

    /// The events around its part, and what its place is called; a call has none.
    fn part_events(&self) -> (&'static str, &'static str) {
        match self {
            Self::Reasoning { .. } => ("response.reasoning_summary_part", "summary_index"),
            Self::Message { .. } => ("response.content_part", "content_index"),
            Self::Call { .. } => ("", "content_index"),
        }
    }

    /// As it is in a response; with `begun` alone, without its content.
    fn value(&self, status: &str, begun: bool) -> Value {
        let content = if begun { json!([]) } else { json!([self.part()]) };
        match self {
            Self::Reasoning { id, text } => json!({
                "id": id, "type": "reasoning", "summary": content,
                "content": if begun { json!([]) } else {
                    json!([{ "type": "reasoning_text", "text": text }])
                },
            }),
            Self::Message { id, .. } => json!({
                "id": id, "type": "message", "role": "assistant", "status": status,
                "content": content,
            }),
            Self::Call { id, call_id, name, arguments } => json!({
                "id": id, "type": "function_call", "call_id": call_id, "name": name,
                "arguments": if begun { "" } else { arguments }, "status": status,
            }),
        }
    }
}

/// Writes responses.
pub(crate) struct ResponseStream {
    echo: Echo,
    sequence: u64,
    /// Items; the last one is open if `open`.
    items: Vec<Item>,
    open: bool,
    outcome: Option<Outcome>,
}

impl ResponseStream {
    pub(crate) fn new(echo: Echo) -> Self {
        Self { echo, sequence: 0, items: Vec::new(), open: false, outcome: None }
    }

    fn send(&mut self, kind: &str, mut data: Value, out: &mut Vec<u8>) {
        data["type"] = kind.into();
        data["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        event(out, Some(kind), &data);
    }

    fn output(&self) -> Vec<Value> {
        let last = self.items.len().saturating_sub(1);
        let of_last = status(self.outcome.as_ref());
        let item = |(i, item): (usize, &Item)| {
            item.value(if i == last { of_last } else { "completed" }, false)
        };
        self.items.iter().enumerate().map(item).collect()
    }

    /// Begins an item.
    fn add(&mut self, item: Item, out: &mut Vec<u8>) {
        self.close("completed", out);
        let index = self.items.len();
        let added = json!({ "output_index": index, "item": item.value("in_progress", true) });
        let (kind, place) = item.part_events();
        let mut part = json!({ "item_id": item.id(), "output_index": index, "part": item.part() });
        part[place] = 0.into();
        self.items.push(item);
        self.open = true;
        self.send("response.output_item.added", added, out);
        if !kind.is_empty() {
            self.send(&format!("{kind}.added"), part, out);
        }
    }

    /// Ends the item that is open.
    fn close(&mut self, status: &str, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.open, false) {
            return;
        }
        let Some(item) = self.items.last().cloned() else { return };
        let index = self.items.len() - 1;
        let at = json!({ "item_id": item.id(), "output_index": index });
        let with = |more: Value| {
            let mut data = at.clone();
            for (key, value) in more.as_object().into_iter().flatten() {
                data[key] = value.clone();
            }
            data
        };
        match &item {
            Item::Reasoning { text, .. } => {
                let done = with(json!({ "summary_index": 0, "text": text }));
                self.send("response.reasoning_summary_text.done", done, out);
            }
            Item::Message { text, probs, .. } => {
                let done = with(json!({ "content_index": 0, "text": text, "logprobs": probs }));
                self.send("response.output_text.done", done, out);
            }
            Item::Call { name, arguments, .. } => {
                let done = with(json!({ "name": name, "arguments": arguments }));
                self.send("response.function_call_arguments.done", done, out);
            }
        }
        let (kind, place) = item.part_events();
        if !kind.is_empty() {
            let mut done = with(json!({ "part": item.part() }));
            done[place] = 0.into();
            self.send(&format!("{kind}.done"), done, out);
        }
        let done = json!({ "output_index": index, "item": item.value(status, false) });
        self.send("response.output_item.done", done, out);
    }

    fn reasoning(&mut self, more: &str, out: &mut Vec<u8>) {
        if !self.open || !matches!(self.items.last(), Some(Item::Reasoning { .. })) {
            self.add(Item::Reasoning { id: fresh_id("rs_"), text: String::new() }, out);
        }
        if let Some(Item::Reasoning { text, .. }) = self.items.last_mut() {
            text.push_str(more);
        }
        let delta = self.delta("summary_index", more);
        self.send("response.reasoning_summary_text.delta", delta, out);
    }

    fn text(&mut self, more: &Text, out: &mut Vec<u8>) {
        if !self.open || !matches!(self.items.last(), Some(Item::Message { .. })) {
            let id = fresh_id("msg_");
            self.add(Item::Message { id, text: String::new(), probs: Vec::new() }, out);
        }
        let wanted = if self.echo.logprobs { logprobs(&more.tokens) } else { Vec::new() };
        let wanted = json!(wanted).as_array().cloned().unwrap_or_default();
        if let Some(Item::Message { text, probs, .. }) = self.items.last_mut() {
            text.push_str(&more.text);
            probs.extend(wanted.iter().cloned());
        }
        let mut delta = self.delta("content_index", &more.text);
        delta["logprobs"] = wanted.into();
        self.send("response.output_text.delta", delta, out);
    }

    fn delta(&self, place: &str, more: &str) -> Value {
        let id = self.items.last().map(Item::id);
        let index = self.items.len().saturating_sub(1);
        let mut delta = json!({ "item_id": id, "output_index": index, "delta": more });
        delta[place] = 0.into();
        delta
    }
}

impl Dialect for ResponseStream {
    const MEDIA: &'static str = SSE;

    fn begin(&mut self, out: &mut Vec<u8>) {
        let response = self.echo.response("in_progress", &[], None);
        self.send("response.created", json!({ "response": response }), out);
        self.send("response.in_progress", json!({ "response": response }), out);
    }

    fn piece(&mut self, _: usize, piece: &Piece, _: &Live, out: &mut Vec<u8>) {
        match piece {
            Piece::Reasoning(text) if !text.text.is_empty() => self.reasoning(&text.text, out),
            Piece::Content(text) if !text.text.is_empty() => self.text(text, out),
            Piece::Call { id, name, .. } => {
                let (call_id, name) = (id.clone(), name.clone());
                let arguments = String::new();
                self.add(Item::Call { id: fresh_id("fc_"), call_id, name, arguments }, out);
            }
            Piece::Arguments { text, .. } => {
                if let Some(Item::Call { arguments, .. }) = self.items.last_mut() {
                    arguments.push_str(text);
                }
                let mut delta = self.delta("content_index", text);
                if let Some(object) = delta.as_object_mut() {
                    object.remove("content_index");
                }
                self.send("response.function_call_arguments.delta", delta, out);
            }
            Piece::Done(outcome) => {
                self.outcome = Some(outcome.clone());
                if self.items.is_empty() {
                    self.text(&Text::default(), out);
                }
                let status = status(Some(outcome));
                self.close(status, out);
                let response = self.echo.response(status, &self.output(), Some(outcome));
                let kind = format!("response.{status}");
                self.send(&kind, json!({ "response": response }), out);
            }
            _ => {}
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        let mut response = self.echo.response("failed", &self.output(), None);
        response["error"] = json!({ "code": "server_error", "message": error.message });
        self.send("response.failed", json!({ "response": response }), out);
        let body = error.body(Family::OpenAi);
        let data = json!({ "code": error.kind(), "message": error.message, "param": null,
                           "error": body["error"] });
        self.send("error", data, out);
    }

    fn ping(&self, out: &mut Vec<u8>) {
        comment(out);
    }

    fn whole(&mut self, answers: Vec<Answer>) -> Value {
        let Some(answer) = answers.into_iter().next() else { return Value::Null };
        if !answer.reasoning.is_empty() {
            let (id, text) = (fresh_id("rs_"), answer.reasoning.clone());
            self.items.push(Item::Reasoning { id, text });
        }
        if !answer.content.is_empty() || (answer.calls.is_empty() && self.items.is_empty()) {
            let wanted = if self.echo.logprobs { logprobs(&answer.tokens) } else { Vec::new() };
            self.items.push(Item::Message {
                id: fresh_id("msg_"),
                text: answer.content.clone(),
                probs: json!(wanted).as_array().cloned().unwrap_or_default(),
            });
        }
        self.items.extend(answer.calls.iter().map(|call| Item::Call {
            id: fresh_id("fc_"),
            call_id: call.id.clone(),
            name: call.name.clone(),
            arguments: call.arguments.clone(),
        }));
        self.outcome.clone_from(&answer.outcome);
        let mut response = self.echo.response(
            status(self.outcome.as_ref()),
            &self.output(),
            self.outcome.as_ref(),
        );
        let texts = self.items.iter().filter_map(|item| match item {
            Item::Message { text, .. } => Some(text.as_str()),
            _ => None,
        });
        response["output_text"] = texts.collect::<String>().into();
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(pieces: &[Piece]) -> Vec<Value> {
        let request = Request::default();
        let echo = Echo::new("resp_1".to_owned(), "m", &Map::new(), &request);
        let mut stream = ResponseStream::new(echo);
        let mut out = Vec::new();
        stream.begin(&mut out);
        pieces.iter().for_each(|piece| stream.piece(0, piece, &Live::default(), &mut out));
        let text = String::from_utf8(out).unwrap();
        let data = |event: &str| {
            let (name, data) = event.split_once("\ndata: ").unwrap();
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
            data
        };
        text.split_terminator("\n\n").map(data).collect()
    }

    fn text(text: &str) -> Text {
        Text { text: text.to_owned(), tokens: Vec::new() }
    }

    #[test]
    fn items_open_and_close_in_order_and_every_event_is_numbered() {
        let live = Live { prompt: 5, generated: 3, reasoning: 1, ..Live::default() };
        let done = Piece::Done(Outcome {
            end: End::Length,
            stop_text: None,
            seed: 1,
            live,
            truncated: false,
        });
        let pieces = [Piece::Reasoning(text("hm")), Piece::Content(text("yes")), done];
        let events = events(&pieces);
        let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        let expected = [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.done",
            "response.reasoning_summary_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.incomplete",
        ];
        assert_eq!(kinds, expected);
        for (i, event) in events.iter().enumerate() {
            assert_eq!(event["sequence_number"], i);
        }
        let last = &events.last().unwrap()["response"];
        assert_eq!(last["incomplete_details"]["reason"], "max_output_tokens");
        assert_eq!(last["output"][1]["content"][0]["text"], "yes");
        assert_eq!(last["usage"]["output_tokens_details"]["reasoning_tokens"], 1);
        assert_eq!(last["usage"]["input_tokens_details"]["cache_write_tokens"], 0);
        for key in ["tool_choice", "parallel_tool_calls", "error"] {
            assert!(last.get(key).is_some(), "{key}");
        }
    }

    #[test]
    fn function_calls_are_items() {
        let live = Live::default();
        let pieces = [
            Piece::Call { index: 0, id: "call_1".to_owned(), name: "f".to_owned(), tokens: vec![] },
            Piece::Arguments { index: 0, text: "{}".to_owned(), tokens: vec![] },
            Piece::Done(Outcome {
                end: End::ToolCalls,
                stop_text: None,
                seed: 1,
                live,
                truncated: false,
            }),
        ];
        let events = events(&pieces);
        let last = events.last().unwrap();
        assert_eq!(last["type"], "response.completed");
        let call = &last["response"]["output"][0];
        assert_eq!((&call["call_id"], &call["arguments"]), (&json!("call_1"), &json!("{}")));
    }
}
