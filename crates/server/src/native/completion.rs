//! `/completion`: a raw prompt, continued.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use cachalot_engine::Request;
use cachalot_text::Vocab;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::completion_stream::{CompletionStream, Wanted};
use crate::app::{App, Served, fresh_id};
use crate::ask::{Continuation, Requests};
use crate::error::{ApiError, ApiResult};
use crate::http::body::typed;
use crate::options::{Options, TOP_MAX, whole};
use crate::respond::{Job, Run};
use crate::routes::{Asked, blocking};

/// A prompt to continue.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct CompletionBody {
    /// A text, tokens, both mixed, or a list of prompts.
    #[schema(value_type = Object)]
    prompt: Option<Value>,
    #[serde(default, deserialize_with = "whole")]
    n_predict: Option<i64>,
    #[serde(default, deserialize_with = "whole")]
    max_tokens: Option<i64>,
    #[serde(default, deserialize_with = "whole")]
    n: Option<i64>,
    /// As `n`.
    #[serde(default, deserialize_with = "whole")]
    n_cmpl: Option<i64>,
    stream: Option<bool>,
    return_tokens: Option<bool>,
    /// Only these fields; `a/b` is a field in a field.
    response_fields: Option<Vec<String>>,
    #[schema(value_type = Option<Object>)]
    response_format: Option<Value>,
    post_sampling_probs: Option<bool>,
}

/// All that a completion asks for; only for the document.
#[derive(ToSchema)]
#[expect(dead_code)]
pub(crate) struct CompletionRequest {
    #[serde(flatten)]
    body: CompletionBody,
    #[serde(flatten)]
    options: Options,
}

/// Continues prompts.
#[utoipa::path(
    post, path = "/completion", tag = "llama-server", request_body = CompletionRequest,
    responses(
        (status = 200, description = "The text, or with `stream` events; a list for several prompts",
         content((Object = "application/json"), (Object = "text/event-stream"))),
        crate::openapi::Errors,
    )
)]
pub(crate) async fn completion(State(app): State<Arc<App>>, asked: Asked) -> ApiResult<Response> {
    let served = app.model()?;
    let body: CompletionBody = typed(&asked.object)?;
    let options: Options = typed(&asked.object)?;
    let wanted = Wanted {
        tokens: body.return_tokens == Some(true),
        probs: options.n_probs.is_some_and(|n| n > 0),
        post_sampling: body.post_sampling_probs == Some(true),
        progress: options.return_progress == Some(true),
        timings: options.timings_per_token == Some(true),
        fields: body.response_fields.clone().unwrap_or_default(),
        single: true,
    };
    let (stream, slot) = (body.stream == Some(true), options.slot());
    let (app_of, served_of) = (Arc::clone(&app), Arc::clone(&served));
    let prepared = blocking(move || prepare(&app_of, &served_of, &body, &options)).await?;
    let wanted = Wanted { single: prepared.single, ..wanted };
    let vocab = &served.info().vocab;
    let prompts = prepared.requests.iter().map(|request| vocab.decode(&request.prompt)).collect();
    let settings = prepared.requests.first().map(|request| settings(request, vocab));
    let settings = settings.unwrap_or_default();
    let dialect = CompletionStream::new(app.model_id(&served), prompts, settings, wanted);
    let job = Job { id: fresh_id("cmpl-"), requests: prepared.requests, calls: None, slot };
    let run = Run::submit(&app, &served, job, asked.context.caller)?;
    run.respond(&app, dialect, stream, &asked.context).await
}

fn prepare(
    app: &App,
    served: &Served,
    body: &CompletionBody,
    options: &Options,
) -> ApiResult<Requests> {
    let asked = Continuation {
        prompt: body.prompt.as_ref(),
        options,
        max_tokens: body.n_predict.or(body.max_tokens),
        format: body.response_format.as_ref(),
        logprobs: probs(options.n_probs)?,
        n: body.n.or(body.n_cmpl),
    };
    asked.requests(app, served)
}

/// `n_probs`: this many of the most likely tokens.
pub(crate) fn probs(n: Option<i64>) -> ApiResult<Option<usize>> {
    match usize::try_from(n.unwrap_or(0)) {
        Ok(0) => Ok(None),
        Ok(n) if n <= TOP_MAX => Ok(Some(n)),
        _ => Err(ApiError::field("n_probs", format!("`n_probs` must be from 0 to {TOP_MAX}"))),
    }
}

/// `generation_settings`, under llama-server's names.
fn settings(request: &Request, vocab: &Vocab) -> Map<String, Value> {
    let sampling = &request.sampling;
    let max = request.max_tokens.map_or(-1, |max| i64::try_from(max).unwrap_or(i64::MAX));
    let seed = request.seed.map_or(json!(-1), Value::from);
    // Null is minus infinity.
    let bias = |(token, bias): (u32, f32)| json!({ "token": token, "bias": bias.is_finite().then_some(bias) });
    let ends = (0..vocab.len() as u32).filter(|id| request.ignore_eos && vocab.is_end(*id));
    let ends = ends.map(|id| (id, f32::NEG_INFINITY));
    let biases: Vec<Value> = request.logit_bias.iter().copied().chain(ends).map(bias).collect();
    let settings = json!({
        "n_predict": max, "max_tokens": max, "seed": seed,
        "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k,
        "min_p": sampling.min_p, "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repeat_last_n": sampling.repeat_last_n, "stop": request.stop,
        "ignore_eos": request.ignore_eos, "logit_bias": biases, "n_probs": request.logprobs.unwrap_or(0),
        "adaptive_target": -1.0, "adaptive_decay": 0.0,
    });
    settings.as_object().cloned().unwrap_or_default()
}
