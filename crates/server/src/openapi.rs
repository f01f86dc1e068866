//! The OpenAPI document, made of the handlers and types that serve.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::{IntoResponses, OpenApi, ToSchema};

use crate::{anthropic, native, ollama, openai, status};

/// An error of the APIs of OpenAI, llama-server and cachalot.
#[derive(ToSchema)]
#[expect(dead_code)]
pub(crate) struct ErrorBody {
    error: ErrorInner,
}

/// What is wrong.
#[derive(ToSchema)]
#[expect(dead_code)]
struct ErrorInner {
    /// The status.
    code: u16,
    message: String,
    /// The kind of error.
    #[schema(rename = "type")]
    kind: String,
    /// The field that is wrong.
    param: Option<String>,
    /// Tokens of a prompt that is too long.
    n_prompt_tokens: Option<u64>,
    /// Tokens of the context.
    n_ctx: Option<u64>,
    /// Requests that wait.
    position: Option<u64>,
    /// The share of the model that is loaded.
    progress: Option<f64>,
}

/// Errors of the APIs of OpenAI, llama-server and cachalot.
#[derive(IntoResponses)]
#[expect(dead_code)]
pub(crate) enum Errors {
    /// The request makes no sense
    #[response(status = 400)]
    Invalid(#[to_schema] ErrorBody),
    /// A key is needed
    #[response(status = 401)]
    Key(#[to_schema] ErrorBody),
    /// A foreign origin or host
    #[response(status = 403)]
    Forbidden(#[to_schema] ErrorBody),
    /// No such thing
    #[response(status = 404)]
    NotFound(#[to_schema] ErrorBody),
    /// The body came too slowly
    #[response(status = 408)]
    Slow(#[to_schema] ErrorBody),
    /// The body is too large
    #[response(status = 413)]
    TooLarge(#[to_schema] ErrorBody),
    /// The key has used up what it may use in a minute
    #[response(status = 429)]
    Limited(#[to_schema] ErrorBody),
    /// Not supported
    #[response(status = 501)]
    Unsupported(#[to_schema] ErrorBody),
    /// Loading, shutting down, or too many requests wait
    #[response(status = 503)]
    Unavailable(#[to_schema] ErrorBody),
}

/// An error of Ollama's API.
#[derive(ToSchema)]
#[expect(dead_code)]
pub(crate) struct OllamaError {
    error: String,
    /// Tokens of a prompt that is too long.
    n_prompt_tokens: Option<u64>,
    /// Tokens of the context.
    n_ctx: Option<u64>,
    /// Requests that wait.
    position: Option<u64>,
    /// The share of the model that is loaded.
    progress: Option<f64>,
}

/// Errors of Ollama's API.
#[derive(IntoResponses)]
#[expect(dead_code)]
pub(crate) enum OllamaErrors {
    /// The request makes no sense
    #[response(status = 400)]
    Invalid(#[to_schema] OllamaError),
    /// A key is needed
    #[response(status = 401)]
    Key(#[to_schema] OllamaError),
    /// A foreign origin or host
    #[response(status = 403)]
    Forbidden(#[to_schema] OllamaError),
    /// Another model
    #[response(status = 404)]
    NotFound(#[to_schema] OllamaError),
    /// The body came too slowly
    #[response(status = 408)]
    Slow(#[to_schema] OllamaError),
    /// The body is too large
    #[response(status = 413)]
    TooLarge(#[to_schema] OllamaError),
    /// The key has used up what it may use in a minute
    #[response(status = 429)]
    Limited(#[to_schema] OllamaError),
    /// Loading, shutting down, or too many requests wait
    #[response(status = 503)]
    Unavailable(#[to_schema] OllamaError),
}

/// An error of Anthropic's API.
#[derive(ToSchema)]
#[expect(dead_code)]
pub(crate) struct AnthropicError {
    /// `error`
    #[schema(rename = "type")]
    kind: String,
    error: AnthropicInner,
}

/// What is wrong.
#[derive(ToSchema)]
#[expect(dead_code)]
struct AnthropicInner {
    /// The kind of error.
    #[schema(rename = "type")]
    kind: String,
    message: String,
    /// Tokens of a prompt that is too long.
    n_prompt_tokens: Option<u64>,
    /// Tokens of the context.
    n_ctx: Option<u64>,
    /// Requests that wait.
    position: Option<u64>,
    /// The share of the model that is loaded.
    progress: Option<f64>,
}

/// Errors of Anthropic's API.
#[derive(IntoResponses)]
#[expect(dead_code)]
pub(crate) enum AnthropicErrors {
    /// The request makes no sense
    #[response(status = 400)]
    Invalid(#[to_schema] AnthropicError),
    /// A key is needed
    #[response(status = 401)]
    Key(#[to_schema] AnthropicError),
    /// A foreign origin or host
    #[response(status = 403)]
    Forbidden(#[to_schema] AnthropicError),
    /// Another model
    #[response(status = 404)]
    NotFound(#[to_schema] AnthropicError),
    /// The body came too slowly
    #[response(status = 408)]
    Slow(#[to_schema] AnthropicError),
    /// The body is too large
    #[response(status = 413)]
    TooLarge(#[to_schema] AnthropicError),
    /// The key has used up what it may use in a minute
    #[response(status = 429)]
    Limited(#[to_schema] AnthropicError),
    /// Loading, shutting down, or too many requests wait
    #[response(status = 503)]
    Unavailable(#[to_schema] AnthropicError),
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "cachalot",
        description = "One model over the APIs of OpenAI, Anthropic, Ollama and llama-server"
    ),
    paths(
        openai::chat::completions,
        openai::chat::input_tokens,
        openai::chat::control,
        openai::chat::apply_template,
        openai::completions::completions,
        openai::models::list,
        openai::models::one,
        openai::models::embeddings,
        openai::responses::responses,
        openai::responses::input_tokens,
        anthropic::messages,
        anthropic::count_tokens,
        ollama::generate::generate,
        ollama::chat::chat,
        ollama::library::tags,
        ollama::show::ps,
        ollama::show::show,
        ollama::show::version,
        ollama::show::embed,
        ollama::show::create,
        ollama::show::push,
        ollama::library::pull,
        ollama::library::copy,
        ollama::library::delete,
        native::facts::health,
        native::facts::props,
        native::facts::set_props,
        native::facts::metrics,
        native::facts::stream,
        native::facts::stop_stream,
        native::facts::shut_down,
        native::slots::list,
        native::slots::action,
        native::completion::completion,
        native::tokens::tokenize,
        native::tokens::detokenize,
        status::status,
    ),
    components(schemas(AnthropicInner, ErrorInner))
)]
struct Api;

/// The document, as JSON.
pub fn document() -> String {
    // It is made of our own types.
    Api::openapi().to_pretty_json().unwrap_or_default() + "\n"
}

/// Serves the document.
pub(crate) async fn serve() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document()).into_response()
}
