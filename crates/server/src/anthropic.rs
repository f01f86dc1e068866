//! Anthropic's API: `/v1/messages` and `/v1/messages/count_tokens`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cachalot_engine::Request;
use cachalot_text::{Message, ToolCall};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::anthropic_stream::MessageStream;
use crate::app::{App, Served, fresh_id};
use crate::ask::Conversation;
use crate::chat::{self, Chat};
use crate::error::{ApiError, ApiResult};
use crate::http::body::typed;
use crate::options::{Options, Thinking, stops, whole};
use crate::respond::{Job, Run};
use crate::routes::{Asked, blocking, check_model};
use crate::tools;

/// A conversation to answer.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct MessagesBody {
    model: Option<String>,
    messages: Vec<AnthropicMessage>,
    /// A text, or blocks of type `text`.
    #[schema(value_type = Option<Object>)]
    system: Option<Value>,
    /// Thoughts included.
    #[serde(default, deserialize_with = "whole")]
    max_tokens: Option<i64>,
    stop_sequences: Option<Vec<String>>,
    stream: Option<bool>,
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<Vec<Value>>,
    #[schema(value_type = Option<Object>)]
    tool_choice: Option<Value>,
}

/// A message.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct AnthropicMessage {
    /// `user` or `assistant`
    role: String,
    /// A text, or blocks.
    #[schema(value_type = Object)]
    content: Value,
}

/// All that a request asks for; only for the document.
#[derive(ToSchema)]
#[expect(dead_code)]
pub(crate) struct MessagesRequest {
    #[serde(flatten)]
    body: MessagesBody,
    #[serde(flatten)]
    options: Options,
    #[serde(flatten)]
    thinking: Thinking,
}

pub(crate) struct Parsed {
    body: MessagesBody,
    options: Options,
    thinking: Thinking,
    chat: Chat,
}

/// Reads a request.
pub(crate) fn parse(object: &Map<String, Value>) -> ApiResult<Parsed> {
    let body: MessagesBody = typed(object)?;
    let (options, thinking): (Options, Thinking) = (typed(object)?, typed(object)?);
    if body.messages.is_empty() {
        return Err(ApiError::field("messages", "messages: at least one message is required"));
    }
    let mut messages = Vec::new();
    if let Some(system) = &body.system
        && let Some(text) = chat::text(system, "system")?
    {
        messages.push(Message::new("system", &text));
    }
    for message in &body.messages {
        read(message, &mut messages)?;
    }
    let given = body.tools.iter().flatten().enumerate();
    let choice = body.tool_choice.as_ref();
    let single = choice.and_then(|choice| choice.get("disable_parallel_tool_use"));
    let chat = Chat {
        messages,
        tools: given.map(|(i, tool)| chat::tool(tool, i)).collect::<ApiResult<_>>()?,
        choice: chat::tool_choice(choice)?,
        parallel: single != Some(&Value::Bool(true)),
        think: thinking.think()?,
        add_generation_prompt: true,
        kwargs: crate::openai::chat::kwargs(&thinking)?,
        ..Chat::default()
    };
    chat.check()?;
    Ok(Parsed { body, options, thinking, chat })
}

/// A message of Anthropic's may be several of ours: each tool result is one.
fn read(given: &AnthropicMessage, messages: &mut Vec<Message>) -> ApiResult<()> {
    if !["user", "assistant", "system"].contains(&given.role.as_str()) {
        return Err(ApiError::field("messages", "messages: the role must be user or assistant"));
    }
    let Value::Array(blocks) = &given.content else {
        return match chat::text(&given.content, "messages.content")? {
            Some(text) => {
                messages.push(Message::new(&given.role, &text));
                Ok(())
            }
            None => Err(ApiError::field("messages", "messages: `content` is required")),
        };
    };
    let mut message = Message { role: given.role.clone(), ..Message::default() };
    let mut texts = Vec::new();
    for block in blocks {
        let text = |key: &str| block.get(key).and_then(Value::as_str).map(str::to_owned);
        match block.get("type").and_then(Value::as_str) {
            Some("thinking") => message.reasoning = text("thinking"),
            Some("redacted_thinking") => {}
            Some("tool_use") => message.tool_calls.push(ToolCall {
                id: text("id"),
                name: text("name").ok_or_else(|| {
                    ApiError::field("messages", "messages: a `tool_use` needs a `name`")
                })?,
                arguments: block.get("input").map_or_else(|| "{}".to_owned(), Value::to_string),
            }),
            Some("tool_result") => messages.push(Message {
                role: "tool".to_owned(),
                content: Some(result_text(block)?),
                tool_call_id: text("tool_use_id"),
                ..Message::default()
            }),
            _ => {
                let part = Value::Array(vec![block.clone()]);
                texts.extend(chat::text(&part, "messages.content")?);
            }
        }
    }
    if !texts.is_empty() {
        message.content = Some(texts.join("\n\n"));
    }
    let is_assistant = message.role == "assistant";
    if message.content.is_some() || !message.tool_calls.is_empty() || is_assistant {
        messages.push(message);
    }
    Ok(())
}

fn result_text(block: &Value) -> ApiResult<String> {
    let content = block.get("content").unwrap_or(&Value::Null);
    Ok(chat::text(content, "messages.content")?.unwrap_or_default())
}

impl Parsed {
    fn request(&self, app: &App, served: &Served) -> ApiResult<Request> {
        let prompt = self.chat.prompt(served)?;
        let asked = Conversation {
            chat: &self.chat,
            options: &self.options,
            thinking: &self.thinking,
            max_tokens: self.body.max_tokens,
            format: None,
            logprobs: None,
        };
        let mut request = asked.request(app, served, prompt)?;
        if let Some(texts) = &self.body.stop_sequences {
            request.stop = stops(texts)?;
        }
        Ok(request)
    }
}

/// Answers a conversation.
#[utoipa::path(
    post, path = "/v1/messages", tag = "Anthropic", request_body = MessagesRequest,
    responses(
        (status = 200, description = "The message, or with `stream` its events",
         content((Object = "application/json"), (Object = "text/event-stream"))),
        crate::openapi::AnthropicErrors,
    )
)]
pub(crate) async fn messages(State(app): State<Arc<App>>, asked: Asked) -> ApiResult<Response> {
    let served = app.model()?;
    let parsed = parse(&asked.object)?;
    check_model(&app, &served, parsed.body.model.as_deref())?;
    let calls = tools::parser(&parsed.chat, &served);
    let stream = parsed.body.stream == Some(true);
    let (app_of, served_of) = (Arc::clone(&app), Arc::clone(&served));
    let request = blocking(move || parsed.request(&app_of, &served_of)).await?;
    let id = fresh_id("msg_");
    let dialect = MessageStream::new(id.clone(), app.model_id(&served), request.prompt.len());
    let job = Job::new(id, &request, 1, calls);
    let run = Run::submit(&app, &served, job, asked.context.caller)?;
    run.respond(&app, dialect, stream, &asked.context).await
}

/// Tokens of a conversation, without an answer.
#[utoipa::path(
    post, path = "/v1/messages/count_tokens", tag = "Anthropic", request_body = MessagesRequest,
    responses((status = 200, description = "Tokens of the prompt", body = crate::openai::chat::InputTokens),
              crate::openapi::AnthropicErrors)
)]
pub(crate) async fn count_tokens(State(app): State<Arc<App>>, asked: Asked) -> ApiResult<Response> {
    let served = app.model()?;
    let parsed = parse(&asked.object)?;
    let prompt = blocking(move || parsed.chat.prompt(&served)).await?;
    Ok(axum::Json(json!({ "input_tokens": prompt.tokens.len() })).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(body: &Value) -> ApiResult<Parsed> {
        parse(body.as_object().unwrap())
    }

    #[test]
    fn blocks_become_messages() {
        let body = json!({ "max_tokens": 9, "system": [{ "type": "text", "text": "s" }], "messages": [
            { "role": "user", "content": "u" },
            { "role": "assistant", "content": [
                { "type": "thinking", "thinking": "t", "signature": "" },
                { "type": "text", "text": "x" },
                { "type": "tool_use", "id": "c", "name": "f", "input": { "a": 1 } },
            ] },
            { "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": "c", "content": [{ "type": "text", "text": "r" }] },
                { "type": "text", "text": "and?" },
            ] },
        ] });
        let messages = parsed(&body).unwrap().chat.messages;
        let roles: Vec<&str> = messages.iter().map(|message| message.role.as_str()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "tool", "user"]);
        assert_eq!(messages[2].reasoning.as_deref(), Some("t"));
        assert_eq!(messages[2].tool_calls[0].arguments, "{\"a\":1}");
        assert_eq!(messages[3].content.as_deref(), Some("r"));
    }

    #[test]
    fn wrong_messages_are_refused() {
        for body in [
            json!({}),
            json!({ "messages": [] }),
            json!({ "messages": [{ "role": "wizard", "content": "x" }] }),
            json!({ "messages": [{ "role": "user", "content": null }] }),
            json!({ "messages": [{ "role": "user", "content": [{ "type": "image" }] }] }),
            json!({ "messages": [{ "role": "user", "content": 5 }] }),
        ] {
            assert_eq!(parsed(&body).err().map(|error| error.status.as_u16()), Some(400), "{body}");
        }
    }
}
