//! What Ollama's clients do with the models of this machine: list, pull, copy and delete them.

use std::sync::Arc;
use std::thread;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use utoipa::ToSchema;

use super::options::unknown;
use super::show::{OllamaName, entry, rfc3339, size_word};
use crate::app::App;
use crate::error::{ApiError, ApiResult, Family};
use crate::http::body::typed;
use crate::models::{Arriving, Models, Refusal, Stored};
use crate::respond::{NDJSON, line};
use crate::routes::{Asked, blocking};

/// Lines that may wait for a slow client; further ones about progress are left out.
const LINES: usize = 64;

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound(message) => Self::not_found(message),
            Refusal::Invalid(message) => Self::invalid(message),
            Refusal::Failed(message) => Self::new(StatusCode::BAD_GATEWAY, message),
        }
    }
}

fn models(app: &App) -> ApiResult<Arc<dyn Models>> {
    let none = || ApiError::unsupported("this server has no place for models");
    app.config.models.clone().ok_or_else(none)
}

/// A name that must be given.
fn required(field: &str, name: Option<String>) -> ApiResult<String> {
    let name = name.filter(|name| !name.is_empty());
    name.ok_or_else(|| ApiError::field(field, format!("{field} is required")))
}

/// The name in `model`, or in `name` as older clients send it.
fn named(body: OllamaName) -> ApiResult<String> {
    required("model", body.model.filter(|name| !name.is_empty()).or(body.name))
}

/// The model that is served, and all others that are here.
#[utoipa::path(
    get, path = "/api/tags", tag = "Ollama",
    responses((status = 200, description = "Models, the served one first", body = Object),
              crate::openapi::OllamaErrors)
)]
pub(crate) async fn tags(State(app): State<Arc<App>>) -> ApiResult<Response> {
    let served = app.ready()?;
    let mut entries = vec![Value::Object(entry(&app, &served))];
    if let Some(models) = app.config.models.clone() {
        // What is served is listed without a library, too.
        let stored = blocking(move || Ok(models.list().unwrap_or_default())).await?;
        let others = stored.iter().filter(|stored| !app.is_name(&served, &stored.name));
        entries.extend(others.map(stored_entry));
    }
    Ok(axum::Json(json!({ "models": entries })).into_response())
}

fn stored_entry(stored: &Stored) -> Value {
    json!({
        "name": stored.name, "model": stored.name, "modified_at": rfc3339(stored.modified),
        "size": stored.bytes, "digest": stored.digest,
        "details": {
            "parent_model": "", "format": "gguf", "family": stored.architecture,
            "families": [stored.architecture], "parameter_size": size_word(stored.parameters),
            "quantization_level": stored.quantization,
        },
    })
}

/// What to download.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct OllamaPull {
    model: Option<String>,
    /// As `model`.
    name: Option<String>,
    /// Plain http is allowed beyond this machine.
    insecure: Option<bool>,
    /// True by default.
    stream: Option<bool>,
}

/// Downloads a model into the library. It goes on as long as the client reads; what has arrived is
/// kept, and the same request continues.
#[utoipa::path(
    post, path = "/api/pull", tag = "Ollama", request_body = OllamaPull,
    responses(
        (status = 200, description = "Lines of JSON, or with `stream: false` one object",
         content((Object = "application/x-ndjson"), (Object = "application/json"))),
        (status = 501, description = "There is no place for models", body = crate::openapi::OllamaError),
        (status = 502, description = "It does not arrive", body = crate::openapi::OllamaError),
        crate::openapi::OllamaErrors,
    )
)]
pub(crate) async fn pull(State(app): State<Arc<App>>, asked: Asked) -> ApiResult<Response> {
    let body: OllamaPull = typed(&asked.object)?;
    let name = required("model", body.model.filter(|name| !name.is_empty()).or(body.name))?;
    let models = models(&app)?;
    let (sender, mut lines) = channel(LINES);
    let insecure = body.insecure == Some(true);
    // Not one of the runtime's threads: its end would wait for the service that is asked.
    let pulling = thread::Builder::new().name("pull".to_owned()).spawn(move || {
        let result = send_lines(&*models, &name, insecure, &app, &sender);
        let last = result.map(|()| json!({ "status": "success" })).map_err(ApiError::from);
        let _ = sender.blocking_send(last); // the client may have gone
    });
    pulling.map_err(|error| ApiError::unavailable(error.to_string()))?;
    if body.stream == Some(false) {
        let mut last = Err(ApiError::unavailable("the download ended without a word"));
        while let Some(line) = lines.recv().await {
            last = Ok(line?);
        }
        return Ok(axum::Json(last?).into_response());
    }
    Ok(([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(unfold(lines, next_line)))
        .into_response())
}

async fn next_line(
    mut lines: Receiver<ApiResult<Value>>,
) -> Option<(Result<Bytes, std::convert::Infallible>, Receiver<ApiResult<Value>>)> {
    let object = lines.recv().await?.unwrap_or_else(|error| error.body(Family::Ollama));
    let mut bytes = Vec::new();
    line(&mut bytes, &object);
    Some((Ok(bytes.into()), lines))
}

/// Pulls, and says so in Ollama's words, but for the last one.
fn send_lines(
    models: &dyn Models,
    name: &str,
    insecure: bool,
    app: &App,
    lines: &Sender<ApiResult<Value>>,
) -> Result<(), Refusal> {
    let status = |text: &str| {
        let _ = lines.blocking_send(Ok(json!({ "status": text })));
    };
    status("pulling manifest");
    let mut said: Vec<Arriving> = Vec::new();
    let mut verifying = false;
    models.pull(name, insecure, &mut |files| {
        if app.is_draining() || lines.is_closed() {
            return false;
        }
        for (index, file) in files.iter().enumerate() {
            if said.get(index) == Some(file) || file.done == 0 {
                continue;
            }
            match lines.try_send(Ok(progress(file))) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => return true,
                Err(TrySendError::Closed(_)) => return false,
            }
        }
        said = files.to_vec();
        if !verifying && files.iter().all(|file| file.done >= file.total) {
            verifying = true;
            status("verifying sha256 digest");
        }
        true
    })?;
    status("writing manifest");
    Ok(())
}

fn progress(file: &Arriving) -> Value {
    let hash = file.digest.strip_prefix("sha256:");
    let short = hash.and_then(|hash| hash.get(..12)).unwrap_or(&file.digest);
    json!({
        "status": format!("pulling {short}"), "digest": file.digest, "total": file.total,
        "completed": file.done,
    })
}

/// Two names.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct OllamaCopy {
    source: Option<String>,
    destination: Option<String>,
}

/// Gives a model another name. Nothing is copied.
#[utoipa::path(
    post, path = "/api/copy", tag = "Ollama", request_body = OllamaCopy,
    responses((status = 200, description = "Done"),
              (status = 501, description = "There is no place for models", body = crate::openapi::OllamaError),
              (status = 502, description = "It failed", body = crate::openapi::OllamaError),
              crate::openapi::OllamaErrors)
)]
pub(crate) async fn copy(State(app): State<Arc<App>>, asked: Asked) -> ApiResult<Response> {
    let body: OllamaCopy = typed(&asked.object)?;
    let source = required("source", body.source)?;
    let target = required("destination", body.destination)?;
    let models = models(&app)?;
    blocking(move || Ok(models.copy(&source, &target)?)).await?;
    Ok(StatusCode::OK.into_response())
}

/// Removes a model from the library, unless it is the one that is served.
#[utoipa::path(
    delete, path = "/api/delete", tag = "Ollama", request_body = OllamaName,
    responses((status = 200, description = "Done"),
              (status = 501, description = "There is no place for models", body = crate::openapi::OllamaError),
              (status = 502, description = "It failed", body = crate::openapi::OllamaError),
              crate::openapi::OllamaErrors)
)]
pub(crate) async fn delete(State(app): State<Arc<App>>, asked: Asked) -> ApiResult<Response> {
    let name = named(typed(&asked.object)?)?;
    if app.ready().is_ok_and(|served| app.is_name(&served, &name)) {
        let shown: String = name.chars().take(100).collect();
        let message = format!("the model '{shown}' is being served: stop this server first");
        return Err(ApiError::invalid(message));
    }
    let models = models(&app)?;
    let error = unknown(&name);
    let removed = blocking(move || Ok(models.remove(&name))).await?;
    match removed {
        Ok(()) => Ok(StatusCode::OK.into_response()),
        Err(Refusal::NotFound(_)) => Err(error),
        Err(refusal) => Err(refusal.into()),
    }
}
