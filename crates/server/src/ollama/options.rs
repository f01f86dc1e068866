//! `options`, `think`, `format` and `keep_alive`, as Ollama's clients send them.

use std::sync::Arc;

use cachalot_engine::Request;
use cachalot_engine::request::Constraint;
use cachalot_text::Think;
use serde_json::{Map, Value};

use crate::app::{App, Served};
use crate::error::{ApiError, ApiResult};
use crate::options::{TOP_MAX, limit, schema_constraint, stops};

/// Names of Ollama's that change how a model is loaded, which happened already: they are accepted,
/// and have no effect.
const OF_LOADING: [&str; 14] = [
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "use_mmap",
    "use_mlock",
    "num_thread",
    "numa",
    "num_keep",
    "low_vram",
    "f16_kv",
    "vocab_only",
    "draft_num_predict",
    "typical_p",
];
/// Numbers of sampling.
const SAMPLING: [&str; 8] = [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "repeat_last_n",
];

/// The engine's request with these options.
///
/// # Errors
/// 400 that names the option.
pub(crate) fn request(app: &App, served: &Served, options: Option<&Value>) -> ApiResult<Request> {
    let empty = Map::new();
    let options = match options {
        None | Some(Value::Null) => &empty,
        Some(Value::Object(options)) => options,
        Some(_) => return Err(ApiError::field("options", "`options` must be an object")),
    };
    let mut request = Request { sampling: served.info().recommended.clone(), ..Request::default() };
    let wrong = |name: &str, what: &str| ApiError::field(name, format!("option `{name}` {what}"));
    for (name, value) in &app.defaults().sampling {
        let _ = request.sampling.set(name, *value); // checked when the server started
    }
    request.seed = app.config.defaults.seed.and_then(|seed| u64::try_from(seed).ok());
    request.stop.clone_from(&app.config.defaults.stop);
    let context = served.info().context.tokens as f64;
    for (name, value) in options.iter().filter(|(_, value)| !value.is_null()) {
        match name.as_str() {
            name if SAMPLING.contains(&name) => {
                let value = value.as_f64().ok_or_else(|| wrong(name, "must be a number"))?;
                let value = match name {
                    "top_k" => value.max(0.0),
                    "repeat_last_n" if value < 0.0 => context,
                    _ => value,
                };
                let set = request.sampling.set(name, value);
                set.map_err(|error| ApiError::field(name, error.to_string()))?;
            }
            "seed" => {
                let seed = value.as_i64().ok_or_else(|| wrong(name, "must be a whole number"))?;
                request.seed = u64::try_from(seed).ok();
            }
            "num_predict" => {
                let max = value.as_i64().ok_or_else(|| wrong(name, "must be a whole number"))?;
                request.max_tokens = limit(Some(max));
            }
            "stop" => request.stop = stop(value)?,
            "penalize_newline" | "mirostat" | "mirostat_tau" | "mirostat_eta" | "tfs_z" => {}
            name if OF_LOADING.contains(&name) => {}
            other => tracing::warn!("option `{other}` is not known and has no effect"),
        }
    }
    request.max_tokens = app.config.defaults.limit(request.max_tokens);
    Ok(request)
}

fn stop(value: &Value) -> ApiResult<Vec<String>> {
    let wrong = || ApiError::field("stop", "option `stop` must be a text or a list of texts");
    let texts = match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => {
            let texts = items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong));
            texts.collect::<ApiResult<_>>()?
        }
        _ => return Err(wrong()),
    };
    stops(&texts)
}

/// `format`: `"json"`, a JSON schema, or nothing.
///
/// # Errors
/// 400 for anything else.
pub(crate) fn format(format: Option<&Value>) -> ApiResult<Option<Constraint>> {
    match format {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if text == "json" => Ok(Some(Constraint::JsonObject)),
        Some(schema @ Value::Object(_)) => schema_constraint("format", schema).map(Some),
        Some(_) => Err(ApiError::field("format", "`format` must be \"json\" or a JSON schema")),
    }
}

/// Log probabilities: whether, and how many of the most likely tokens.
///
/// # Errors
/// 400 for too many.
pub(crate) fn logprobs(wanted: Option<bool>, top: Option<i64>) -> ApiResult<Option<usize>> {
    match usize::try_from(top.unwrap_or(0)) {
        Ok(top) if top <= TOP_MAX => Ok((wanted == Some(true)).then_some(top)),
        _ => {
            let message = format!("top_logprobs must be between 0 and {TOP_MAX}");
            Err(ApiError::field("top_logprobs", message))
        }
    }
}

/// `keep_alive` of zero asks to unload; anything else, to load. Neither happens: the model stays.
pub(crate) fn unloads(keep_alive: Option<&Value>) -> bool {
    match keep_alive {
        Some(Value::Number(seconds)) => seconds.as_f64() == Some(0.0),
        Some(Value::String(text)) => {
            matches!(text.trim_end_matches(char::is_alphabetic), "0" | "0.0")
        }
        _ => false,
    }
}

/// `think`: a boolean or a level.
///
/// # Errors
/// 400 for anything else.
pub(crate) fn think(think: Option<&Value>) -> ApiResult<Think> {
    match think {
        None | Some(Value::Null) => Ok(Think::Auto),
        Some(Value::Bool(true)) => Ok(Think::Force),
        Some(Value::Bool(false)) => Ok(Think::Off),
        Some(Value::String(level)) => match level.as_str() {
            "low" | "medium" | "high" | "max" | "true" => Ok(Think::Force),
            "none" | "false" => Ok(Think::Off),
            _ => Err(wrong_think(level)),
        },
        Some(other) => Err(wrong_think(&other.to_string())),
    }
}

fn wrong_think(value: &str) -> ApiError {
    let value: String = value.chars().take(40).collect();
    let levels = "it must be a boolean or \"high\", \"medium\", \"low\" or \"max\"";
    ApiError::field("think", format!("invalid think value: {value}: {levels}"))
}

/// The model that a request names must be this one.
///
/// # Errors
/// 400 without a name, 404 for another model, 503 while loading.
pub(crate) fn served(app: &App, name: Option<&str>) -> ApiResult<Arc<Served>> {
    let served = app.model()?;
    match name {
        None | Some("") => Err(ApiError::field("model", "model is required")),
        Some(name) if app.is_name(&served, name) => Ok(served),
        Some(name) => Err(unknown(name)),
    }
}

/// 404, in Ollama's words.
pub(crate) fn unknown(name: &str) -> ApiError {
    let name: String = name.chars().take(100).collect();
    ApiError::not_found(format!("model '{name}' not found"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_read_as_clients_write_them() {
        assert_eq!(format(Some(&json!("json"))).unwrap(), Some(Constraint::JsonObject));
        assert_eq!(format(Some(&json!(""))).unwrap(), None);
        assert!(format(Some(&json!("xml"))).is_err());
        assert_eq!(think(Some(&json!("high"))).unwrap(), Think::Force);
        assert!(think(Some(&json!("loud"))).is_err() && think(Some(&json!(1))).is_err());
        assert!(
            unloads(Some(&json!(0))) && unloads(Some(&json!("0s"))) && unloads(Some(&json!("0")))
        );
        assert!(!unloads(Some(&json!("5m"))) && !unloads(Some(&json!(-1))) && !unloads(None));
        assert_eq!(stop(&json!(["a", ""])).unwrap(), ["a"]);
        assert!(stop(&json!({})).is_err());
        assert!(logprobs(Some(true), Some(21)).is_err());
    }
}
