//! `/v1/chat/completions`: the request.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cachalot_engine::Request;
use cachalot_engine::request::ThoughtState;
use cachalot_text::{Message, ToolCall};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::chat_stream::{ChatStream, Extras};
use crate::app::{App, Served, fresh_id};
use crate::ask::{Conversation, answers};
use crate::chat::{self, Chat, Prompt};
use crate::error::{ApiError, ApiResult};
use crate::http::body::typed;
use crate::options::{Options, TOP_MAX, Thinking, whole};
use crate::respond::{Job, Run};
use crate::routes::{Asked, blocking};
use crate::tools;

/// A conversation to answer.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct ChatBody {
    /// Any name is answered by the one model, unless the server was started with `--strict-model`.
    pub(crate) model: Option<String>,
    messages: Vec<ChatMessage>,
    pub(crate) stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    /// How many answers.
    #[serde(default, deserialize_with = "whole")]
    n: Option<i64>,
    logprobs: Option<bool>,
    #[serde(default, deserialize_with = "whole")]
    top_logprobs: Option<i64>,
    /// Thoughts included; -1 is no limit.
    #[serde(default, deserialize_with = "whole")]
    max_tokens: Option<i64>,
    /// As `max_tokens`.
    #[serde(default, deserialize_with = "whole")]
    max_completion_tokens: Option<i64>,
    /// As `max_tokens`.
    #[serde(default, deserialize_with = "whole")]
    n_predict: Option<i64>,
    #[schema(value_type = Option<Object>)]
    response_format: Option<Value>,
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<Vec<Value>>,
    /// `auto`, `none`, `required`, or an object that names a function.
    #[schema(value_type = Option<Object>)]
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    /// The last message is the beginning of the answer.
    continue_final_message: Option<bool>,
    add_generation_prompt: Option<bool>,
    /// Add what was computed, as `__verbose`.
    verbose: Option<bool>,
}

/// A message.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct ChatMessage {
    role: String,
    /// A text, or parts of type `text`.
    #[schema(value_type = Option<Object>)]
    content: Option<Value>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    thinking: Option<String>,
    tool_calls: Option<Vec<CallBody>>,
    tool_call_id: Option<String>,
    name: Option<String>,
}

/// A tool call in a message.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct CallBody {
    id: Option<String>,
    function: FunctionBody,
}

/// The function of a tool call.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct FunctionBody {
    name: String,
    /// JSON text; an object is accepted.
    #[schema(value_type = Option<Object>)]
    arguments: Option<Value>,
}

/// What to add to a stream.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct StreamOptions {
    /// One more chunk, with the usage.
    pub(crate) include_usage: Option<bool>,
}

/// All that a chat request asks for; only for the document.
#[derive(ToSchema)]
#[expect(dead_code)]
pub(crate) struct ChatRequest {
    #[schema(inline = false)]
    #[serde(flatten)]
    body: ChatBody,
    #[serde(flatten)]
    options: Options,
    #[serde(flatten)]
    thinking: Thinking,
}

/// A request, read and checked.
pub(crate) struct Parsed {
    pub(crate) body: ChatBody,
    pub(crate) options: Options,
    pub(crate) thinking: Thinking,
    pub(crate) chat: Chat,
}

/// Reads a chat request.
///
/// # Errors
/// 400 that names the field.
pub(crate) fn parse(object: &Map<String, Value>) -> ApiResult<Parsed> {
    let body: ChatBody = typed(object)?;
    let (options, thinking): (Options, Thinking) = (typed(object)?, typed(object)?);
    let generation = body.add_generation_prompt;
    if generation == Some(true) && body.continue_final_message == Some(true) {
        let message = "`add_generation_prompt` and `continue_final_message` exclude each other";
        return Err(ApiError::field("continue_final_message", message));
    }
    let tools = body.tools.iter().flatten().enumerate();
    let chat = Chat {
        messages: body.messages.iter().map(message).collect::<ApiResult<_>>()?,
        tools: tools.map(|(i, tool)| chat::tool(tool, i)).collect::<ApiResult<_>>()?,
        choice: chat::tool_choice(body.tool_choice.as_ref())?,
        parallel: body.parallel_tool_calls.unwrap_or(true),
        think: thinking.think()?,
        continue_final: body.continue_final_message.unwrap_or(false),
        add_generation_prompt: generation.unwrap_or(true),
        kwargs: kwargs(&thinking)?,
    };
    chat.check()?;
    Ok(Parsed { body, options, thinking, chat })
}

/// Variables for the template.
pub(crate) fn kwargs(thinking: &Thinking) -> ApiResult<Map<String, Value>> {
    match &thinking.chat_template_kwargs {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map.clone()),
        Some(_) => {
            let message = "`chat_template_kwargs` must be an object";
            Err(ApiError::field("chat_template_kwargs", message))
        }
    }
}

fn message(given: &ChatMessage) -> ApiResult<Message> {
    // OpenAI's newer name.
    let role = if given.role == "developer" { "system" } else { &given.role };
    if !["system", "user", "assistant", "tool", "function"].contains(&role) {
        return Err(ApiError::field("messages", format!("the role `{role}` is not known")));
    }
    let content = given.content.as_ref().unwrap_or(&Value::Null);
    let calls = given.tool_calls.iter().flatten().map(|call| ToolCall {
        id: call.id.clone(),
        name: call.function.name.clone(),
        arguments: match &call.function.arguments {
            None | Some(Value::Null) => "{}".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(arguments) => arguments.to_string(),
        },
    });
    let content = chat::text(content, "messages.content")?;
    if content.is_none() && role != "assistant" {
        let message = format!("a message of the role `{role}` needs `content`");
        return Err(ApiError::field("messages", message));
    }
    let thoughts = [&given.reasoning_content, &given.reasoning, &given.thinking];
    Ok(Message {
        role: if role == "function" { "tool" } else { role }.to_owned(),
        content,
        reasoning: thoughts.into_iter().find_map(Clone::clone),
        tool_calls: calls.collect(),
        name: given.name.clone(),
        tool_call_id: given.tool_call_id.clone(),
    })
}

impl Parsed {
    /// The most tokens to generate.
    fn max_tokens(&self) -> Option<i64> {
        let body = &self.body;
        body.max_completion_tokens.or(body.max_tokens).or(body.n_predict)
    }

    /// How many alternatives are reported, if log probabilities are.
    fn logprobs(&self) -> ApiResult<Option<usize>> {
        let top = self.body.top_logprobs.or(self.options.n_probs);
        let wanted =
            self.body.logprobs == Some(true) || self.options.n_probs.is_some_and(|n| n > 0);
        if self.body.top_logprobs.is_some_and(|top| top > 0) && self.body.logprobs != Some(true) {
            let message = "`top_logprobs` needs `logprobs: true`";
            return Err(ApiError::field("top_logprobs", message));
        }
        match usize::try_from(top.unwrap_or(0)) {
            _ if !wanted => Ok(None),
            Ok(top) if top <= TOP_MAX => Ok(Some(top)),
            _ => {
                let message = format!("`top_logprobs` must be from 0 to {TOP_MAX}");
                Err(ApiError::field("top_logprobs", message))
            }
        }
    }

    pub(crate) fn answers(&self) -> ApiResult<usize> {
        answers(self.body.n)
    }

    /// The engine's request.
    pub(crate) fn request(&self, app: &App, served: &Served, prompt: Prompt) -> ApiResult<Request> {
        let thought = match self.thinking.reasoning_format.as_deref() {
            Some("none") => ThoughtState::Ignored,
            _ => prompt.thought,
        };
        let asked = Conversation {
            chat: &self.chat,
            options: &self.options,
            thinking: &self.thinking,
            max_tokens: self.max_tokens(),
            format: self.body.response_format.as_ref(),
            logprobs: self.logprobs()?,
        };
        asked.request(app, served, Prompt { thought, ..prompt })
    }
}

/// Answers a conversation.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "OpenAI",
    request_body = ChatRequest,
    responses(
        (status = 200, description = "The answer, or with `stream` a stream of chunks",
         content((super::chat_stream::ChatCompletion = "application/json"),
                 (super::chat_stream::ChatChunk = "text/event-stream"))),
        crate::openapi::Errors,
    )
)]
pub(crate) async fn completions(State(app): State<Arc<App>>, asked: Asked) -> ApiResult<Response> {
    let served = app.model()?;
    let parsed = parse(&asked.object)?;
    crate::routes::check_model(&app, &served, parsed.body.model.as_deref())?;
    let (app_of, served_of) = (Arc::clone(&app), Arc::clone(&served));
    let (parsed, (text, opened), request) = blocking(move || {
        let prompt = parsed.chat.prompt(&served_of)?;
        let (text, opened) = (prompt.text.clone(), prompt.thought == ThoughtState::Open);
        let request = parsed.request(&app_of, &served_of, prompt)?;
        Ok((parsed, (text, opened), request))
    })
    .await?;
    let id = fresh_id("chatcmpl-");
    let body = &parsed.body;
    let extras = Extras {
        include_usage: body.stream_options.as_ref().is_some_and(|o| o.include_usage == Some(true)),
        timings_per_token: parsed.options.timings_per_token == Some(true),
        return_progress: parsed.options.return_progress == Some(true),
        logprobs: request.logprobs.is_some(),
        opened: request.thought == ThoughtState::Ignored && opened,
        verbose: (body.verbose == Some(true) || app.config.verbose).then_some(text),
    };
    let n = parsed.answers()?;
    let calls = tools::parser(&parsed.chat, &served);
    let dialect = ChatStream::new(id.clone(), app.model_id(&served), n, extras);
    let job = Job { slot: parsed.options.slot(), ..Job::new(id, &request, n, calls) };
    let run = Run::submit(&app, &served, job, asked.context.caller)?;
    run.respond(&app, dialect, body.stream == Some(true), &asked.context).await
}

/// Tokens of a conversation, without an answer.
#[utoipa::path(
    post, path = "/v1/chat/completions/input_tokens", tag = "llama-server",
    request_body = ChatRequest,
    responses((status = 200, description = "Tokens of the prompt", body = InputTokens), crate::openapi::Errors)
)]
pub(crate) async fn input_tokens(State(app): State<Arc<App>>, asked: Asked) -> ApiResult<Response> {
    let served = app.model()?;
    let parsed = parse(&asked.object)?;
    let prompt = blocking(move || parsed.chat.prompt(&served)).await?;
    Ok(axum::Json(json!({ "input_tokens": prompt.tokens.len() })).into_response())
}

/// A number of tokens.
#[derive(serde::Serialize, ToSchema)]
pub(crate) struct InputTokens {
    pub(crate) input_tokens: usize,
}

/// The prompt of a conversation, as text.
#[utoipa::path(
    post, path = "/apply-template", tag = "llama-server",
    request_body = ChatRequest,
    responses((status = 200, description = "The prompt", body = Object), crate::openapi::Errors)
)]
pub(crate) async fn apply_template(
    State(app): State<Arc<App>>,
    asked: Asked,
) -> ApiResult<Response> {
    let served = app.model()?;
    let parsed = parse(&asked.object)?;
    let prompt = blocking(move || parsed.chat.prompt(&served)).await?;
    Ok(axum::Json(json!({ "prompt": prompt.text })).into_response())
}

/// Ends the thought of an answer that runs.
#[utoipa::path(
    post, path = "/v1/chat/completions/control", tag = "llama-server",
    request_body = Control,
    responses((status = 200, description = "Whether it was thinking", body = Object), crate::openapi::Errors)
)]
pub(crate) async fn control(State(app): State<Arc<App>>, asked: Asked) -> ApiResult<Response> {
    let served = app.ready()?;
    let control: Control = typed(&asked.object)?;
    if control.action != "reasoning_end" {
        return Err(ApiError::field("action", "`action` must be reasoning_end"));
    }
    let Some(running) = app.running().get(&control.id).cloned() else {
        return Err(ApiError::not_found("no answer of this id is running"));
    };
    let ended = running.ids.into_iter().filter(|id| served.handle.end_thinking(*id)).count() > 0;
    Ok(axum::Json(json!({ "success": ended })).into_response())
}

/// What to do with an answer that runs.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Control {
    /// The id of the answer.
    id: String,
    /// `reasoning_end`
    action: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(body: &Value) -> ApiResult<Parsed> {
        parse(body.as_object().unwrap())
    }

    #[test]
    fn history_may_come_as_clients_keep_it() {
        let body = json!({ "messages": [
            { "role": "developer", "content": "s" },
            { "role": "user", "content": [{ "type": "text", "text": "u" }] },
            { "role": "assistant", "reasoning_content": "r",
              "tool_calls": [{ "id": "c", "type": "function",
                               "function": { "name": "f", "arguments": { "a": 1 } } }] },
            { "role": "tool", "tool_call_id": "c", "content": "t" },
        ] });
        let messages = parsed(&body).unwrap().chat.messages;
        assert_eq!(messages[0].role, "system");
        assert_eq!(messages[2].content, None);
        assert_eq!(messages[2].reasoning.as_deref(), Some("r"));
        assert_eq!(messages[2].tool_calls[0].arguments, "{\"a\":1}");
        assert_eq!(messages[3].tool_call_id.as_deref(), Some("c"));
    }

    #[test]
    fn wrong_requests_are_refused_with_their_field() {
        let user = json!([{ "role": "user", "content": "x" }]);
        for (body, param) in [
            (json!({}), "."),
            (json!({ "messages": "string" }), "messages"),
            (json!({ "messages": [123] }), "messages[0]"),
            (json!({ "messages": [{}] }), "messages[0]"),
            (json!({ "messages": [{ "role": 123 }] }), "messages[0].role"),
            (json!({ "messages": [{ "role": "system", "content": 123 }] }), "messages.content"),
            (json!({ "messages": [{ "role": "user" }] }), "messages"),
            (json!({ "messages": [{ "role": "wizard", "content": "x" }] }), "messages"),
            (json!({ "messages": [] }), "messages"),
            (json!({ "messages": user, "temperature": "hot" }), "temperature"),
            (json!({ "messages": user, "tools": [1] }), "tools"),
            (json!({ "messages": user, "tool_choice": "maybe" }), "tool_choice"),
            (json!({ "messages": user, "tool_choice": "required" }), "tool_choice"),
            (json!({ "messages": user, "chat_template_kwargs": 3 }), "chat_template_kwargs"),
        ] {
            let Err(error) = parsed(&body) else { panic!("{body}") };
            assert_eq!(error.status, 400, "{body}");
            assert_eq!(error.param.as_deref().unwrap_or("."), param, "{body}: {}", error.message);
        }
    }

    #[test]
    fn numbers_of_answers_and_alternatives_are_bounded() {
        let with = |key: &str, value: Value| {
            let mut body = json!({ "messages": [{ "role": "user", "content": "x" }] });
            body[key] = value;
            parsed(&body).unwrap()
        };
        assert!(with("n", json!(0)).answers().is_err() && with("n", json!(17)).answers().is_err());
        assert_eq!(with("n", json!(null)).answers().unwrap(), 1);
        assert!(with("top_logprobs", json!(5)).logprobs().is_err(), "it needs logprobs");
        assert_eq!(with("logprobs", json!(true)).logprobs().unwrap(), Some(0));
        assert_eq!(with("n_probs", json!(3)).logprobs().unwrap(), Some(3));
        assert_eq!(with("max_tokens", json!(-1)).max_tokens(), Some(-1));
        assert_eq!(with("max_completion_tokens", json!(7)).max_tokens(), Some(7));
    }
}
