//! The variables of a template: messages and tools as Hugging Face and the OpenAI API write them.

use std::fmt;
use std::sync::Arc;

use minijinja::Value;
use minijinja::value::{Enumerator, Object};
use serde_json::{Map, Value as Json};

use crate::message::Message;
use crate::template::RenderOptions;

/// What templates disagree about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    /// Arguments of tool calls are JSON text, which R1's and V3's official templates append to a
    /// string; others iterate an object.
    pub(super) arguments_as_text: bool,
    /// A message without content has the empty text, not none.
    pub(super) empty_content: bool,
}

impl Form {
    /// All, the most usual first.
    pub(super) const ALL: [Self; 4] = [
        Self { arguments_as_text: false, empty_content: false },
        Self { arguments_as_text: false, empty_content: true },
        Self { arguments_as_text: true, empty_content: false },
        Self { arguments_as_text: true, empty_content: true },
    ];
}

/// A conversation and its options, from which variables are made.
pub(super) struct Input<'a> {
    pub(super) messages: &'a [Message],
    pub(super) options: &'a RenderOptions,
    pub(super) tools: Vec<Json>,
}

impl Input<'_> {
    /// Every text that does not come from the template.
    pub(super) fn texts(&self) -> Vec<&str> {
        let mut texts = Vec::new();
        for message in self.messages {
            texts.extend((!is_plain_name(&message.role)).then_some(message.role.as_str()));
            let optional =
                [&message.content, &message.reasoning, &message.name, &message.tool_call_id];
            texts.extend(optional.into_iter().filter_map(Option::as_deref));
            for call in &message.tool_calls {
                texts.extend([call.name.as_str(), &call.arguments]);
                texts.extend(call.id.as_deref());
            }
        }
        self.tools.iter().for_each(|tool| collect(tool, &mut texts));
        self.options.kwargs.values().for_each(|value| collect(value, &mut texts));
        texts
    }

    /// Bytes of all texts.
    pub(super) fn bytes(&self) -> usize {
        self.texts().iter().map(|text| text.len() + 64).sum()
    }

    /// The variable `messages`; every text passes through `map`.
    pub(super) fn messages(&self, form: Form, map: &mut dyn FnMut(&str) -> String) -> Value {
        self.messages.iter().map(|message| message_value(message, form, map)).collect()
    }

    /// The variable `tools`: none if there are none.
    pub(super) fn tools(&self, map: &mut dyn FnMut(&str) -> String) -> Value {
        if self.tools.is_empty() {
            return Value::from(());
        }
        self.tools.iter().map(|tool| value(tool, map)).collect()
    }

    /// Further variables.
    pub(super) fn kwargs(&self, map: &mut dyn FnMut(&str) -> String) -> Vec<(String, Value)> {
        let kwargs = self.options.kwargs.iter();
        kwargs.map(|(key, json)| (key.clone(), value(json, map))).collect()
    }
}

/// A role such as `user` may complete a tag of the template: `<|user|>`.
fn is_plain_name(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

fn collect<'a>(json: &'a Json, texts: &mut Vec<&'a str>) {
    match json {
        Json::String(text) => texts.push(text),
        Json::Array(items) => items.iter().for_each(|item| collect(item, texts)),
        Json::Object(map) => map.iter().for_each(|(key, item)| {
            texts.push(key);
            collect(item, texts);
        }),
        _ => {}
    }
}

fn message_value(message: &Message, form: Form, map: &mut dyn FnMut(&str) -> String) -> Value {
    let mut pairs: Vec<(&str, Value)> = Vec::with_capacity(6);
    let role = &message.role;
    pairs.push(("role", if is_plain_name(role) { role.into() } else { map(role).into() }));
    let content = match &message.content {
        Some(content) => Value::from(map(content)),
        None if form.empty_content => Value::from(""),
        None => Value::from(()),
    };
    pairs.push(("content", content));
    let optional = [
        ("reasoning_content", &message.reasoning),
        ("name", &message.name),
        ("tool_call_id", &message.tool_call_id),
    ];
    for (key, text) in optional {
        pairs.extend(text.as_deref().map(|text| (key, Value::from(map(text)))));
    }
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            let arguments = arguments(&call.arguments, form.arguments_as_text, map);
            let function = [("name", Value::from(map(&call.name))), ("arguments", arguments)];
            let function = Value::from_pairs(function);
            let id = call.id.as_deref().map(|id| ("id", Value::from(map(id))));
            let rest = [("type", Value::from("function")), ("function", function)];
            Value::from_pairs(id.into_iter().chain(rest))
        });
        pairs.push(("tool_calls", calls.collect()));
    }
    Value::from_pairs(pairs)
}

/// Arguments: an object that prints as the text it came from, or that text.
fn arguments(text: &str, as_text: bool, map: &mut dyn FnMut(&str) -> String) -> Value {
    let object = if as_text { None } else { serde_json::from_str::<Map<String, Json>>(text).ok() };
    match object {
        Some(object) => {
            let object = value(&Json::Object(object), map);
            Value::from_object(Arguments { text: map(text), object })
        }
        None => Value::from(map(text)),
    }
}

/// A JSON value for the engine, its texts mapped.
fn value(json: &Json, map: &mut dyn FnMut(&str) -> String) -> Value {
    match json {
        Json::String(text) => Value::from(map(text)),
        Json::Array(items) => items.iter().map(|item| value(item, map)).collect(),
        Json::Object(object) => {
            Value::from_pairs(object.iter().map(|(key, item)| (map(key), value(item, map))))
        }
        scalar => Value::from(minijinja::value::Serde(scalar)),
    }
}

/// The arguments of a tool call: an object to iterate, whose text is the JSON as it was written.
#[derive(Debug)]
pub(super) struct Arguments {
    text: String,
    object: Value,
}

impl Object for Arguments {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.object.get_item(key).ok().filter(|value| !value.is_undefined())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.object.try_iter().map(Iterator::collect).unwrap_or_default())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
