//! The events of `/v1/messages`, and the whole message.
//!
//! Blocks come one after another: the thought, closed by an empty signature, then texts and tool
//! uses.

use serde_json::{Value, json};

use crate::error::{ApiError, Family};
use crate::generate::{Answer, End, Live, Outcome, Piece};
use crate::respond::{Dialect, SSE, event};

/// What the block that is open holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Thinking,
    Text,
    Tool(usize),
}

/// Writes messages.
pub(crate) struct MessageStream {
    id: String,
    model: String,
    prompt: usize,
    cached: usize,
    begun: bool,
    open: Option<Block>,
    /// Blocks so far, the open one included.
    blocks: usize,
}

impl MessageStream {
    pub(crate) fn new(id: String, model: String, prompt: usize) -> Self {
        Self { id, model, prompt, cached: 0, begun: false, open: None, blocks: 0 }
    }

    fn send(out: &mut Vec<u8>, data: &Value) {
        event(out, data.get("type").and_then(Value::as_str), data);
    }

    fn start(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let usage = usage(&Live { prompt: self.prompt, cached: self.cached, ..Live::default() });
        let message = json!({
            "id": self.id, "type": "message", "role": "assistant", "content": [],
            "model": self.model, "stop_reason": null, "stop_sequence": null, "stop_details": null,
            "container": null, "usage": usage,
        });
        Self::send(out, &json!({ "type": "message_start", "message": message }));
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let Some(block) = self.open.take() else { return };
        let index = self.blocks - 1;
        if block == Block::Thinking {
            let delta = json!({ "type": "signature_delta", "signature": "" });
            Self::send(
                out,
                &json!({ "type": "content_block_delta", "index": index, "delta": delta }),
            );
        }
        Self::send(out, &json!({ "type": "content_block_stop", "index": index }));
    }

    fn ensure(&mut self, block: Block, content: &Value, out: &mut Vec<u8>) {
        self.start(out);
        if self.open == Some(block) {
            return;
        }
        self.close(out);
        self.open = Some(block);
        let index = self.blocks;
        self.blocks += 1;
        let start =
            json!({ "type": "content_block_start", "index": index, "content_block": content });
        Self::send(out, &start);
    }

    fn delta(&self, delta: &Value, out: &mut Vec<u8>) {
        let index = self.blocks - 1;
        Self::send(out, &json!({ "type": "content_block_delta", "index": index, "delta": delta }));
    }
}

fn usage(live: &Live) -> Value {
    json!({
        "input_tokens": live.prompt.saturating_sub(live.cached), "output_tokens": live.generated,
        "cache_creation_input_tokens": 0, "cache_read_input_tokens": live.cached,
        "output_tokens_details": { "thinking_tokens": live.reasoning },
        "cache_creation": null, "server_tool_use": null, "service_tier": null,
        "inference_geo": null,
    })
}

fn stop_reason(outcome: &Outcome) -> &'static str {
    match outcome.end {
        End::Stop => "end_turn",
        End::StopText => "stop_sequence",
        End::Length => "max_tokens",
        End::ToolCalls => "tool_use",
    }
}

impl Dialect for MessageStream {
    const MEDIA: &'static str = SSE;

    fn piece(&mut self, _: usize, piece: &Piece, _: &Live, out: &mut Vec<u8>) {
        match piece {
            Piece::Queued(_) | Piece::Failed(_) => {}
            Piece::Prefill { cached, .. } => {
                self.cached = *cached;
                self.start(out);
            }
            Piece::Reasoning(text) if !text.text.is_empty() => {
                let content = json!({ "type": "thinking", "thinking": "", "signature": "" });
                self.ensure(Block::Thinking, &content, out);
                self.delta(&json!({ "type": "thinking_delta", "thinking": text.text }), out);
            }
            Piece::Content(text) if !text.text.is_empty() => {
                self.ensure(
                    Block::Text,
                    &json!({ "type": "text", "text": "", "citations": null }),
                    out,
                );
                self.delta(&json!({ "type": "text_delta", "text": text.text }), out);
            }
            Piece::Reasoning(_) | Piece::Content(_) => {}
            Piece::Call { index, id, name, .. } => {
                let content = json!({ "type": "tool_use", "id": id, "name": name, "input": {}, "caller": { "type": "direct" } });
                self.ensure(Block::Tool(*index), &content, out);
            }
            Piece::Arguments { text, .. } => {
                self.delta(&json!({ "type": "input_json_delta", "partial_json": text }), out);
            }
            Piece::Done(outcome) => {
                self.start(out);
                if self.blocks == 0 {
                    // Clients expect at least one block.
                    self.ensure(
                        Block::Text,
                        &json!({ "type": "text", "text": "", "citations": null }),
                        out,
                    );
                }
                self.close(out);
                let delta = json!({
                    "stop_reason": stop_reason(outcome), "stop_sequence": stop_text(outcome),
                    "stop_details": null, "container": null,
                });
                let usage = usage(&outcome.live);
                Self::send(
                    out,
                    &json!({ "type": "message_delta", "delta": delta, "usage": usage }),
                );
                Self::send(out, &json!({ "type": "message_stop" }));
            }
        }
    }

    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        event(out, Some("error"), &error.body(Family::Anthropic));
    }

    fn ping(&self, out: &mut Vec<u8>) {
        Self::send(out, &json!({ "type": "ping" }));
    }

    fn whole(&mut self, answers: Vec<Answer>) -> Value {
        let Some(answer) = answers.into_iter().next() else { return Value::Null };
        let mut content = Vec::new();
        if !answer.reasoning.is_empty() {
            content
                .push(json!({ "type": "thinking", "thinking": answer.reasoning, "signature": "" }));
        }
        if !answer.content.is_empty() || (answer.calls.is_empty() && content.is_empty()) {
            content.push(json!({ "type": "text", "text": answer.content, "citations": null }));
        }
        for call in &answer.calls {
            let input: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
            let use_of = json!({ "type": "tool_use", "id": call.id, "name": call.name, "input": input,
                        "caller": { "type": "direct" } });
            content.push(use_of);
        }
        json!({
            "id": self.id, "type": "message", "role": "assistant", "content": content,
            "model": self.model,
            "stop_reason": answer.outcome.as_ref().map(stop_reason),
            "stop_sequence": answer.outcome.as_ref().and_then(stop_text),
            "stop_details": null, "container": null,
            "usage": usage(&answer.live()),
        })
    }
}

fn stop_text(outcome: &Outcome) -> Option<&str> {
    outcome.stop_text.as_deref().filter(|_| outcome.end == End::StopText)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Text;

    fn events(pieces: &[Piece]) -> Vec<(String, Value)> {
        let mut stream = MessageStream::new("msg_1".to_owned(), "m".to_owned(), 5);
        let mut out = Vec::new();
        pieces.iter().for_each(|piece| stream.piece(0, piece, &Live::default(), &mut out));
        let text = String::from_utf8(out).unwrap();
        let event = |event: &str| {
            let (name, data) = event.split_once('\n').unwrap();
            let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            (name.strip_prefix("event: ").unwrap().to_owned(), data)
        };
        text.split_terminator("\n\n").map(event).collect()
    }

    fn text(text: &str) -> Text {
        Text { text: text.to_owned(), tokens: Vec::new() }
    }

    fn done(end: End, stop_text: Option<&str>) -> Piece {
        let live = Live { prompt: 5, cached: 2, generated: 3, ..Live::default() };
        Piece::Done(Outcome {
            end,
            stop_text: stop_text.map(str::to_owned),
            seed: 1,
            live,
            truncated: false,
        })
    }

    #[test]
    fn a_thought_is_closed_by_an_empty_signature_before_the_text_begins() {
        let pieces = [
            Piece::Reasoning(text("hm")),
            Piece::Content(text("yes")),
            done(End::StopText, Some("END")),
        ];
        let events = events(&pieces);
        let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ];
        assert_eq!(names, expected);
        assert_eq!(events[3].1["delta"], json!({ "type": "signature_delta", "signature": "" }));
        assert_eq!(events[5].1["index"], 1);
        let delta = &events[8].1["delta"];
        assert_eq!(delta["stop_reason"], "stop_sequence");
        assert_eq!(delta["stop_sequence"], "END");
        assert_eq!(events[8].1["usage"]["cache_read_input_tokens"], 2);
    }

    #[test]
    fn tool_uses_are_blocks_of_their_own() {
        let call = |index| Piece::Call {
            index,
            id: format!("c{index}"),
            name: "f".to_owned(),
            tokens: Vec::new(),
        };
        let arguments =
            |index| Piece::Arguments { index, text: "{}".to_owned(), tokens: Vec::new() };
        let events =
            events(&[call(0), arguments(0), call(1), arguments(1), done(End::ToolCalls, None)]);
        let starts = events.iter().filter(|(name, _)| name == "content_block_start");
        let indices: Vec<&Value> = starts.map(|(_, data)| &data["index"]).collect();
        assert_eq!(indices, [&json!(0), &json!(1)]);
        let last = &events[events.len() - 2].1;
        assert_eq!(last["delta"]["stop_reason"], "tool_use");
    }

    #[test]
    fn an_empty_answer_has_a_block() {
        let events = events(&[done(End::Stop, None)]);
        assert!(events.iter().any(|(name, _)| name == "content_block_start"));
    }
}
