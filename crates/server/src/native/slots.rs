//! `/slots`: what runs, as llama-server's dashboards read it. Sequences here are not bound to slots, so
//! a slot is one of the places for answers.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use cachalot_engine::SequencePhase;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::{ApiError, ApiResult};

/// All places for answers.
#[utoipa::path(
    get, path = "/slots", tag = "llama-server",
    responses((status = 200, description = "One object for each", body = Vec<Object>), crate::openapi::Errors)
)]
pub(crate) async fn list(State(app): State<Arc<App>>) -> ApiResult<Response> {
    let served = app.ready()?;
    let status = served.handle.status();
    let n_ctx = served.info().context.tokens;
    let is_running = |phase: SequencePhase| !matches!(phase, SequencePhase::Queued { .. });
    let mut running = status.sequences.iter().filter(|sequence| is_running(sequence.phase));
    let slots = (0..status.limits.parallel).map(|id| {
        let mut slot =
            json!({ "id": id, "n_ctx": n_ctx, "speculative": false, "is_processing": false });
        if let Some(sequence) = running.next() {
            slot["is_processing"] = true.into();
            slot["id_task"] = sequence.id.0.into();
            slot["n_prompt_tokens"] = sequence.prompt.into();
            slot["n_prompt_tokens_cache"] = sequence.cached.into();
            let left = json!({ "n_decoded": sequence.generated, "has_next_token": true });
            slot["next_token"] = json!([left]);
        }
        slot
    });
    Ok(axum::Json(Value::Array(slots.collect())).into_response())
}

/// What to do with a slot.
#[derive(Debug, Deserialize)]
pub(crate) struct Action {
    action: Option<String>,
}

/// Saves, restores or erases what a slot has cached.
#[utoipa::path(
    post, path = "/slots/{id}", tag = "llama-server",
    params(("id" = u64, Path, description = "The slot"),
           ("action" = String, Query, description = "`save`, `restore` or `erase`")),
    responses((status = 200, description = "What was done", body = Object), crate::openapi::Errors)
)]
pub(crate) async fn action(
    State(app): State<Arc<App>>,
    id: Result<Path<usize>, axum::extract::rejection::PathRejection>,
    query: Result<Query<Action>, axum::extract::rejection::QueryRejection>,
) -> ApiResult<Response> {
    let served = app.ready()?;
    let Path(id) = id.map_err(|error| ApiError::invalid(error.body_text()))?;
    let Query(query) = query.map_err(|error| ApiError::invalid(error.body_text()))?;
    if id >= served.handle.status().limits.parallel {
        return Err(ApiError::invalid(format!("there is no slot {id}")));
    }
    match query.action.as_deref() {
        Some("save" | "restore" | "erase") => Err(ApiError::unsupported(
            "prefixes are shared by all sequences and found by their content: there is nothing to \
             save by hand; --prefix-cache keeps them on disk",
        )),
        _ => Err(ApiError::field("action", "`action` must be save, restore or erase")),
    }
}
