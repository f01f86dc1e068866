//! Grammars that force a tool call, in the Lark dialect of llguidance.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::{ToolChoice, ToolFormat};
use crate::Vocab;
use crate::message::Tool;

/// Calls in one answer.
const CALLS_MAX: usize = 16;

impl ToolFormat {
    /// A grammar of the answers that `choice` allows: valid calls, and for `Auto` also text. Start
    /// rule `start`. Nothing if every answer is allowed: for `None`, without tools, and for `Auto`
    /// where the tags are not tokens, so that text and calls cannot be distinguished.
    ///
    /// `parallel`: more than one call is allowed.
    pub fn grammar(
        self,
        choice: &ToolChoice,
        tools: &[Tool],
        parallel: bool,
        vocab: &Vocab,
    ) -> Option<String> {
        let allowed: Vec<&Tool> = match choice {
            ToolChoice::None => return None,
            ToolChoice::Auto | ToolChoice::Required => tools.iter().collect(),
            ToolChoice::Named(name) => tools.iter().filter(|tool| &tool.name == name).collect(),
        };
        if allowed.is_empty() {
            return None;
        }
        let tags = self.tags();
        let tag = |tag: &str| match vocab.special_id(tag) {
            Some(id) => format!("<[{id}]>"),
            None => quoted(tag),
        };
        let mut grammar = String::new();
        if *choice == ToolChoice::Auto {
            vocab.special_id(tags.section_begin)?;
            grammar.push_str("start: TEXT calls?\nTEXT: /(.|\\n)*/\n");
        } else {
            grammar.push_str("start: calls\n");
        }
        let more = match (parallel, self) {
            (false, _) => String::new(),
            (true, Self::R1) => format!(" (\"\\n\" call){{0,{}}}", CALLS_MAX - 1),
            (true, _) => format!(" call{{0,{}}}", CALLS_MAX - 1),
        };
        let (begin, end) = (tag(tags.section_begin), tag(tags.section_end));
        let _ = writeln!(grammar, "calls: {begin} call{more} {end}");
        let names: Vec<String> = (0..allowed.len()).map(|index| format!("tool_{index}")).collect();
        let _ = writeln!(grammar, "call: {}", names.join(" | "));
        let (call_begin, call_end) = (tag(tags.call_begin), tag(tags.call_end));
        let separator = tag(tags.separator);
        for (index, tool) in allowed.into_iter().enumerate() {
            let head = match self {
                Self::R1 => {
                    let name = quoted(&format!("{}\n```json\n", tool.name));
                    format!("\"function\" {separator} {name}")
                }
                Self::V31 => format!("{} {separator}", quoted(&tool.name)),
                Self::KimiK2 => {
                    format!(
                        "{} /[0-9]{{1,3}}/ {separator}",
                        quoted(&format!("functions.{}:", tool.name))
                    )
                }
            };
            let tail = match self.after_arguments() {
                "" => String::new(),
                tail => format!(" {}", quoted(tail)),
            };
            let _ = writeln!(
                grammar,
                "tool_{index}: {call_begin} {head} arguments_{index}{tail} {call_end}\n\
                 arguments_{index}: %json {}",
                schema(&tool.parameters)
            );
        }
        Some(grammar)
    }
}

/// A string literal of the grammar.
fn quoted(text: &str) -> String {
    Json::from(text).to_string()
}

/// The schema of a tool's arguments, which are an object, without free white space.
fn schema(parameters: &Json) -> Json {
    let mut schema = match parameters {
        Json::Object(schema) => schema.clone(),
        _ => serde_json::Map::new(),
    };
    if schema.is_empty() {
        schema.insert("properties".to_owned(), json!({}));
        schema.insert("additionalProperties".to_owned(), Json::Bool(false));
    }
    if !schema.contains_key("type") {
        schema.insert("type".to_owned(), "object".into());
    }
    let options = json!({
        "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": ",
    });
    schema.insert("x-guidance".to_owned(), options);
    Json::Object(schema)
}
