//! Conversations: messages, tool calls and tool definitions.

use serde_json::Value as Json;

/// One message of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`; a template may know others.
    pub role: String,
    /// The text; an assistant that only calls tools has none.
    pub content: Option<String>,
    /// The thought before the text, for templates that ask for it. Most drop earlier thoughts.
    pub reasoning: Option<String>,
    /// The tool calls of an assistant.
    pub tool_calls: Vec<ToolCall>,
    /// In a tool result: the name of the tool.
    pub name: Option<String>,
    /// In a tool result: the id of the call it answers.
    pub tool_call_id: Option<String>,
}

impl Message {
    /// A message of text only.
    pub fn new(role: &str, content: &str) -> Self {
        Self { role: role.to_owned(), content: Some(content.to_owned()), ..Self::default() }
    }

    /// Whether an assistant stopped before its text, or has a thought that goes with the text.
    pub(crate) fn is_unfinished(&self) -> bool {
        let has = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        self.role == "assistant" && (has(&self.reasoning) || !has(&self.content))
    }
}

/// A call of a tool by an assistant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolCall {
    /// Identifies the call to its result.
    pub id: Option<String>,
    /// The name of the tool.
    pub name: String,
    /// The arguments as JSON text, normally an object.
    pub arguments: String,
}

/// A tool that the model may call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tool {
    /// The name by which it is called.
    pub name: String,
    /// What it does, for the model to read.
    pub description: Option<String>,
    /// JSON schema of its arguments; `null` for a tool without arguments.
    pub parameters: Json,
}

impl Tool {
    /// The definition as templates expect it:
    /// `{"type": "function", "function": {"name", "description", "parameters"}}`.
    pub fn definition(&self) -> Json {
        let mut function = serde_json::Map::new();
        function.insert("name".to_owned(), self.name.as_str().into());
        if let Some(description) = &self.description {
            function.insert("description".to_owned(), description.as_str().into());
        }
        if !self.parameters.is_null() {
            function.insert("parameters".to_owned(), self.parameters.clone());
        }
        serde_json::json!({ "type": "function", "function": function })
    }
}
