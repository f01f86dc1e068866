//! What a client is told when a request fails: one error type for all handlers, written in the
//! shape of the API that the request's path belongs to.
//!
//! | family | paths | shape |
//! |---|---|---|
//! | Ollama | `/api/...` | `{"error": "text"}` |
//! | Anthropic | `/v1/messages...` | `{"type": "error", "error": {"type", "message"}}` |
//! | OpenAI, llama-server | all others | `{"error": {"code", "message", "type", "param"}}` |

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cachalot_engine::request::SubmitError;
use serde_json::{Value, json};

/// A request that cannot be answered.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// The field of the request that is wrong.
    pub(crate) param: Option<String>,
    /// Tokens of a prompt that is too long, and of the context.
    pub(crate) context: Option<Exceeded>,
    /// Seconds after which trying again makes sense.
    pub(crate) retry_after: Option<u32>,
    /// Requests that wait before this one would.
    pub(crate) position: Option<u32>,
    /// While the model is loaded: the share that is done.
    pub(crate) progress: Option<f64>,
}

/// The numbers of a prompt that does not fit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exceeded {
    pub(crate) n_prompt: usize,
    pub(crate) n_ctx: usize,
}

pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            context: None,
            retry_after: None,
            position: None,
            progress: None,
        }
    }

    /// 400: the request makes no sense.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 400 because of one field.
    pub(crate) fn field(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), ..Self::invalid(message) }
    }

    /// 404.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 501: an operation that this server does not have.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    /// 503: not now.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// The `type` of OpenAI's and llama-server's errors.
    pub(crate) fn kind(&self) -> &'static str {
        if self.context.is_some() {
            return "exceed_context_size_error";
        }
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            500 => "server_error",
            501 => "not_supported_error",
            503 => "unavailable_error",
            _ => "invalid_request_error",
        }
    }

    /// The body in the shape of a family.
    pub(crate) fn body(&self, family: Family) -> Value {
        match family {
            Family::Ollama => {
                let mut body = json!({ "error": self.message });
                self.numbers(&mut body);
                body
            }
            Family::Anthropic => {
                let kind = match self.status.as_u16() {
                    413 => "request_too_large",
                    503 => "overloaded_error",
                    _ if self.context.is_some() => "invalid_request_error",
                    _ => self.kind(),
                };
                let mut error = json!({ "type": kind, "message": self.message });
                self.numbers(&mut error);
                json!({ "type": "error", "error": error })
            }
            Family::OpenAi => {
                let mut error = json!({
                    "code": self.status.as_u16(),
                    "message": self.message,
                    "type": self.kind(),
                    "param": self.param,
                });
                self.numbers(&mut error);
                json!({ "error": error })
            }
        }
    }

    fn numbers(&self, error: &mut Value) {
        if let Some(Exceeded { n_prompt, n_ctx }) = self.context {
            error["n_prompt_tokens"] = n_prompt.into();
            error["n_ctx"] = n_ctx.into();
        }
        if let Some(position) = self.position {
            error["position"] = position.into();
        }
        if let Some(progress) = self.progress {
            error["progress"] = progress.into();
        }
    }

    /// The response in the shape of a family.
    pub(crate) fn response(&self, family: Family) -> Response {
        let body = axum::Json(self.body(family));
        let mut response = (self.status, body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::QueueFull { position, retry_after } => Self {
                retry_after: Some(u32::try_from(retry_after.as_secs().max(1)).unwrap_or(u32::MAX)),
                position: u32::try_from(position).ok(),
                // Ollama's clients look for these words.
                ..Self::unavailable(format!(
                    "server busy, please try again.  maximum pending requests exceeded: {message}"
                ))
            },
            SubmitError::PromptTooLong { n_prompt, n_ctx } => {
                // Clients look for llama-server's words.
                let message = format!(
                    "the prompt ({n_prompt} tokens) exceeds the available context size ({n_ctx} tokens), \
                     and the answer needs room too: shorten the prompt or start with a longer context"
                );
                Self { context: Some(Exceeded { n_prompt, n_ctx }), ..Self::invalid(message) }
            }
            SubmitError::ShuttingDown => {
                Self { retry_after: Some(10), ..Self::unavailable(message) }
            }
            SubmitError::Invalid(_) => Self::invalid(message),
        }
    }
}

/// An error on its way to the layer that knows the family: see [`crate::http::errors`].
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Whose shape an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    OpenAi,
    Anthropic,
    Ollama,
}

impl Family {
    /// The family that a path belongs to.
    pub(crate) fn of(path: &str) -> Self {
        if path.starts_with("/api/") && !path.starts_with("/api/cachalot/") {
            Self::Ollama
        } else if path == "/v1/messages" || path.starts_with("/v1/messages/") {
            Self::Anthropic
        } else {
            Self::OpenAi
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_its_shape() {
        let error = ApiError::field("temperature", "too hot");
        assert_eq!(error.body(Family::Ollama), json!({ "error": "too hot" }));
        assert_eq!(
            error.body(Family::Anthropic),
            json!({ "type": "error",
                    "error": { "type": "invalid_request_error", "message": "too hot" } })
        );
        assert_eq!(
            error.body(Family::OpenAi),
            json!({ "error": { "code": 400, "message": "too hot", "param": "temperature",
                               "type": "invalid_request_error" } })
        );
    }

    #[test]
    fn a_prompt_that_is_too_long_comes_with_its_numbers() {
        let error = ApiError::from(SubmitError::PromptTooLong { n_prompt: 9, n_ctx: 4 });
        let body = error.body(Family::OpenAi);
        assert_eq!(body["error"]["type"], "exceed_context_size_error");
        assert_eq!(
            (&body["error"]["n_prompt_tokens"], &body["error"]["n_ctx"]),
            (&json!(9), &json!(4))
        );
        assert_eq!(error.status, StatusCode::BAD_REQUEST);
        assert!(error.message.contains("exceeds the available context size"));
    }

    #[test]
    fn families_are_told_by_the_path() {
        assert_eq!(Family::of("/api/chat"), Family::Ollama);
        assert_eq!(Family::of("/api/cachalot/status"), Family::OpenAi);
        assert_eq!(Family::of("/v1/messages/count_tokens"), Family::Anthropic);
        assert_eq!(Family::of("/v1/chat/completions"), Family::OpenAi);
        assert_eq!(Family::of("/nowhere"), Family::OpenAi);
    }
}
