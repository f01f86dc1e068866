//! `/api/chat`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cachalot_text::{Message, ToolCall};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::options;
use super::stream::{Kind, OllamaStream, nothing};
use crate::app::{App, fresh_id};
use crate::chat::{self, Chat};
use crate::error::{ApiError, ApiResult};
use crate::http::body::typed;
use crate::options::whole;
use crate::respond::{Job, Run};
use crate::routes::{Asked, blocking};
use crate::tools;

/// A conversation to answer.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct OllamaChat {
    model: Option<String>,
    messages: Option<Vec<OllamaMessage>>,
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<Vec<Value>>,
    /// `"json"` or a JSON schema.
    #[schema(value_type = Option<Object>)]
    format: Option<Value>,
    #[schema(value_type = Option<Object>)]
    options: Option<Value>,
    /// A boolean, or `low`, `medium`, `high`.
    #[schema(value_type = Option<Object>)]
    think: Option<Value>,
    /// True by default.
    stream: Option<bool>,
    #[schema(value_type = Option<Object>)]
    keep_alive: Option<Value>,
    logprobs: Option<bool>,
    #[serde(default, deserialize_with = "whole")]
    top_logprobs: Option<i64>,
}

/// A message.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct OllamaMessage {
    role: String,
    content: Option<String>,
    thinking: Option<String>,
    #[schema(value_type = Option<Vec<Object>>)]
    images: Option<Vec<Value>>,
    tool_calls: Option<Vec<OllamaCall>>,
    tool_name: Option<String>,
    tool_call_id: Option<String>,
}

/// A tool call.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct OllamaCall {
    id: Option<String>,
    function: OllamaFunction,
}

/// The function of a tool call.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct OllamaFunction {
    name: String,
    #[schema(value_type = Option<Object>)]
    arguments: Option<Value>,
}

fn message(given: &OllamaMessage) -> ApiResult<Message> {
    if !["system", "user", "assistant", "tool"].contains(&given.role.as_str()) {
        let role: String = given.role.chars().take(40).collect();
        return Err(ApiError::field("messages", format!("the role `{role}` is not known")));
    }
    if given.images.as_ref().is_some_and(|images| !images.is_empty()) {
        let message = "this model reads text only: images are not supported";
        return Err(ApiError::field("messages", message));
    }
    let calls = given.tool_calls.iter().flatten().map(|call| ToolCall {
        id: call.id.clone(),
        name: call.function.name.clone(),
        arguments: match &call.function.arguments {
            None | Some(Value::Null) => "{}".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(arguments) => arguments.to_string(),
        },
    });
    let tool_calls: Vec<ToolCall> = calls.collect();
    let content = given.content.clone().filter(|text| !text.is_empty() || tool_calls.is_empty());
    Ok(Message {
        role: given.role.clone(),
        content: content.or_else(|| tool_calls.is_empty().then(String::new)),
        reasoning: given.thinking.clone(),
        tool_calls,
        name: given.tool_name.clone(),
        tool_call_id: given.tool_call_id.clone(),
    })
}

/// Reads a request.
///
/// # Errors
/// 400 that says what is wrong.
pub(crate) fn parse(object: &Map<String, Value>) -> ApiResult<(OllamaChat, Chat)> {
    let body: OllamaChat = typed(object)?;
    let messages = body.messages.iter().flatten();
    let given = body.tools.iter().flatten().enumerate();
    let chat = Chat {
        messages: messages.map(message).collect::<ApiResult<_>>()?,
        tools: given.map(|(i, tool)| chat::tool(tool, i)).collect::<ApiResult<_>>()?,
        parallel: true,
        think: options::think(body.think.as_ref())?,
        add_generation_prompt: true,
        ..Chat::default()
    };
    Ok((body, chat))
}

/// Answers a conversation.
#[utoipa::path(
    post, path = "/api/chat", tag = "Ollama", request_body = OllamaChat,
    responses(
        (status = 200, description = "Lines of JSON, or with `stream: false` one object",
         content((Object = "application/x-ndjson"), (Object = "application/json"))),
        crate::openapi::OllamaErrors,
    )
)]
pub(crate) async fn chat(State(app): State<Arc<App>>, asked: Asked) -> ApiResult<Response> {
    let (body, chat) = parse(&asked.object)?;
    let served = options::served(&app, body.model.as_deref())?;
    if chat.messages.is_empty() {
        let unloads = options::unloads(body.keep_alive.as_ref());
        let answer = nothing(Kind::Chat, app.model_id(&served), unloads);
        return Ok(axum::Json(answer).into_response());
    }
    let calls = tools::parser(&chat, &served);
    let stream = body.stream.unwrap_or(true);
    let (app_of, served_of) = (Arc::clone(&app), Arc::clone(&served));
    let request = blocking(move || {
        let prompt = chat.prompt(&served_of)?;
        let mut request = options::request(&app_of, &served_of, body.options.as_ref())?;
        request.constraint =
            options::format(body.format.as_ref())?.or_else(|| tools::constraint(&chat, &served_of));
        request.logprobs = options::logprobs(body.logprobs, body.top_logprobs)?;
        request.prompt = prompt.tokens;
        request.thought = prompt.thought;
        Ok(request)
    })
    .await?;
    let dialect = OllamaStream::new(Kind::Chat, app.model_id(&served), request.logprobs.is_some());
    let job = Job::new(fresh_id("chat-"), &request, 1, calls);
    let run = Run::submit(&app, &served, job, asked.context.caller)?;
    run.respond(&app, dialect, stream, &asked.context).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_come_as_clients_keep_them() {
        let read = |value: Value| message(&serde_json::from_value(value).unwrap());
        let call = json!({ "role": "assistant", "content": "", "thinking": "t",
            "tool_calls": [{ "function": { "name": "f", "arguments": { "a": 1 } } }] });
        let call = read(call).unwrap();
        assert_eq!((call.content, call.reasoning.as_deref()), (None, Some("t")));
        assert_eq!(call.tool_calls[0].arguments, "{\"a\":1}");
        assert_eq!(read(json!({ "role": "user" })).unwrap().content.as_deref(), Some(""));
        assert!(read(json!({ "role": "user", "content": "x", "images": ["aGk="] })).is_err());
        assert!(read(json!({ "role": "wizard", "content": "x" })).is_err());
    }
}
