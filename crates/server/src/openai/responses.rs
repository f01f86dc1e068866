//! `/v1/responses`, without a store: each request has the whole conversation.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cachalot_engine::Request;
use cachalot_text::{Message, ToolCall};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::chat::kwargs;
use super::responses_stream::{Echo, ResponseStream};
use crate::app::{App, Served, fresh_id};
use crate::ask::Conversation;
use crate::chat::{self, Chat};
use crate::error::{ApiError, ApiResult};
use crate::http::body::typed;
use crate::options::{Options, TOP_MAX, Thinking, whole};
use crate::respond::{Job, Run};
use crate::routes::{Asked, blocking, check_model};
use crate::tools;

/// A conversation to answer.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct ResponsesBody {
    model: Option<String>,
    /// A text, or items: messages, function calls and their outputs, reasoning.
    #[schema(value_type = Object)]
    input: Option<Value>,
    instructions: Option<String>,
    #[serde(default, deserialize_with = "whole")]
    max_output_tokens: Option<i64>,
    stream: Option<bool>,
    /// `{"format": {"type": "text", "json_object" or "json_schema"}}`
    #[schema(value_type = Option<Object>)]
    text: Option<Value>,
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<Vec<Value>>,
    #[schema(value_type = Option<Object>)]
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    #[serde(default, deserialize_with = "whole")]
    top_logprobs: Option<i64>,
    include: Option<Vec<String>>,
    /// Refused: nothing is stored.
    previous_response_id: Option<String>,
    /// Refused.
    background: Option<bool>,
}

/// All that a request asks for; only for the document.
#[derive(ToSchema)]
#[expect(dead_code)]
pub(crate) struct ResponsesRequest {
    #[serde(flatten)]
    body: ResponsesBody,
    #[serde(flatten)]
    options: Options,
    #[serde(flatten)]
    thinking: Thinking,
}

pub(crate) struct Parsed {
    body: ResponsesBody,
    options: Options,
    thinking: Thinking,
    chat: Chat,
}

/// Reads a request.
pub(crate) fn parse(object: &Map<String, Value>) -> ApiResult<Parsed> {
    let body: ResponsesBody = typed(object)?;
    let (options, thinking): (Options, Thinking) = (typed(object)?, typed(object)?);
    if body.previous_response_id.is_some() {
        let message =
            "`previous_response_id`: responses are not stored; send the whole conversation";
        return Err(ApiError::field("previous_response_id", message));
    }
    if body.background == Some(true) {
        let message = "`background` is not supported: nothing is stored";
        return Err(ApiError::field("background", message));
    }
    if body.model.is_none() {
        return Err(ApiError::field("model", "`model` is missing: any name will do"));
    }
    let mut messages = Vec::new();
    if let Some(text) = &body.instructions {
        messages.push(Message::new("system", text));
    }
    match &body.input {
        Some(Value::String(text)) => messages.push(Message::new("user", text)),
        Some(Value::Array(items)) => {
            for item in items {
                read(item, &mut messages)?;
            }
        }
        _ => return Err(ApiError::field("input", "`input` must be a text or a list of items")),
    }
    // Tools that run on OpenAI's servers are not here.
    let is_function = |tool: &&Value| {
        let kind = tool.get("type").and_then(Value::as_str);
        kind.is_none_or(|kind| kind == "function")
    };
    let given = body.tools.iter().flatten().filter(is_function).enumerate();
    let chat = Chat {
        messages,
        tools: given.map(|(i, tool)| chat::tool(tool, i)).collect::<ApiResult<_>>()?,
        choice: chat::tool_choice(body.tool_choice.as_ref())?,
        parallel: body.parallel_tool_calls.unwrap_or(true),
        think: thinking.think()?,
        add_generation_prompt: true,
        kwargs: kwargs(&thinking)?,
        ..Chat::default()
    };
    chat.check()?;
    Ok(Parsed { body, options, thinking, chat })
}

/// An item of the input.
fn read(item: &Value, messages: &mut Vec<Message>) -> ApiResult<()> {
    let wrong = |message: &str| ApiError::field("input", format!("input: {message}"));
    let text = |key: &str| item.get(key).and_then(Value::as_str).map(str::to_owned);
    match item.get("type").and_then(Value::as_str) {
        None | Some("message") => {
            let role = text("role").ok_or_else(|| wrong("a message needs a `role`"))?;
            let role = if role == "developer" { "system".to_owned() } else { role };
            if !["system", "user", "assistant"].contains(&role.as_str()) {
                return Err(wrong("the role must be user, assistant, system or developer"));
            }
            let content = item.get("content").unwrap_or(&Value::Null);
            let content = chat::text(content, "input.content")?;
            let content = content.ok_or_else(|| wrong("a message needs `content`"))?;
            let mut message = Message::new(&role, &content);
            if role == "assistant"
                && let Some(last) = messages.last_mut().filter(|last| is_thought(last))
            {
                message.reasoning = last.reasoning.take();
                messages.pop();
            }
            messages.push(message);
        }
        Some("reasoning") => {
            let parts = ["content", "summary"].iter().find_map(|key| {
                item.get(*key).and_then(Value::as_array).filter(|parts| !parts.is_empty())
            });
            let texts = parts.into_iter().flatten().filter_map(|part| part.get("text")?.as_str());
            let reasoning = Some(texts.collect::<Vec<_>>().join("\n"));
            let role = "assistant".to_owned();
            messages.push(Message { role, reasoning, ..Message::default() });
        }
        Some("function_call") => {
            let call = ToolCall {
                id: text("call_id").or_else(|| text("id")),
                name: text("name").ok_or_else(|| wrong("a function call needs a `name`"))?,
                arguments: text("arguments").unwrap_or_else(|| "{}".to_owned()),
            };
            match messages.last_mut().filter(|last| last.role == "assistant") {
                Some(last) => last.tool_calls.push(call),
                None => messages.push(Message {
                    role: "assistant".to_owned(),
                    tool_calls: vec![call],
                    ..Message::default()
                }),
            }
        }
        Some("function_call_output") => {
            let output = chat::text(item.get("output").unwrap_or(&Value::Null), "input.output")?;
            messages.push(Message {
                role: "tool".to_owned(),
                content: Some(output.unwrap_or_default()),
                tool_call_id: text("call_id"),
                ..Message::default()
            });
        }
        Some("item_reference") => return Err(wrong("items are not stored: send them whole")),
        Some(kind) => {
            let kind: String = kind.chars().take(40).collect();
            return Err(wrong(&format!("an item of type `{kind}` is not supported")));
        }
    }
    Ok(())
}

/// A thought that awaits the message that follows it.
fn is_thought(message: &Message) -> bool {
    message.role == "assistant" && message.content.is_none() && message.tool_calls.is_empty()
}

impl Parsed {
    fn request(&self, app: &App, served: &Served) -> ApiResult<Request> {
        let prompt = self.chat.prompt(served)?;
        let asked = Conversation {
            chat: &self.chat,
            options: &self.options,
            thinking: &self.thinking,
            max_tokens: self.body.max_output_tokens,
            format: self.body.text.as_ref().and_then(|text| text.get("format")),
            logprobs: self.logprobs()?,
        };
        asked.request(app, served, prompt)
    }

    fn logprobs(&self) -> ApiResult<Option<usize>> {
        let wanted = |include: &String| include == "message.output_text.logprobs";
        let wanted = self.body.include.iter().flatten().any(wanted);
        match usize::try_from(self.body.top_logprobs.unwrap_or(0)) {
            Ok(top) if top <= TOP_MAX => Ok((wanted || top > 0).then_some(top)),
            _ => {
                let message = format!("`top_logprobs` must be from 0 to {TOP_MAX}");
                Err(ApiError::field("top_logprobs", message))
            }
        }
    }
}

/// Answers a conversation.
#[utoipa::path(
    post, path = "/v1/responses", tag = "OpenAI", request_body = ResponsesRequest,
    responses(
        (status = 200, description = "The response, or with `stream` its events",
         content((Object = "application/json"), (Object = "text/event-stream"))),
        crate::openapi::Errors,
    )
)]
pub(crate) async fn responses(State(app): State<Arc<App>>, asked: Asked) -> ApiResult<Response> {
    let served = app.model()?;
    let parsed = parse(&asked.object)?;
    check_model(&app, &served, parsed.body.model.as_deref())?;
    let calls = tools::parser(&parsed.chat, &served);
    let stream = parsed.body.stream == Some(true);
    let (app_of, served_of) = (Arc::clone(&app), Arc::clone(&served));
    let request = blocking(move || parsed.request(&app_of, &served_of)).await?;
    let id = fresh_id("resp_");
    let echo = Echo::new(id.clone(), &app.model_id(&served), &asked.object, &request);
    let job = Job::new(id, &request, 1, calls);
    let run = Run::submit(&app, &served, job, asked.context.caller)?;
    run.respond(&app, ResponseStream::new(echo), stream, &asked.context).await
}

/// Tokens of a conversation, without an answer.
#[utoipa::path(
    post, path = "/v1/responses/input_tokens", tag = "OpenAI", request_body = ResponsesRequest,
    responses((status = 200, description = "Tokens of the prompt", body = Object), crate::openapi::Errors)
)]
pub(crate) async fn input_tokens(State(app): State<Arc<App>>, asked: Asked) -> ApiResult<Response> {
    let served = app.model()?;
    let parsed = parse(&asked.object)?;
    let prompt = blocking(move || parsed.chat.prompt(&served)).await?;
    let answer = json!({ "object": "response.input_tokens", "input_tokens": prompt.tokens.len() });
    Ok(axum::Json(answer).into_response())
}

/// Nothing is stored.
pub(crate) async fn stored() -> ApiError {
    ApiError::not_found("responses are not stored: there is none of this id")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(body: &Value) -> ApiResult<Parsed> {
        parse(body.as_object().unwrap())
    }

    #[test]
    fn items_become_messages() {
        let body = json!({ "model": "m", "instructions": "s", "input": [
            { "role": "user", "content": [{ "type": "input_text", "text": "u" }] },
            { "type": "reasoning", "summary": [], "content": [{ "type": "reasoning_text", "text": "r" }] },
            { "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}" },
            { "type": "function_call_output", "call_id": "c", "output": "o" },
        ] });
        let messages = parsed(&body).unwrap().chat.messages;
        let roles: Vec<&str> = messages.iter().map(|message| message.role.as_str()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "tool"]);
        assert_eq!(messages[2].reasoning.as_deref(), Some("r"));
        assert_eq!(messages[2].tool_calls[0].id.as_deref(), Some("c"));
    }

    #[test]
    fn what_needs_a_store_is_refused() {
        for body in [
            json!({ "model": "m", "input": "x", "previous_response_id": "resp_1" }),
            json!({ "model": "m", "input": "x", "background": true }),
            json!({ "model": "m", "input": [{ "type": "item_reference", "id": "x" }] }),
            json!({ "model": "m", "input": 5 }),
            json!({}),
        ] {
            assert_eq!(parsed(&body).err().map(|error| error.status.as_u16()), Some(400), "{body}");
        }
    }
}
