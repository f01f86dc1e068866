//! Every path, what it needs, and what all requests pass through on their way.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post};
use serde_json::{Map, Value};
use tower_http::catch_panic::CatchPanicLayer;

use crate::app::{App, Served, fresh_id};
use crate::error::{ApiError, ApiResult};
use crate::http::auth::Caller;
use crate::http::{body, errors, log, origin, page};
use crate::respond::Context;
use crate::{anthropic, native, ollama, openai, openapi, status};

/// The whole API.
pub fn router(app: &Arc<App>) -> Router {
    Router::new()
        .merge(openai_routes())
        .merge(anthropic_routes())
        .merge(ollama_routes())
        .merge(native_routes())
        .fallback(page::serve)
        .layer(from_fn_with_state(Arc::clone(app), gate))
        .layer(CatchPanicLayer::new())
        .layer(from_fn(errors::in_shape))
        .layer(from_fn_with_state(Arc::clone(app), log::access))
        .with_state(Arc::clone(app))
}

fn openai_routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/chat/completions", post(openai::chat::completions))
        .route("/chat/completions", post(openai::chat::completions))
        .route("/v1/chat/completions/input_tokens", post(openai::chat::input_tokens))
        .route("/chat/completions/input_tokens", post(openai::chat::input_tokens))
        .route("/v1/chat/completions/control", post(openai::chat::control))
        .route("/v1/completions", post(openai::completions::completions))
        .route("/v1/models", get(openai::models::list))
        .route("/models", get(openai::models::list))
        .route("/v1/models/{*id}", get(openai::models::one))
        .route("/v1/embeddings", post(openai::models::embeddings))
        .route("/embeddings", post(openai::models::embeddings))
        .route("/embedding", post(openai::models::embeddings))
        .route("/v1/responses", post(openai::responses::responses))
        .route("/responses", post(openai::responses::responses))
        .route("/v1/responses/input_tokens", post(openai::responses::input_tokens))
        .route("/v1/responses/{id}", any(openai::responses::stored))
        .route("/v1/responses/{id}/{what}", any(openai::responses::stored))
}

fn anthropic_routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/messages", post(anthropic::messages))
        .route("/v1/messages/count_tokens", post(anthropic::count_tokens))
}

fn ollama_routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/generate", post(ollama::generate::generate))
        .route("/api/chat", post(ollama::chat::chat))
        .route("/api/tags", get(ollama::library::tags))
        .route("/api/ps", get(ollama::show::ps))
        .route("/api/show", post(ollama::show::show))
        .route("/api/version", get(ollama::show::version))
        .route("/api/embed", post(ollama::show::embed))
        .route("/api/embeddings", post(ollama::show::embed))
        .route("/api/create", post(ollama::show::create))
        .route("/api/push", post(ollama::show::push))
        .route("/api/pull", post(ollama::library::pull))
        .route("/api/copy", post(ollama::library::copy))
        .route("/api/delete", delete(ollama::library::delete))
        .route("/api/blobs/{digest}", any(ollama::show::blobs))
}

fn native_routes() -> Router<Arc<App>> {
    Router::new()
        .route("/health", get(native::facts::health))
        .route("/v1/health", get(native::facts::health))
        .route("/props", get(native::facts::props).post(native::facts::set_props))
        .route("/slots", get(native::slots::list))
        .route("/slots/{id}", post(native::slots::action))
        .route("/metrics", get(native::facts::metrics))
        .route("/completion", post(native::completion::completion))
        .route("/completions", post(native::completion::completion))
        .route("/tokenize", post(native::tokens::tokenize))
        .route("/detokenize", post(native::tokens::detokenize))
        .route("/apply-template", post(openai::chat::apply_template))
        .route("/v1/stream", get(native::facts::stream).delete(native::facts::stop_stream))
        .route("/api/cachalot/status", get(status::status))
        .route("/api/cachalot/stop", post(native::facts::shut_down))
        .route("/openapi.json", get(openapi::serve))
        .route("/lora-adapters", any(native::facts::unsupported))
        .route("/infill", any(native::facts::unsupported))
        .route("/rerank", any(native::facts::unsupported))
        .route("/reranking", any(native::facts::unsupported))
        .route("/v1/rerank", any(native::facts::unsupported))
        .route("/v1/reranking", any(native::facts::unsupported))
}

/// Bytes of all headers of a request.
const HEADERS_MAX: usize = 64 << 10;

/// Paths that need no key: what tells whether the server is there.
fn is_public(method: &Method, path: &str) -> bool {
    let reads = *method == Method::GET || *method == Method::HEAD;
    reads
        && (["/health", "/v1/health", "/api/version", "/openapi.json"].contains(&path)
            || page::is_asset(path))
}

/// Who may ask: the Host header, the origin, the key.
async fn gate(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let headers = request.headers().iter();
    if headers.map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>()
        > HEADERS_MAX
    {
        let message = format!("the headers have more than {HEADERS_MAX} bytes");
        return ApiError::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, message).into_response();
    }
    let checked = app.origins.check(request.headers());
    if method == Method::OPTIONS {
        let mut response = StatusCode::OK.into_response();
        if let Ok(Some(origin)) = checked {
            let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS);
            origin::preflight(asked, response.headers_mut());
            origin::allow(origin, response.headers_mut());
        }
        return response;
    }
    let origin = match checked {
        Ok(origin) => origin,
        Err(error) => return error.into_response(),
    };
    let caller = match is_public(&method, &path) {
        true => Ok(None),
        false => app.config.keys.admit(request.headers()),
    };
    let mut response = match caller {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            let mut response = next.run(request).await;
            if let Some(caller) = caller {
                let name = app.config.keys.name(caller).to_owned();
                response.extensions_mut().insert(log::KeyName(name));
            }
            response
        }
        Err(error) => error.into_response(),
    };
    if let Some(origin) = origin {
        // The layer outside writes errors anew; this is kept for it.
        response.extensions_mut().insert(errors::AllowOrigin(origin.clone()));
        origin::allow(origin, response.headers_mut());
    }
    response
}

/// The JSON object that a client sent, and what came with it.
pub(crate) struct Asked {
    pub(crate) object: Map<String, Value>,
    pub(crate) context: Context,
}

impl FromRequest<Arc<App>> for Asked {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> ApiResult<Self> {
        let caller = request.extensions().get::<Option<Caller>>().copied().flatten();
        let resume = resumable(request.headers())?;
        let bytes = body::read(request.into_body(), app.config.body_max).await?;
        Ok(Self { object: body::object(&bytes)?, context: Context { caller, resume } })
    }
}

/// The name under which a stream can be read again, if the request wants that.
fn resumable(headers: &HeaderMap) -> ApiResult<Option<String>> {
    if let Some(name) = headers.get("x-conversation-id") {
        return match name.to_str().ok().filter(|name| (1..=256).contains(&name.len())) {
            Some(name) => Ok(Some(name.to_owned())),
            None => {
                Err(ApiError::invalid("X-Conversation-Id must be 1 to 256 characters of ASCII"))
            }
        };
    }
    let wanted = headers.get("x-resumable").is_some_and(|value: &HeaderValue| value == "1");
    Ok(wanted.then(|| fresh_id("stream-")))
}

/// Runs what computes for a while, apart from the tasks that serve connections.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> ApiResult<T> + Send + 'static,
) -> ApiResult<T> {
    let failed = |_| ApiError::unavailable("this request brought its handler down");
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(failed(error)))
}

/// With `--strict-model`, refuses names of other models.
pub(crate) fn check_model(app: &App, served: &Served, name: Option<&str>) -> ApiResult<()> {
    match name {
        Some(name) if app.config.strict_model && !app.is_name(served, name) => Err(ApiError {
            param: Some("model".to_owned()),
            ..ApiError::not_found(format!(
                "the model `{}` is not served here, but `{}`",
                name.chars().take(100).collect::<String>(),
                app.model_id(served)
            ))
        }),
        _ => Ok(()),
    }
}
