//! From what a dialect asks for to the engine's requests: the same for all dialects.

use cachalot_engine::Request;
use cachalot_engine::request::{Constraint, ThoughtState};
use cachalot_text::ToolChoice;
use serde_json::Value;

use crate::app::{App, Served};
use crate::chat::{Chat, Prompt};
use crate::error::{ApiError, ApiResult};
use crate::native::prompt;
use crate::options::{ANSWERS_MAX, Options, Thinking, limit, schema_constraint};
use crate::tools;

/// What a conversation is to be answered with.
pub(crate) struct Conversation<'a> {
    pub(crate) chat: &'a Chat,
    pub(crate) options: &'a Options,
    pub(crate) thinking: &'a Thinking,
    /// Negative is no limit.
    pub(crate) max_tokens: Option<i64>,
    /// What the answer must look like, as `response_format`.
    pub(crate) format: Option<&'a Value>,
    /// How many alternatives are reported, if log probabilities are.
    pub(crate) logprobs: Option<usize>,
}

impl Conversation<'_> {
    /// The engine's request.
    ///
    /// # Errors
    /// 400 that names the option.
    pub(crate) fn request(&self, app: &App, served: &Served, prompt: Prompt) -> ApiResult<Request> {
        let base = base(app, served, self.options, self.format, self.max_tokens)?;
        let chat = self.chat;
        let forced = matches!(chat.choice, ToolChoice::Required | ToolChoice::Named(_));
        // A format of the answer excludes calls, unless they are required.
        let constraint = match base.constraint.is_none() || forced {
            true => tools::constraint(chat, served).or(base.constraint),
            false => base.constraint,
        };
        Ok(Request {
            constraint,
            prompt: prompt.tokens,
            thought: prompt.thought,
            thinking_budget: self.thinking.budget(),
            logprobs: self.logprobs,
            ..base
        })
    }
}

/// Raw prompts to continue.
pub(crate) struct Continuation<'a> {
    pub(crate) prompt: Option<&'a Value>,
    pub(crate) options: &'a Options,
    pub(crate) max_tokens: Option<i64>,
    pub(crate) format: Option<&'a Value>,
    pub(crate) logprobs: Option<usize>,
    /// Answers to each prompt.
    pub(crate) n: Option<i64>,
}

/// Requests, and whether there is one answer, not a list.
pub(crate) struct Requests {
    pub(crate) requests: Vec<Request>,
    pub(crate) single: bool,
}

impl Continuation<'_> {
    /// The engine's requests: all answers to the first prompt, then those to the next.
    ///
    /// # Errors
    /// 400 that names the option.
    pub(crate) fn requests(&self, app: &App, served: &Served) -> ApiResult<Requests> {
        let Some(prompt) = self.prompt else {
            return Err(ApiError::field("prompt", "`prompt` is missing"));
        };
        let prompts = prompt::read(&served.info().vocab, prompt)?;
        let base = Request {
            thought: ThoughtState::Ignored,
            logprobs: self.logprobs,
            ..base(app, served, self.options, self.format, self.max_tokens)?
        };
        let n = answers(self.n)?;
        let single = prompts.single && n == 1;
        let requests = prompts.tokens.into_iter().flat_map(|prompt| {
            let base = &base;
            (0..n).map(move |i| Request {
                prompt: prompt.clone(),
                seed: base.seed.map(|seed| seed.wrapping_add(i as u64)),
                ..base.clone()
            })
        });
        Ok(Requests { requests: requests.collect(), single })
    }
}

fn base(
    app: &App,
    served: &Served,
    options: &Options,
    format: Option<&Value>,
    max_tokens: Option<i64>,
) -> ApiResult<Request> {
    let defaults = app.defaults();
    let mut request = options.request(served.info(), &defaults)?;
    if let Some(constraint) = format.map_or(Ok(None), response_format)? {
        request.constraint = Some(constraint);
    }
    request.max_tokens = defaults.limit(limit(max_tokens));
    Ok(request)
}

/// `n`.
pub(crate) fn answers(n: Option<i64>) -> ApiResult<usize> {
    match usize::try_from(n.unwrap_or(1)) {
        Ok(n) if (1..=ANSWERS_MAX).contains(&n) => Ok(n),
        _ => Err(ApiError::field("n", format!("`n` must be from 1 to {ANSWERS_MAX}"))),
    }
}

/// `response_format`: what the answer must look like.
///
/// # Errors
/// 400 for a type that is not known.
pub(crate) fn response_format(format: &Value) -> ApiResult<Option<Constraint>> {
    let wrong = |message: &str| Err(ApiError::field("response_format", message));
    if format.is_null() {
        return Ok(None);
    }
    let schema = |schema: &Value| schema_constraint("response_format", schema).map(Some);
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(None),
        Some("json_object") => match format.get("schema") {
            None | Some(Value::Null) => Ok(Some(Constraint::JsonObject)),
            Some(given) => schema(given),
        },
        Some("json_schema") => {
            let nested = format.get("json_schema").and_then(|inner| inner.get("schema"));
            match nested.or_else(|| format.get("schema")) {
                Some(given) => schema(given),
                None => wrong("`response_format.json_schema.schema` is missing"),
            }
        }
        Some("grammar") => match format.get("grammar").and_then(Value::as_str) {
            Some(grammar) => Ok(Some(Constraint::Gbnf(grammar.to_owned()))),
            None => wrong("`response_format.grammar` is missing"),
        },
        Some("regex") => match format.get("pattern").and_then(Value::as_str) {
            Some(pattern) => Ok(Some(Constraint::Regex(pattern.to_owned()))),
            None => wrong("`response_format.pattern` is missing"),
        },
        _ => wrong("`response_format.type` must be text, json_object or json_schema"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_format_of_the_answer_is_a_constraint() {
        assert_eq!(response_format(&json!({ "type": "text" })).unwrap(), None);
        let schema = json!({ "const": 1 });
        let expected = Some(Constraint::JsonSchema(schema.clone()));
        for format in [
            json!({ "type": "json_schema", "json_schema": { "schema": schema } }),
            json!({ "type": "json_schema", "schema": schema }),
            json!({ "type": "json_object", "schema": schema }),
        ] {
            assert_eq!(response_format(&format).unwrap(), expected);
        }
        for wrong in [
            json!({ "type": "sound" }),
            json!({ "type": "json_object", "schema": 123 }),
            json!("x"),
            json!({ "type": "json_schema" }),
        ] {
            assert!(response_format(&wrong).is_err(), "{wrong}");
        }
    }
}
