//! `/slots`: what runs, as llama-server's dashboards read it, and texts that are saved and
//! restored. Sequences here are not bound to slots, so a slot is one of the places for answers.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write as _};
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRequest as _, Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use cachalot_engine::Handle;
use cachalot_engine::handle::{SaveError, Saved};
use cachalot_engine::status::SequencePhase;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::{ApiError, ApiResult};
use crate::routes::{Asked, blocking};

/// All places for answers.
#[utoipa::path(
    get, path = "/slots", tag = "llama-server",
    responses((status = 200, description = "One object for each", body = Vec<Object>), crate::openapi::Errors)
)]
pub(crate) async fn list(State(app): State<Arc<App>>) -> ApiResult<Response> {
    if !app.config.slots {
        return Err(ApiError::unsupported("the server was started with --no-slots"));
    }
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

/// Saves, restores or erases the keys and values of the text that a slot has, the last one that was
/// computed in it. Files are in the folder of `--slot-save-path`, without which there is none of
/// this.
#[utoipa::path(
    post, path = "/slots/{id}", tag = "llama-server", request_body = Object,
    params(("id" = u64, Path, description = "The slot"),
           ("action" = String, Query, description = "`save`, `restore` or `erase`")),
    responses((status = 200, description = "What was done", body = Object), crate::openapi::Errors)
)]
pub(crate) async fn action(
    State(app): State<Arc<App>>,
    id: Result<Path<usize>, axum::extract::rejection::PathRejection>,
    query: Result<Query<Action>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> ApiResult<Response> {
    let served = app.model()?;
    let Path(id) = id.map_err(|error| ApiError::invalid(error.body_text()))?;
    let Query(query) = query.map_err(|error| ApiError::invalid(error.body_text()))?;
    let Some(folder) = app.config.slot_save_path.clone() else {
        let message = "slots are saved only if the server was started with --slot-save-path";
        return Err(ApiError::unsupported(message));
    };
    let tokens = app.slots.tokens(id)?;
    let action = query.action.unwrap_or_default();
    if action == "erase" {
        app.slots.replace(id, Vec::new());
        let erased = tokens.len();
        blocking(move || served.handle.erase(&tokens).map_err(failed)).await?;
        return Ok(axum::Json(json!({ "id_slot": id, "n_erased": erased })).into_response());
    }
    let asked = Asked::from_request(request, &app).await?;
    let name = asked.object.get("filename").and_then(Value::as_str).unwrap_or_default().to_owned();
    if !is_file_name(&name) {
        return Err(ApiError::field("filename", "`filename` must be the name of a file, no path"));
    }
    let (path, begun) = (folder.join(&name), Instant::now());
    let ms = move || begun.elapsed().as_secs_f64() * 1e3;
    let done = match action.as_str() {
        "save" => {
            let saved = blocking(move || save(&served.handle, &tokens, &path)).await?;
            json!({ "id_slot": id, "filename": name, "n_saved": saved.tokens.len(),
                    "n_written": saved.bytes, "timings": { "save_ms": ms() } })
        }
        "restore" => {
            let restored = blocking(move || restore(&served.handle, &path)).await?;
            let (count, bytes) = (restored.tokens.len(), restored.bytes);
            app.slots.replace(id, restored.tokens);
            json!({ "id_slot": id, "filename": name, "n_restored": count, "n_read": bytes,
                    "timings": { "restore_ms": ms() } })
        }
        _ => return Err(ApiError::field("action", "`action` must be save, restore or erase")),
    };
    Ok(axum::Json(done).into_response())
}

/// Whether a name stays in its folder, and hides nothing.
fn is_file_name(name: &str) -> bool {
    let is_odd = |c: char| c.is_control() || "/\\:".contains(c);
    (1..=200).contains(&name.len()) && !name.starts_with('.') && !name.contains(is_odd)
}

fn failed(error: SaveError) -> ApiError {
    match error {
        SaveError::NoRoom | SaveError::Gone => ApiError::unavailable(error.to_string()),
        error => ApiError::invalid(error.to_string()),
    }
}

/// Writes a file that is complete when it has its name.
fn save(handle: &Handle, tokens: &[u32], path: &FilePath) -> ApiResult<Saved> {
    let wrong = |error: std::io::Error| ApiError::invalid(format!("it cannot be saved: {error}"));
    let temporary = path.with_extension("tmp");
    let mut out = BufWriter::new(File::create(&temporary).map_err(wrong)?);
    let saved = handle.save(tokens, &mut out).map_err(failed).and_then(|saved| {
        out.flush().and_then(|()| fs::rename(&temporary, path)).map_err(wrong)?;
        Ok(saved)
    });
    if saved.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    saved
}

fn restore(handle: &Handle, path: &FilePath) -> ApiResult<Saved> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let wrong = |error| ApiError::invalid(format!("`{name}` cannot be restored: {error}"));
    let mut file = BufReader::new(File::open(path).map_err(wrong)?);
    handle.restore(&mut file).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_stay_in_their_folder() {
        assert!(is_file_name("slot1.bin") && is_file_name("ä b"));
        for wrong in ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "c:x", "a\0", ".hidden"]
        {
            assert!(!is_file_name(wrong), "{wrong}");
        }
        assert!(!is_file_name(&"x".repeat(201)));
    }
}
