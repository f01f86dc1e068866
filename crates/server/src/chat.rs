//! One conversation as all dialects give it, and the prompt that it becomes.

use cachalot_engine::request::ThoughtState;
use cachalot_text::{Message, RenderOptions, Think, Tool, ToolChoice, strip_reasoning};
use serde_json::{Map, Value};

use crate::app::Served;
use crate::error::{ApiError, ApiResult};

/// A conversation whose last message awaits an answer.
#[derive(Debug, Default)]
pub(crate) struct Chat {
    pub(crate) messages: Vec<Message>,
    pub(crate) tools: Vec<Tool>,
    pub(crate) choice: ToolChoice,
    /// Whether several tools may be called at once.
    pub(crate) parallel: bool,
    pub(crate) think: Think,
    /// The last message is the beginning of the answer.
    pub(crate) continue_final: bool,
    pub(crate) add_generation_prompt: bool,
    pub(crate) kwargs: Map<String, Value>,
}

/// What the engine gets.
#[derive(Clone, Debug)]
pub(crate) struct Prompt {
    pub(crate) tokens: Vec<u32>,
    pub(crate) text: String,
    pub(crate) thought: ThoughtState,
}

impl Chat {
    /// Checks what all dialects require.
    ///
    /// # Errors
    /// 400 for a conversation without a message, or with two assistant turns at its end.
    pub(crate) fn check(&self) -> ApiResult<()> {
        let Some(last) = self.messages.last() else {
            return Err(ApiError::field("messages", "`messages` must hold at least one message"));
        };
        let before = self.messages.len().checked_sub(2).map(|i| &self.messages[i].role);
        if last.role == "assistant" && before.is_some_and(|role| role == "assistant") {
            let message = "two assistant messages in a row cannot be the end of a conversation";
            return Err(ApiError::field("messages", message));
        }
        if let ToolChoice::Named(name) = &self.choice
            && !self.tools.iter().any(|tool| tool.name == *name)
        {
            return Err(ApiError::field("tool_choice", format!("there is no tool `{name}`")));
        }
        if self.choice == ToolChoice::Required && self.tools.is_empty() {
            return Err(ApiError::field("tool_choice", "a tool is required, but there is none"));
        }
        Ok(())
    }

    /// Renders and tokenizes the conversation. This computes for a while: not for async tasks.
    ///
    /// # Errors
    /// 400 if the template refuses the conversation.
    pub(crate) fn prompt(&self, served: &Served) -> ApiResult<Prompt> {
        self.check()?;
        let (template, info) = (served.template(), served.info());
        let think = if self.think == Think::Auto { served.think } else { self.think };
        let mut messages = self.messages.clone();
        for message in messages.iter_mut().filter(|message| message.role == "assistant") {
            message.content =
                message.content.as_deref().map(|text| strip_reasoning(text).to_owned());
        }
        let knows_thoughts = info.vocab.id_of("<think>").is_some();
        let options = RenderOptions {
            think: match think {
                Think::Force if !knows_thoughts => Think::Auto,
                think => think,
            },
            tools: self.choice.offered(&self.tools),
            add_generation_prompt: self.add_generation_prompt,
            continue_final_message: self.continues(),
            kwargs: self.kwargs.clone(),
        };
        let refused = |error: cachalot_text::Error| ApiError::field("messages", error.to_string());
        let prompt = template.render(&messages, &options).map_err(refused)?;
        Ok(Prompt {
            tokens: prompt.tokens(&info.vocab).map_err(refused)?,
            thought: prompt.tail().into(),
            text: prompt.text().to_owned(),
        })
    }

    /// Whether the last message is continued: when asked, and by the habit of llama-server's
    /// clients when it is an assistant's text without tool calls.
    fn continues(&self) -> bool {
        let last = self.messages.last();
        self.continue_final
            || last.is_some_and(|last| last.role == "assistant" && last.tool_calls.is_empty())
    }
}

/// The text of a message's content: a text, or a list of parts that are texts.
///
/// # Errors
/// 400 for images, audio and files, with a sentence; and for anything else.
pub(crate) fn text(content: &Value, param: &str) -> ApiResult<Option<String>> {
    match content {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        Value::Array(parts) => {
            let mut texts = Vec::with_capacity(parts.len());
            for part in parts {
                texts.extend(part_text(part, param)?);
            }
            Ok(Some(texts.join("\n\n")))
        }
        _ => Err(ApiError::field(param, format!("`{param}` must be a text or a list of parts"))),
    }
}

fn part_text<'a>(part: &'a Value, param: &str) -> ApiResult<Option<&'a str>> {
    let refused = |message: String| Err(ApiError::field(param, message));
    if let Value::String(text) = part {
        return Ok(Some(text));
    }
    let Some(kind) = part.get("type").and_then(Value::as_str) else {
        return refused(format!("a part of `{param}` must be an object with a `type`"));
    };
    match kind {
        "text" | "input_text" | "output_text" | "refusal" => {
            let key = if kind == "refusal" { "refusal" } else { "text" };
            match part.get(key).and_then(Value::as_str) {
                Some(text) => Ok(Some(text)),
                None => refused(format!("a part of type `{kind}` must have a `{key}`")),
            }
        }
        "thinking" | "redacted_thinking" | "reasoning" | "reasoning_text" => Ok(None),
        "image" | "image_url" | "input_image" => {
            refused("this model reads text only: images are not supported".to_owned())
        }
        "audio" | "input_audio" | "file" | "input_file" | "document" | "video_url" => {
            refused(format!("this model reads text only: a part of type `{kind}` is not supported"))
        }
        _ => refused(format!("a part of type `{kind}` is not known")),
    }
}

/// A tool of OpenAI's and Ollama's shape: `{"type": "function", "function": {...}}`, or as in
/// Responses the function itself.
///
/// # Errors
/// 400 that says what is missing.
pub(crate) fn tool(value: &Value, index: usize) -> ApiResult<Tool> {
    let wrong = |message: String| ApiError::field("tools", format!("`tools[{index}]` {message}"));
    let object = value.as_object().ok_or_else(|| wrong("must be an object".to_owned()))?;
    let kind = object.get("type").and_then(Value::as_str).unwrap_or("function");
    if kind != "function" && kind != "custom" {
        return Err(wrong(format!("is of type `{kind}`: only functions are supported")));
    }
    let function = match object.get("function") {
        Some(function) => function
            .as_object()
            .ok_or_else(|| wrong("needs a `function` that is an object".into()))?,
        None => object,
    };
    let name = function.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
    let parameters = ["parameters", "input_schema"].iter().find_map(|key| function.get(*key));
    Ok(Tool {
        name: name.ok_or_else(|| wrong("needs a `name`".to_owned()))?.to_owned(),
        description: function.get("description").and_then(Value::as_str).map(str::to_owned),
        parameters: match parameters {
            None | Some(Value::Null) => Value::Null,
            Some(parameters) if parameters.is_object() => parameters.clone(),
            Some(_) => return Err(wrong("has `parameters` that are no object".to_owned())),
        },
    })
}

/// `tool_choice` of OpenAI's shapes.
///
/// # Errors
/// 400 for anything that is none of them.
pub(crate) fn tool_choice(value: Option<&Value>) -> ApiResult<ToolChoice> {
    let wrong = || {
        let message = "`tool_choice` must be auto, none, required, or name a function";
        ApiError::field("tool_choice", message)
    };
    match value {
        None | Some(Value::Null) => Ok(ToolChoice::Auto),
        Some(Value::String(choice)) => match choice.as_str() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" | "any" => Ok(ToolChoice::Required),
            _ => Err(wrong()),
        },
        Some(Value::Object(choice)) => {
            let function = choice.get("function").and_then(|function| function.get("name"));
            let name = function.or_else(|| choice.get("name")).and_then(Value::as_str);
            match (choice.get("type").and_then(Value::as_str), name) {
                (Some("function" | "tool" | "custom"), Some(name)) => {
                    Ok(ToolChoice::Named(name.to_owned()))
                }
                (Some("auto"), _) => Ok(ToolChoice::Auto),
                (Some("none"), _) => Ok(ToolChoice::None),
                (Some("any" | "required"), _) => Ok(ToolChoice::Required),
                (Some("allowed_tools"), _) => match choice.get("mode").and_then(Value::as_str) {
                    Some("required") => Ok(ToolChoice::Required),
                    _ => Ok(ToolChoice::Auto),
                },
                _ => Err(wrong()),
            }
        }
        Some(_) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn content_is_text_or_parts_of_text() {
        let read = |content: Value| text(&content, "content");
        assert_eq!(read(json!("a")).unwrap().as_deref(), Some("a"));
        assert_eq!(read(json!(null)).unwrap(), None);
        let parts = json!([{ "type": "text", "text": "a" }, { "type": "input_text", "text": "b" }]);
        assert_eq!(read(parts).unwrap().as_deref(), Some("a\n\nb"));
        let image = json!([{ "type": "image_url", "image_url": { "url": "data:" } }]);
        assert!(read(image).unwrap_err().message.contains("images are not supported"));
        for wrong in [
            json!(1),
            json!([1]),
            json!([{}]),
            json!([{ "type": "text" }]),
            json!([{ "type": "x" }]),
        ] {
            assert_eq!(read(wrong.clone()).unwrap_err().status, 400, "{wrong}");
        }
    }

    #[test]
    fn tools_are_functions() {
        let function =
            json!({ "name": "f", "description": "d", "parameters": { "type": "object" } });
        let tool_of = |value: Value| tool(&value, 0);
        let nested = tool_of(json!({ "type": "function", "function": function })).unwrap();
        let mut flat = function;
        flat["type"] = "function".into();
        assert_eq!(tool_of(flat).unwrap(), nested);
        for wrong in [
            json!(1),
            json!({}),
            json!({ "type": "web_search" }),
            json!({ "name": "f", "parameters": 1 }),
        ] {
            assert!(tool_of(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_choice_of_tools_has_many_shapes() {
        let choice = |value: Value| tool_choice(Some(&value));
        assert_eq!(choice(json!("required")).unwrap(), ToolChoice::Required);
        assert_eq!(choice(json!({ "type": "any" })).unwrap(), ToolChoice::Required);
        let named = ToolChoice::Named("f".to_owned());
        assert_eq!(
            choice(json!({ "type": "function", "function": { "name": "f" } })).unwrap(),
            named
        );
        assert_eq!(choice(json!({ "type": "function", "name": "f" })).unwrap(), named);
        assert_eq!(choice(json!({ "type": "tool", "name": "f" })).unwrap(), named);
        assert!(choice(json!("perhaps")).is_err() && choice(json!(3)).is_err());
        assert_eq!(tool_choice(None).unwrap(), ToolChoice::Auto);
    }

    #[test]
    fn a_conversation_is_checked() {
        let chat = |roles: &[&str]| Chat {
            messages: roles.iter().map(|role| Message::new(role, "x")).collect(),
            ..Chat::default()
        };
        assert!(chat(&[]).check().is_err());
        assert!(chat(&["user"]).check().is_ok());
        assert!(chat(&["user", "assistant"]).check().is_ok());
        assert!(chat(&["user", "assistant", "assistant"]).check().is_err());
        let named = Chat { choice: ToolChoice::Named("f".to_owned()), ..chat(&["user"]) };
        assert!(named.check().is_err());
    }
}
