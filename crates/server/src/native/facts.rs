//! What tells about the server: `/health`, `/props`, `/metrics`; streams that are read again;
//! stopping.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use crate::app::{App, unix};
use crate::error::{ApiError, ApiResult};
use crate::metrics;
use crate::routes::Asked;

/// Whether requests are answered: 503 with the progress while the model is loaded.
#[utoipa::path(
    get, path = "/health", tag = "llama-server",
    responses((status = 200, description = "`{\"status\": \"ok\"}`", body = Object),
              (status = 503, description = "Loading, or shutting down", body = crate::openapi::ErrorBody))
)]
pub(crate) async fn health(State(app): State<Arc<App>>) -> ApiResult<Response> {
    app.model()?;
    Ok(axum::Json(json!({ "status": "ok" })).into_response())
}

/// What the server has and does by default.
#[utoipa::path(
    get, path = "/props", tag = "llama-server",
    responses((status = 200, description = "Properties", body = Object), crate::openapi::Errors)
)]
pub(crate) async fn props(State(app): State<Arc<App>>) -> ApiResult<Response> {
    let served = app.ready()?;
    let info = served.info();
    let mut params = serde_json::Map::new();
    let mut sampling = info.recommended.clone();
    for (name, value) in &app.defaults().sampling {
        let _ = sampling.set(name, *value); // checked when the server started
    }
    for parameter in &cachalot_engine::request::PARAMETERS {
        let value = parameter.get(&sampling).parse::<f64>().unwrap_or_default();
        params.insert(parameter.name.to_owned(), json!(value));
    }
    params.insert("n_predict".to_owned(), json!(-1));
    params.insert("seed".to_owned(), json!(app.config.defaults.seed.unwrap_or(-1)));
    let vocab = &info.vocab;
    let status = served.handle.status();
    Ok(axum::Json(json!({
        "default_generation_settings": {
            "id": 0, "n_ctx": info.context.tokens, "params": params, "speculative": false,
            "is_processing": false,
        },
        "total_slots": status.limits.parallel,
        "model_alias": app.model_id(&served),
        "model_path": served.facts.path,
        "model_ftype": served.facts.quantization,
        "modalities": { "vision": false, "audio": false, "video": false },
        "chat_template": app.config.template.as_deref().or(vocab.chat_template()).unwrap_or_default(),
        "chat_template_caps": { "supports_tools": true, "supports_tool_calls": true,
                                "supports_system_role": true },
        "bos_token": vocab.token_text(vocab.bos()),
        "eos_token": vocab.token_text(vocab.eos()),
        "n_ctx_train": info.context.model,
        "build_info": format!("cachalot {}", app.config.version),
        "is_sleeping": false,
    }))
    .into_response())
}

/// Changes the defaults of sampling, until the server ends: those in the body, or in its
/// `default_generation_settings.params`. Only with `--props`.
#[utoipa::path(
    post, path = "/props", tag = "llama-server", request_body = Object,
    responses((status = 200, description = "They apply from the next request on", body = Object),
              crate::openapi::Errors)
)]
pub(crate) async fn set_props(State(app): State<Arc<App>>, asked: Asked) -> ApiResult<Response> {
    if !app.config.set_props {
        let message = "properties are changed only if the server was started with --props";
        return Err(ApiError::unsupported(message));
    }
    let served = app.model()?;
    let nested = asked.object.get("default_generation_settings");
    let nested = nested.and_then(|settings| settings.get("params")?.as_object());
    let mut checked = Vec::new();
    let mut sampling = served.info().recommended.clone();
    for (name, value) in nested.unwrap_or(&asked.object) {
        let known = cachalot_engine::request::PARAMETERS.iter().find(|known| known.name == name);
        let Some(known) = known else {
            let message = format!("`{name}` is not a sampling default that can be changed");
            return Err(ApiError::field(name, message));
        };
        let wrong = || ApiError::field(name, format!("`{name}` must be a number"));
        let value = value.as_f64().ok_or_else(wrong)?;
        let set = sampling.set(known.name, value);
        set.map_err(|error| ApiError::field(name, error.to_string()))?;
        checked.push((known.name, value));
    }
    // All of them, or none.
    checked.into_iter().for_each(|(name, value)| app.set_default(name, value));
    Ok(axum::Json(json!({ "success": true })).into_response())
}

/// Endpoints of llama-server that this one does not have.
pub(crate) async fn unsupported() -> ApiError {
    ApiError::unsupported("this server does not support it: it serves one model that writes text")
}

/// Counters and gauges for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "llama-server",
    responses((status = 200, description = "Prometheus' text format", body = String,
               content_type = "text/plain"), crate::openapi::Errors)
)]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> ApiResult<Response> {
    if !app.config.metrics {
        return Err(ApiError::unsupported("the server was started with --no-metrics"));
    }
    let served = app.ready()?;
    let headers = [
        (header::CONTENT_TYPE.as_str(), "text/plain; version=0.0.4".to_owned()),
        ("process-start-time-unix", unix(app.started).to_string()),
    ];
    Ok((headers, metrics::page(&app, &served)).into_response())
}

/// Which stream, and from which byte on.
#[derive(Debug, Deserialize)]
pub(crate) struct Which {
    id: Option<String>,
    conv_id: Option<String>,
    from: Option<usize>,
}

impl Which {
    fn name(&self) -> ApiResult<&str> {
        let name = self.id.as_deref().or(self.conv_id.as_deref());
        name.ok_or_else(|| ApiError::field("id", "`id` names the stream (header X-Stream-Id)"))
    }
}

/// Reads a stream again, from byte `from` on.
#[utoipa::path(
    get, path = "/v1/stream", tag = "llama-server",
    params(("id" = Option<String>, Query, description = "The name in `X-Stream-Id`"),
           ("conv_id" = Option<String>, Query, description = "As `id`"),
           ("from" = Option<u64>, Query, description = "Bytes to skip")),
    responses((status = 200, description = "The rest of the stream", body = String,
               content_type = "text/event-stream"), crate::openapi::Errors)
)]
pub(crate) async fn stream(
    State(app): State<Arc<App>>,
    which: Result<Query<Which>, axum::extract::rejection::QueryRejection>,
) -> ApiResult<Response> {
    let Query(which) = which.map_err(|error| ApiError::invalid(error.body_text()))?;
    app.streams.read(which.name()?, which.from.unwrap_or(0))
}

/// Ends a stream and forgets it.
#[utoipa::path(
    delete, path = "/v1/stream", tag = "llama-server",
    params(("id" = Option<String>, Query, description = "The name in `X-Stream-Id`"),
           ("conv_id" = Option<String>, Query, description = "As `id`")),
    responses((status = 204, description = "It has ended"), crate::openapi::Errors)
)]
pub(crate) async fn stop_stream(
    State(app): State<Arc<App>>,
    which: Result<Query<Which>, axum::extract::rejection::QueryRejection>,
) -> ApiResult<StatusCode> {
    let Query(which) = which.map_err(|error| ApiError::invalid(error.body_text()))?;
    app.streams.stop(which.name()?)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Shuts the server down, as SIGTERM does: answers in flight finish. From this machine only, unless
/// keys protect it.
#[utoipa::path(
    post, path = "/api/cachalot/stop", tag = "cachalot",
    responses((status = 200, description = "It is shutting down", body = Object), crate::openapi::Errors)
)]
pub(crate) async fn shut_down(State(app): State<Arc<App>>) -> ApiResult<Response> {
    if app.config.keys.is_empty() && !app.config.loopback {
        let message = "stopping over the network needs a key";
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    app.stop();
    Ok(axum::Json(json!({ "status": "stopping" })).into_response())
}
