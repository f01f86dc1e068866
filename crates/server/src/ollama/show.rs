//! What Ollama's clients ask about the served model, and what is done elsewhere here.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cachalot_gguf::{Array, Value as Gguf};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::options;
use crate::app::{App, Served};
use crate::error::{ApiError, ApiResult};
use crate::http::body::typed;
use crate::routes::Asked;

/// A time as RFC 3339 in UTC, with nanoseconds.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days to a date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    let z = days as i64 + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let nanos = since.subsec_nanos();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// `671B`, `14M`.
pub(crate) fn size_word(parameters: u64) -> String {
    match parameters {
        0 => String::new(),
        1..1_000_000 => format!("{}K", parameters.div_ceil(1000)),
        1_000_000..1_000_000_000 => format!("{:.1}M", parameters as f64 / 1e6),
        _ => format!("{:.1}B", parameters as f64 / 1e9),
    }
}

/// `details`, as all of Ollama's answers have them.
pub(crate) fn details(served: &Served) -> Value {
    let facts = &served.facts;
    json!({
        "parent_model": "", "format": "gguf", "family": facts.architecture,
        "families": [facts.architecture], "parameter_size": size_word(facts.parameters),
        "quantization_level": facts.quantization,
    })
}

/// The served model, as lists have it.
pub(crate) fn entry(app: &App, served: &Served) -> Map<String, Value> {
    let facts = &served.facts;
    // Not of the file's bytes, which would take minutes: of what identifies it here.
    let identity = format!("{}:{}:{}", facts.path, facts.bytes, facts.parameters);
    let digest = Sha256::digest(identity.as_bytes());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let id = app.model_id(served);
    let entry = json!({
        "name": id, "model": id, "modified_at": rfc3339(served.since), "size": facts.bytes,
        "digest": digest, "details": details(served), "capabilities": facts.capabilities(),
    });
    entry.as_object().cloned().unwrap_or_default()
}

/// The one model, which is always loaded.
#[utoipa::path(
    get, path = "/api/ps", tag = "Ollama",
    responses((status = 200, description = "A list with one entry", body = Object), crate::openapi::OllamaErrors)
)]
pub(crate) async fn ps(State(app): State<Arc<App>>) -> ApiResult<Response> {
    let Ok(served) = app.ready() else {
        return Ok(axum::Json(json!({ "models": [] })).into_response());
    };
    let mut entry = entry(&app, &served);
    // It never expires; clients read a date.
    entry.insert("expires_at".to_owned(), "2318-01-01T00:00:00Z".into());
    entry.insert("size_vram".to_owned(), 0.into());
    entry.insert("context_length".to_owned(), served.info().context.tokens.into());
    Ok(axum::Json(json!({ "models": [entry] })).into_response())
}

/// Which model.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct OllamaName {
    pub(crate) model: Option<String>,
    /// As `model`.
    pub(crate) name: Option<String>,
    /// With all values of the file.
    verbose: Option<bool>,
}

/// All about the model.
#[utoipa::path(
    post, path = "/api/show", tag = "Ollama", request_body = OllamaName,
    responses((status = 200, description = "What the file says", body = Object), crate::openapi::OllamaErrors)
)]
pub(crate) async fn show(State(app): State<Arc<App>>, asked: Asked) -> ApiResult<Response> {
    let body: OllamaName = typed(&asked.object)?;
    let name = body.model.as_deref().filter(|name| !name.is_empty()).or(body.name.as_deref());
    let served = options::served(&app, name)?;
    let info = served.info();
    let parameters = cachalot_engine::request::PARAMETERS
        .iter()
        .map(|parameter| format!("{:<30} {}", parameter.name, parameter.get(&info.recommended)));
    let template = app.config.template.as_deref().or(info.vocab.chat_template());
    let mut model_info = metadata(&served, body.verbose == Some(true));
    let count = json!(served.facts.parameters);
    model_info.insert("general.parameter_count".to_owned(), count);
    Ok(axum::Json(json!({
        "license": info.metadata().str("general.license").unwrap_or_default(),
        "modelfile": format!("FROM {}\n", app.model_id(&served)),
        "parameters": parameters.collect::<Vec<_>>().join("\n"),
        "template": template.unwrap_or_default(),
        "system": "",
        "details": details(&served),
        "model_info": model_info,
        "capabilities": served.facts.capabilities(),
        "modified_at": rfc3339(served.since),
    }))
    .into_response())
}

/// The key-value pairs of the file; of arrays only `null`, unless all is wanted.
fn metadata(served: &Served, verbose: bool) -> Map<String, Value> {
    let mut all = Map::new();
    for (key, value) in served.info().metadata().iter() {
        all.insert(key.to_owned(), plain(value, verbose));
    }
    all
}

fn plain(value: &Gguf, verbose: bool) -> Value {
    match value {
        Gguf::U8(number) => json!(number),
        Gguf::I8(number) => json!(number),
        Gguf::U16(number) => json!(number),
        Gguf::I16(number) => json!(number),
        Gguf::U32(number) => json!(number),
        Gguf::I32(number) => json!(number),
        Gguf::U64(number) => json!(number),
        Gguf::I64(number) => json!(number),
        Gguf::F32(number) => json!(number),
        Gguf::F64(number) => json!(number),
        Gguf::Bool(bool) => json!(bool),
        Gguf::String(string) => json!(string),
        Gguf::Array(Array::String(texts)) if verbose => json!(texts),
        Gguf::Array(Array::I32(numbers)) if verbose => json!(numbers),
        Gguf::Array(Array::F32(numbers)) if verbose => json!(numbers),
        Gguf::Array(_) => Value::Null,
    }
}

/// The version of this program.
#[utoipa::path(
    get, path = "/api/version", tag = "Ollama",
    responses((status = 200, description = "`{\"version\": \"x.y.z\"}`", body = Object))
)]
pub(crate) async fn version(State(app): State<Arc<App>>) -> Response {
    axum::Json(json!({ "version": app.config.version })).into_response()
}

/// Refused: the model writes text.
#[utoipa::path(
    post, path = "/api/embed", tag = "Ollama",
    responses((status = 400, description = "Not supported", body = crate::openapi::OllamaError))
)]
pub(crate) async fn embed() -> ApiError {
    ApiError::invalid("this model writes text and was not made for embeddings")
}

/// Refused.
#[utoipa::path(
    post, path = "/api/create", tag = "Ollama",
    responses((status = 400, description = "Not supported", body = crate::openapi::OllamaError))
)]
pub(crate) async fn create() -> ApiError {
    ApiError::invalid("models are not made here: `cachalot serve FILE.gguf` serves a file")
}

/// Refused.
#[utoipa::path(
    post, path = "/api/push", tag = "Ollama",
    responses((status = 400, description = "Not supported", body = crate::openapi::OllamaError))
)]
pub(crate) async fn push() -> ApiError {
    ApiError::invalid("models are not published from here")
}

/// Refused: they belong to `create`.
pub(crate) async fn blobs() -> ApiError {
    ApiError::invalid("models are not made here: `cachalot serve FILE.gguf` serves a file")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_dates() {
        let at = |seconds| rfc3339(UNIX_EPOCH + Duration::new(seconds, 5));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000005Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(at(1_795_824_000 + 3661), "2026-11-28T01:01:01.000000005Z");
    }

    #[test]
    fn sizes_are_words() {
        assert_eq!(size_word(671_026_419_200), "671.0B");
        assert_eq!(size_word(14_000_000), "14.0M");
        assert_eq!(size_word(100_000), "100K");
    }
}
