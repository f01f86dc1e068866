//! The description of tools for templates that have none: the official ones of R1, R1-0528 and V3.1
//! render calls and results, but not the tools themselves.

use super::ToolFormat;
use crate::message::Tool;

/// A piece of the description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Section {
    /// Ours: its tags are control tokens.
    Ours(String),
    /// From the definition of a tool: text.
    Text(String),
}

impl ToolFormat {
    /// The tools, and how to call them.
    pub(crate) fn offer(self, tools: &[Tool]) -> Vec<Section> {
        let ours = |text: &str| Section::Ours(text.to_owned());
        let tags = self.tags();
        let mut sections = vec![ours("## Tools\n\nYou have access to the following tools:\n\n")];
        for tool in tools {
            let parameters = match &tool.parameters {
                serde_json::Value::Null => "{}".to_owned(),
                parameters => parameters.to_string(),
            };
            let description = tool.description.as_deref().unwrap_or_default();
            sections.push(ours("### "));
            sections.push(Section::Text(tool.name.clone()));
            sections.push(ours("\nDescription: "));
            sections.push(Section::Text(description.to_owned()));
            sections.push(ours("\n\nParameters: "));
            sections.push(Section::Text(parameters));
            sections.push(ours("\n\n"));
        }
        // The wording of V3.1's model card, on which that model was trained.
        let call = self.before_arguments("tool_call_name", 0);
        let end = self.after_arguments();
        let chained = match self {
            Self::R1 => "one after the other, each on a new line",
            Self::V31 | Self::KimiK2 => "directly without separators or spaces",
        };
        sections.push(Section::Ours(format!(
            "IMPORTANT: ALWAYS adhere to this exact format for tool use:\n\
             {}{}{call}tool_call_arguments{end}{}{{additional_tool_calls}}{}\n\n\
             Where:\n\n\
             - `tool_call_name` must be an exact match to one of the available tools\n\
             - `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters \
             Schema\n\
             - For multiple tool calls, chain them {chained}",
            tags.section_begin, tags.call_begin, tags.call_end, tags.section_end,
        )));
        sections
    }
}
