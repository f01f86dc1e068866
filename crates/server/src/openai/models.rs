//! `/v1/models`, and embeddings, which this model does not make.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::app::{App, Served, unix};
use crate::error::{ApiError, ApiResult};

fn entry(app: &App, served: &Served) -> Value {
    let facts = &served.facts;
    json!({
        "id": app.model_id(served),
        "object": "model",
        "created": unix(served.since),
        "owned_by": "cachalot",
        "aliases": app.names(served),
        "tags": app.config.tags,
        "meta": {
            "n_vocab": served.info().vocab.len(),
            "n_ctx": served.info().context.tokens,
            "n_ctx_train": served.info().context.model,
            "n_params": facts.parameters,
            "size": facts.bytes,
            "ftype": facts.quantization,
        },
    })
}

/// The one model.
#[utoipa::path(
    get, path = "/v1/models", tag = "OpenAI",
    responses((status = 200, description = "A list with one entry", body = Object), crate::openapi::Errors)
)]
pub(crate) async fn list(State(app): State<Arc<App>>) -> ApiResult<Response> {
    let served = app.ready()?;
    let data = vec![entry(&app, &served)];
    let details = crate::ollama::show::details(&served);
    let models = json!([{
        "name": app.model_id(&served), "model": app.model_id(&served), "details": details,
        "capabilities": served.facts.capabilities(),
    }]);
    let page = json!({ "object": "list", "data": data, "models": models, "has_more": false,
                       "first_id": app.model_id(&served), "last_id": app.model_id(&served) });
    Ok(axum::Json(page).into_response())
}

/// The model, by its name.
#[utoipa::path(
    get, path = "/v1/models/{id}", tag = "OpenAI",
    params(("id" = String, Path, description = "The model")),
    responses((status = 200, description = "The entry", body = Object), crate::openapi::Errors)
)]
pub(crate) async fn one(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> ApiResult<Response> {
    let served = app.ready()?;
    let Path(id) = id.map_err(|error| ApiError::invalid(error.body_text()))?;
    if !app.is_name(&served, &id) {
        let message = format!("there is no model of this name, but `{}`", app.model_id(&served));
        return Err(ApiError { param: Some("model".to_owned()), ..ApiError::not_found(message) });
    }
    Ok(axum::Json(entry(&app, &served)).into_response())
}

/// Refused: the model writes text.
#[utoipa::path(
    post, path = "/v1/embeddings", tag = "OpenAI",
    responses((status = 400, description = "Not supported", body = crate::openapi::ErrorBody))
)]
pub(crate) async fn embeddings() -> ApiError {
    ApiError::invalid("this model writes text and was not made for embeddings")
}
