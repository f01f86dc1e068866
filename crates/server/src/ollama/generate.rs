//! `/api/generate`: one prompt, in the chat template or raw.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cachalot_engine::request::ThoughtState;
use cachalot_text::Message;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::options;
use super::stream::{Kind, OllamaStream, nothing};
use crate::app::{App, Served, fresh_id};
use crate::chat::{Chat, Prompt};
use crate::error::{ApiError, ApiResult};
use crate::http::body::typed;
use crate::options::whole;
use crate::respond::{Job, Run};
use crate::routes::{Asked, blocking};

/// A prompt to answer.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct OllamaGenerate {
    model: Option<String>,
    prompt: Option<String>,
    suffix: Option<String>,
    system: Option<String>,
    /// Refused: the template is the model's.
    template: Option<String>,
    /// Tokens of an earlier answer; ignored, since prefixes are found by their content.
    #[schema(value_type = Option<Vec<u32>>)]
    #[expect(dead_code)]
    context: Option<Value>,
    /// True by default.
    stream: Option<bool>,
    /// The prompt is continued as it is.
    raw: Option<bool>,
    #[schema(value_type = Option<Object>)]
    format: Option<Value>,
    #[schema(value_type = Option<Vec<Object>>)]
    images: Option<Vec<Value>>,
    #[schema(value_type = Option<Object>)]
    options: Option<Value>,
    #[schema(value_type = Option<Object>)]
    think: Option<Value>,
    #[schema(value_type = Option<Object>)]
    keep_alive: Option<Value>,
    logprobs: Option<bool>,
    #[serde(default, deserialize_with = "whole")]
    top_logprobs: Option<i64>,
}

impl OllamaGenerate {
    fn check(&self) -> ApiResult<()> {
        let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        if given(&self.template) {
            let message = "`template` is not supported: --chat-template FILE replaces the model's";
            return Err(ApiError::field("template", message));
        }
        if given(&self.suffix) {
            let message = "this model does not support insert: `suffix` cannot be used";
            return Err(ApiError::field("suffix", message));
        }
        if self.images.as_ref().is_some_and(|images| !images.is_empty()) {
            let message = "this model reads text only: images are not supported";
            return Err(ApiError::field("images", message));
        }
        Ok(())
    }

    fn prompt(&self, served: &Served) -> ApiResult<Prompt> {
        let text = self.prompt.clone().unwrap_or_default();
        if self.raw == Some(true) {
            let tokens = served.info().vocab.encode_prompt(&text);
            let tokens = tokens.map_err(|error| ApiError::field("prompt", error.to_string()))?;
            return Ok(Prompt { tokens, text, thought: ThoughtState::Ignored });
        }
        let system = self.system.iter().filter(|text| !text.is_empty());
        let system = system.map(|text| Message::new("system", text));
        let chat = Chat {
            messages: system.chain([Message::new("user", &text)]).collect(),
            think: options::think(self.think.as_ref())?,
            add_generation_prompt: true,
            ..Chat::default()
        };
        chat.prompt(served)
    }
}

/// Answers a prompt.
#[utoipa::path(
    post, path = "/api/generate", tag = "Ollama", request_body = OllamaGenerate,
    responses(
        (status = 200, description = "Lines of JSON, or with `stream: false` one object",
         content((Object = "application/x-ndjson"), (Object = "application/json"))),
        crate::openapi::OllamaErrors,
    )
)]
pub(crate) async fn generate(State(app): State<Arc<App>>, asked: Asked) -> ApiResult<Response> {
    let body: OllamaGenerate = typed(&asked.object)?;
    let served = options::served(&app, body.model.as_deref())?;
    body.check()?;
    if body.prompt.as_deref().unwrap_or_default().is_empty() {
        let unloads = options::unloads(body.keep_alive.as_ref());
        let answer = nothing(Kind::Generate, app.model_id(&served), unloads);
        return Ok(axum::Json(answer).into_response());
    }
    let stream = body.stream.unwrap_or(true);
    let (app_of, served_of) = (Arc::clone(&app), Arc::clone(&served));
    let request = blocking(move || {
        let prompt = body.prompt(&served_of)?;
        let mut request = options::request(&app_of, &served_of, body.options.as_ref())?;
        request.constraint = options::format(body.format.as_ref())?;
        request.logprobs = options::logprobs(body.logprobs, body.top_logprobs)?;
        request.prompt = prompt.tokens;
        request.thought = prompt.thought;
        Ok(request)
    })
    .await?;
    let dialect =
        OllamaStream::new(Kind::Generate, app.model_id(&served), request.logprobs.is_some());
    let job = Job::new(fresh_id("gen-"), &request, 1, None);
    let run = Run::submit(&app, &served, job, asked.context.caller)?;
    run.respond(&app, dialect, stream, &asked.context).await
}
