//! What OpenAI's, llama-server's and our own clients may ask of a generation, and how thinking is
//! switched, in every spelling that is in use.

use cachalot_engine::Request;
use cachalot_engine::request::Constraint;
use cachalot_engine::status::ModelInfo;
use cachalot_text::Think;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use utoipa::ToSchema;

use crate::app::Defaults;
use crate::error::{ApiError, ApiResult};

/// The most texts that may end an answer.
pub(crate) const STOPS_MAX: usize = 256;
/// The most alternatives that are reported for a token.
pub(crate) const TOP_MAX: usize = 20;
/// The most answers to one request.
pub(crate) const ANSWERS_MAX: usize = 16;

/// How tokens are chosen and when an answer ends.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct Options {
    /// 0 always takes the most likely token.
    temperature: Option<f64>,
    top_p: Option<f64>,
    /// 0 is off.
    top_k: Option<f64>,
    min_p: Option<f64>,
    repeat_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    /// -1 is all tokens.
    repeat_last_n: Option<f64>,
    typical_p: Option<f64>,
    xtc_probability: Option<f64>,
    xtc_threshold: Option<f64>,
    dry_multiplier: Option<f64>,
    dry_base: Option<f64>,
    dry_allowed_length: Option<f64>,
    /// -1 is all tokens.
    dry_penalty_last_n: Option<f64>,
    /// The same seed gives the same text; negative is random.
    #[serde(default, deserialize_with = "whole")]
    seed: Option<i64>,
    /// One text or up to 256.
    #[serde(default, deserialize_with = "texts")]
    #[schema(value_type = Option<Vec<String>>)]
    pub(crate) stop: Option<Vec<String>>,
    /// `{"token id or text": bias}`, or `[[id or text, bias or false], ...]`.
    #[schema(value_type = Option<Object>)]
    logit_bias: Option<Value>,
    /// Continue past the tokens that end an answer.
    ignore_eos: Option<bool>,
    /// The slot to run in; negative or none is any that is free.
    #[serde(default, deserialize_with = "whole")]
    id_slot: Option<i64>,
    /// Whether a cached prefix may be used.
    cache_prompt: Option<bool>,
    /// A grammar in GBNF that the answer follows.
    grammar: Option<String>,
    /// A JSON schema that the answer follows.
    #[schema(value_type = Option<Object>)]
    json_schema: Option<Value>,
    /// As `top_logprobs`.
    #[serde(default, deserialize_with = "whole")]
    pub(crate) n_probs: Option<i64>,
    /// Report the progress of the prompt in the stream.
    pub(crate) return_progress: Option<bool>,
    /// Report timings with every chunk of the stream.
    pub(crate) timings_per_token: Option<bool>,
}

impl Options {
    /// The engine's request with these options; `prompt` and `thought` are still to be set.
    ///
    /// # Errors
    /// 400 that names the option.
    pub(crate) fn request(&self, info: &ModelInfo, defaults: &Defaults) -> ApiResult<Request> {
        let mut sampling = info.recommended.clone();
        let all = info.context.tokens as f64;
        let given = [
            ("temperature", self.temperature),
            ("top_p", self.top_p),
            ("top_k", self.top_k.map(|k| k.max(0.0))),
            ("min_p", self.min_p),
            ("repeat_penalty", self.repeat_penalty),
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
            ("repeat_last_n", self.repeat_last_n.map(|n| if n < 0.0 { all } else { n })),
            ("typical_p", self.typical_p),
            ("xtc_probability", self.xtc_probability),
            ("xtc_threshold", self.xtc_threshold),
            ("dry_multiplier", self.dry_multiplier),
            ("dry_base", self.dry_base),
            ("dry_allowed_length", self.dry_allowed_length),
            ("dry_penalty_last_n", self.dry_penalty_last_n),
        ];
        let defaults_given = defaults.sampling.iter().map(|(name, value)| (*name, Some(*value)));
        for (name, value) in defaults_given.chain(given) {
            let Some(value) = value else { continue };
            sampling.set(name, value).map_err(|error| ApiError::field(name, error.to_string()))?;
        }
        Ok(Request {
            sampling,
            seed: self.seed.or(defaults.seed).and_then(|seed| u64::try_from(seed).ok()),
            stop: stops(self.stop.as_deref().unwrap_or(&defaults.stop))?,
            constraint: self.constraint()?,
            logit_bias: self
                .logit_bias
                .as_ref()
                .map_or(Ok(Vec::new()), |bias| biases(bias, info))?,
            ignore_eos: self.ignore_eos.unwrap_or(false),
            cache_prompt: self.cache_prompt.unwrap_or(true),
            ..Request::default()
        })
    }

    /// The slot that is wanted.
    pub(crate) fn slot(&self) -> Option<usize> {
        limit(self.id_slot)
    }

    fn constraint(&self) -> ApiResult<Option<Constraint>> {
        match (&self.json_schema, self.grammar.as_deref().filter(|text| !text.is_empty())) {
            (Some(_), Some(_)) => {
                Err(ApiError::field("grammar", "either `grammar` or `json_schema`, not both"))
            }
            (Some(schema), None) => schema_constraint("json_schema", schema).map(Some),
            (None, Some(grammar)) => Ok(Some(match grammar.strip_prefix("%llguidance") {
                Some(_) => Constraint::Lark(grammar.to_owned()),
                None => Constraint::Gbnf(grammar.to_owned()),
            })),
            (None, None) => Ok(None),
        }
    }
}

/// A JSON schema as a constraint.
///
/// # Errors
/// 400 for something that is not a schema.
pub(crate) fn schema_constraint(param: &str, schema: &Value) -> ApiResult<Constraint> {
    if schema.is_object() || schema.is_boolean() {
        return Ok(Constraint::JsonSchema(schema.clone()));
    }
    Err(ApiError::field(param, format!("`{param}` must be a JSON schema: an object")))
}

/// The texts that end an answer; empty ones never would.
///
/// # Errors
/// 400 if there are too many.
pub(crate) fn stops(given: &[String]) -> ApiResult<Vec<String>> {
    if given.len() > STOPS_MAX {
        let message = format!("`stop` has {} texts, at most {STOPS_MAX}", given.len());
        return Err(ApiError::field("stop", message));
    }
    Ok(given.iter().filter(|text| !text.is_empty()).cloned().collect())
}

fn biases(bias: &Value, info: &ModelInfo) -> ApiResult<Vec<(u32, f32)>> {
    let wrong = || {
        let shape = "`logit_bias` must be {\"token\": number} or [[token, number or false], ...]";
        ApiError::field("logit_bias", shape)
    };
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    match bias {
        Value::Object(map) => {
            for (token, bias) in map {
                let id = token.parse::<u32>().map_or_else(|_| token.clone().into(), Value::from);
                pairs.push((id, bias.clone()));
            }
        }
        Value::Array(items) => {
            for item in items {
                match item.as_array().map(Vec::as_slice) {
                    Some([token, bias]) => pairs.push((token.clone(), bias.clone())),
                    _ => return Err(wrong()),
                }
            }
        }
        _ => return Err(wrong()),
    }
    let mut biases = Vec::new();
    for (token, bias) in pairs {
        let bias = match bias {
            Value::Bool(false) => f32::NEG_INFINITY,
            bias => bias.as_f64().ok_or_else(wrong)? as f32,
        };
        match token {
            Value::String(text) => {
                let ids = info.vocab.encode(&text, false);
                let ids = ids.map_err(|error| ApiError::field("logit_bias", error.to_string()))?;
                biases.extend(ids.into_iter().map(|id| (id, bias)));
            }
            token => {
                let id = token.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(wrong)?;
                biases.push((id, bias));
            }
        }
    }
    Ok(biases)
}

/// A number of tokens: negative is no limit.
pub(crate) fn limit(count: Option<i64>) -> Option<usize> {
    count.and_then(|count| usize::try_from(count).ok())
}

/// Reads a whole number, also when written as `10.0`.
pub(crate) fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    match Option::<f64>::deserialize(from)? {
        None => Ok(None),
        Some(number) if number.fract() == 0.0 && number.abs() <= 2f64.powi(53) => {
            Ok(Some(number as i64))
        }
        Some(number) if number.fract() == 0.0 => {
            // Seeds may have 64 bits; the lower ones of a float are zero, and any seed is a seed.
            Ok(Some((number.abs() / 2048.0) as i64))
        }
        Some(number) => Err(serde::de::Error::custom(format!("{number} is not a whole number"))),
    }
}

/// Reads one text or a list of texts.
pub(crate) fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(vec![text])),
        Value::Array(items) => {
            let texts = items.into_iter().map(|item| match item {
                Value::String(text) => Ok(text),
                _ => Err(serde::de::Error::custom("expected a text or a list of texts")),
            });
            texts.collect::<Result<_, _>>().map(Some)
        }
        _ => Err(serde::de::Error::custom("expected a text or a list of texts")),
    }
}

/// How thinking is switched and bounded, in all spellings.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct Thinking {
    /// Ollama: a boolean, or `low`, `medium`, `high`.
    #[schema(value_type = Option<Object>)]
    think: Option<Value>,
    /// OpenAI: `none` turns thinking off.
    reasoning_effort: Option<String>,
    /// Responses: `{"effort": ...}`.
    #[schema(value_type = Option<Object>)]
    reasoning: Option<Value>,
    /// Anthropic and DeepSeek: `{"type": "enabled" or "disabled", "budget_tokens": N}`.
    #[schema(value_type = Option<Object>)]
    thinking: Option<Value>,
    /// `enable_thinking` and `thinking`; everything is passed to the chat template.
    #[schema(value_type = Option<Object>)]
    pub(crate) chat_template_kwargs: Option<Value>,
    /// The most tokens of a thought; -1 is no limit.
    #[serde(default, deserialize_with = "whole")]
    reasoning_budget_tokens: Option<i64>,
    /// As `reasoning_budget_tokens`.
    #[serde(default, deserialize_with = "whole")]
    thinking_budget_tokens: Option<i64>,
    /// `none` leaves thoughts in the answer, with their tags.
    pub(crate) reasoning_format: Option<String>,
}

impl Thinking {
    /// Whether to think.
    ///
    /// # Errors
    /// 400 for a switch that is neither on nor off.
    pub(crate) fn think(&self) -> ApiResult<Think> {
        let kwargs = |key: &str| self.chat_template_kwargs.as_ref().and_then(|all| all.get(key));
        let effort = self.reasoning.as_ref().and_then(|reasoning| reasoning.get("effort"));
        let kind = self.thinking.as_ref().map(|thinking| thinking.get("type").unwrap_or(thinking));
        let own = self.reasoning_effort.clone().map(Value::from);
        let switches = [
            ("think", self.think.as_ref()),
            ("reasoning_effort", own.as_ref()),
            ("reasoning.effort", effort),
            ("thinking.type", kind),
            ("chat_template_kwargs.enable_thinking", kwargs("enable_thinking")),
            ("chat_template_kwargs.thinking", kwargs("thinking")),
        ];
        let mut think = Think::Auto;
        for (name, value) in switches {
            match value {
                None | Some(Value::Null) => {}
                Some(value) => match on(value) {
                    Some(true) if think == Think::Auto => think = Think::Force,
                    Some(false) => think = Think::Off,
                    Some(true) => {}
                    None => {
                        let message = format!("`{name}` must be a boolean or a level of effort");
                        return Err(ApiError::field(name, message));
                    }
                },
            }
        }
        // A level of effort wants the usual thinking; only R1's templates must be made to.
        Ok(think)
    }

    /// The most tokens of a thought.
    pub(crate) fn budget(&self) -> Option<usize> {
        let nested = self.thinking.as_ref().and_then(|thinking| thinking.get("budget_tokens"));
        let budget = self.reasoning_budget_tokens.or(self.thinking_budget_tokens);
        limit(budget.or_else(|| nested.and_then(Value::as_i64)))
    }
}

fn on(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(on) => Some(*on),
        Value::String(level) => match level.to_ascii_lowercase().as_str() {
            "none" | "disabled" | "false" | "off" => Some(false),
            "minimal" | "low" | "medium" | "high" | "xhigh" | "max" | "enabled" | "adaptive"
            | "auto" | "true" | "on" => Some(true),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn think(body: Value) -> ApiResult<Think> {
        serde_json::from_value::<Thinking>(body).unwrap().think()
    }

    #[test]
    fn thinking_is_switched_in_every_spelling() {
        for off in [
            json!({ "think": false }),
            json!({ "think": "none" }),
            json!({ "reasoning_effort": "none" }),
            json!({ "reasoning": { "effort": "none" } }),
            json!({ "thinking": { "type": "disabled" } }),
            json!({ "chat_template_kwargs": { "enable_thinking": false } }),
            json!({ "chat_template_kwargs": { "thinking": false }, "think": true }),
        ] {
            assert_eq!(think(off.clone()).unwrap(), Think::Off, "{off}");
        }
        for on in [
            json!({ "think": true }),
            json!({ "think": "high" }),
            json!({ "reasoning_effort": "low" }),
            json!({ "thinking": { "type": "enabled", "budget_tokens": 5 } }),
        ] {
            assert_eq!(think(on.clone()).unwrap(), Think::Force, "{on}");
        }
        assert_eq!(think(json!({ "think": null, "thinking": null })).unwrap(), Think::Auto);
        assert!(think(json!({ "think": 3 })).is_err());
        assert!(think(json!({ "reasoning_effort": "loudly" })).is_err());
    }

    #[test]
    fn a_thought_has_a_budget() {
        let budget = |body| serde_json::from_value::<Thinking>(body).unwrap().budget();
        assert_eq!(budget(json!({ "reasoning_budget_tokens": 7 })), Some(7));
        assert_eq!(
            budget(json!({ "thinking": { "type": "enabled", "budget_tokens": 9 } })),
            Some(9)
        );
        assert_eq!(budget(json!({ "reasoning_budget_tokens": -1 })), None);
        assert_eq!(budget(json!({})), None);
    }

    #[test]
    fn numbers_and_texts_are_read_as_clients_write_them() {
        let options = |body| serde_json::from_value::<Options>(body);
        assert_eq!(options(json!({ "seed": 7.0 })).unwrap().seed, Some(7));
        assert!(options(json!({ "seed": 7.5 })).is_err());
        assert_eq!(
            options(json!({ "seed": u64::MAX })).unwrap().seed.map(|seed| seed > 0),
            Some(true)
        );
        assert_eq!(options(json!({ "stop": "a" })).unwrap().stop.unwrap(), ["a"]);
        assert_eq!(options(json!({ "stop": ["a", ""] })).unwrap().stop.unwrap(), ["a", ""]);
        assert_eq!(stops(&["a".to_owned(), String::new()]).unwrap(), ["a"]);
        assert!(options(json!({ "stop": null })).unwrap().stop.is_none());
        assert!(options(json!({ "stop": [1] })).is_err());
        assert!(stops(&vec![String::new(); 257]).is_err());
        assert_eq!((limit(Some(-1)), limit(Some(3)), limit(None)), (None, Some(3), None));
    }
}
