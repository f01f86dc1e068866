//! `/tokenize` and `/detokenize`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::prompt::token;
use crate::app::App;
use crate::error::{ApiError, ApiResult};
use crate::http::body::typed;
use crate::routes::{Asked, blocking};

/// A text to tokenize.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Tokenize {
    content: Option<String>,
    /// vLLM's name for `content`.
    prompt: Option<String>,
    /// Begin with the token that begins prompts, if the model has one.
    add_special: Option<bool>,
    /// Whether names of control tokens become these tokens; true by default.
    parse_special: Option<bool>,
    /// Give the text of each token as well.
    with_pieces: Option<bool>,
}

/// Tokens of a text.
#[utoipa::path(
    post, path = "/tokenize", tag = "llama-server", request_body = Tokenize,
    responses((status = 200, description = "Ids, or with `with_pieces` ids and texts", body = Object),
              crate::openapi::Errors)
)]
pub(crate) async fn tokenize(State(app): State<Arc<App>>, asked: Asked) -> ApiResult<Response> {
    let served = app.model()?;
    let body: Tokenize = typed(&asked.object)?;
    let text = body.content.or(body.prompt).unwrap_or_default();
    let tokens = blocking(move || {
        let vocab = &served.info().vocab;
        let mut tokens = vocab
            .encode(&text, body.parse_special.unwrap_or(true))
            .map_err(|error| ApiError::field("content", error.to_string()))?;
        if body.add_special == Some(true)
            && vocab.add_bos()
            && let Some(bos) = vocab.bos().filter(|bos| tokens.first() != Some(bos))
        {
            tokens.insert(0, bos);
        }
        if body.with_pieces != Some(true) {
            return Ok(json!(tokens));
        }
        let piece = |id: u32| {
            let bytes = vocab.token_bytes(id);
            std::str::from_utf8(bytes).map_or_else(|_| json!(bytes), Value::from)
        };
        let pieces = tokens.iter().map(|id| json!({ "id": id, "piece": piece(*id) }));
        Ok(pieces.collect::<Value>())
    })
    .await?;
    Ok(axum::Json(json!({ "tokens": tokens })).into_response())
}

/// Tokens to write out.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Detokenize {
    #[schema(value_type = Vec<u32>)]
    tokens: Vec<Value>,
}

/// The text of tokens.
#[utoipa::path(
    post, path = "/detokenize", tag = "llama-server", request_body = Detokenize,
    responses((status = 200, description = "The text, as `content`", body = Object), crate::openapi::Errors)
)]
pub(crate) async fn detokenize(State(app): State<Arc<App>>, asked: Asked) -> ApiResult<Response> {
    let served = app.model()?;
    let body: Detokenize = typed(&asked.object)?;
    let vocab = &served.info().vocab;
    let tokens = body.tokens.iter().map(|value| token(vocab, value, "tokens"));
    let tokens = tokens.collect::<ApiResult<Vec<u32>>>()?;
    Ok(axum::Json(json!({ "content": vocab.decode(&tokens) })).into_response())
}
