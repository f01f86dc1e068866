//! Prompts without a chat template: texts, tokens, or both mixed, one or many.

use cachalot_text::Vocab;
use serde_json::Value;

use crate::error::{ApiError, ApiResult};

/// The most prompts of one request.
const PROMPTS_MAX: usize = 64;

/// What a `prompt` holds: a text, tokens, texts and tokens mixed, or a list of prompts.
#[derive(Debug, PartialEq)]
pub(crate) struct Prompts {
    pub(crate) tokens: Vec<Vec<u32>>,
    /// There was one prompt, not a list: the answer is one, not a list.
    pub(crate) single: bool,
}

fn wrong() -> ApiError {
    ApiError::field("prompt", "`prompt` must be a text, a list of tokens, or a list of prompts")
}

/// Reads a `prompt`. Texts may name control tokens: who sends raw prompts writes their own
/// template.
///
/// # Errors
/// 400 for anything else, and for tokens that the vocabulary does not have.
pub(crate) fn read(vocab: &Vocab, prompt: &Value) -> ApiResult<Prompts> {
    match prompt {
        Value::Array(items) if items.iter().any(Value::is_number) && !is_list(items) => {
            Ok(Prompts { tokens: vec![mixed(vocab, items)?], single: true })
        }
        Value::Array(items) => {
            if items.is_empty() || items.len() > PROMPTS_MAX {
                let message = format!("`prompt` must hold 1 to {PROMPTS_MAX} prompts");
                return Err(ApiError::field("prompt", message));
            }
            let tokens = items.iter().map(|item| one(vocab, item)).collect::<ApiResult<_>>()?;
            Ok(Prompts { tokens, single: false })
        }
        prompt => Ok(Prompts { tokens: vec![one(vocab, prompt)?], single: true }),
    }
}

/// Whether a list is one of prompts: a part of it is a list or an object.
fn is_list(items: &[Value]) -> bool {
    items.iter().any(|item| item.is_array() || item.is_object())
}

fn one(vocab: &Vocab, prompt: &Value) -> ApiResult<Vec<u32>> {
    match prompt {
        Value::String(text) => text_tokens(vocab, text),
        Value::Array(items) => mixed(vocab, items),
        Value::Object(object) => {
            if object.get("multimodal_data").is_some_and(|data| !data.is_null()) {
                let message = "this model reads text only: images and sound are not supported";
                return Err(ApiError::field("prompt", message));
            }
            match object.get("prompt_string") {
                Some(Value::String(text)) => text_tokens(vocab, text),
                _ => Err(wrong()),
            }
        }
        _ => Err(wrong()),
    }
}

fn text_tokens(vocab: &Vocab, text: &str) -> ApiResult<Vec<u32>> {
    vocab.encode_prompt(text).map_err(|error| ApiError::field("prompt", error.to_string()))
}

fn mixed(vocab: &Vocab, items: &[Value]) -> ApiResult<Vec<u32>> {
    let mut tokens = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        match item {
            Value::String(text) if i == 0 => tokens.extend(text_tokens(vocab, text)?),
            Value::String(text) => {
                let more = vocab.encode(text, true);
                tokens.extend(more.map_err(|error| ApiError::field("prompt", error.to_string()))?);
            }
            item => tokens.push(token(vocab, item, "prompt")?),
        }
    }
    Ok(tokens)
}

/// A token of the vocabulary.
///
/// # Errors
/// 400 for anything else.
pub(crate) fn token(vocab: &Vocab, value: &Value, param: &str) -> ApiResult<u32> {
    let id = value.as_u64().filter(|id| *id < vocab.len() as u64);
    id.map(|id| id as u32).ok_or_else(|| {
        let count = vocab.len();
        ApiError::field(param, format!("`{param}`: {value} is not a token; there are {count}"))
    })
}
