//! Tool calls: how each family writes them, offers tools, and is constrained to call one.
//!
//! | format | a call |
//! |---|---|
//! | R1, R1-0528 | `<｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME`, a fenced JSON block, `<｜tool▁call▁end｜>` |
//! | V3.1 | `<｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{...}<｜tool▁call▁end｜>` |
//! | Kimi-K2 | `<|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>{...}<|tool_call_end|>` |
//!
//! All calls of an answer are in one section with tags of its own. Sources: the models' published
//! chat templates, and the model card of V3.1.

mod grammar;
mod offer;
mod parser;

pub(crate) use offer::Section;
pub use parser::{Channel, ToolEvent, ToolParser};

use crate::Vocab;
use crate::message::{Tool, ToolCall};

/// How a family of models writes tool calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ToolFormat {
    /// DeepSeek-R1 and R1-0528, V3: with a type before the name, and a fenced block.
    R1,
    /// DeepSeek-V3.1.
    V31,
    /// Kimi-K2.
    KimiK2,
}

/// Whether and which tools the model is to call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// None: the prompt does not mention tools.
    None,
    /// The model decides.
    #[default]
    Auto,
    /// At least one, of any tool.
    Required,
    /// This tool.
    Named(String),
}

impl ToolChoice {
    /// The tools that the prompt offers.
    pub fn offered(&self, tools: &[Tool]) -> Vec<Tool> {
        match self {
            Self::None => Vec::new(),
            _ => tools.to_vec(),
        }
    }
}

/// The tags of a format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tags {
    pub(crate) section_begin: &'static str,
    pub(crate) section_end: &'static str,
    pub(crate) call_begin: &'static str,
    pub(crate) call_end: &'static str,
    /// Before the name (R1) or the arguments.
    pub(crate) separator: &'static str,
}

const DEEPSEEK: Tags = Tags {
    section_begin: "<｜tool▁calls▁begin｜>",
    section_end: "<｜tool▁calls▁end｜>",
    call_begin: "<｜tool▁call▁begin｜>",
    call_end: "<｜tool▁call▁end｜>",
    separator: "<｜tool▁sep｜>",
};

const KIMI: Tags = Tags {
    section_begin: "<|tool_calls_section_begin|>",
    section_end: "<|tool_calls_section_end|>",
    call_begin: "<|tool_call_begin|>",
    call_end: "<|tool_call_end|>",
    separator: "<|tool_call_argument_begin|>",
};

impl ToolFormat {
    /// The format of a model, by its template and its vocabulary; R1's where neither tells.
    pub(crate) fn of_source(source: &str, vocab: &Vocab) -> Self {
        let has = |tag: &str| source.contains(tag) || vocab.special_id(tag).is_some();
        if has(KIMI.section_begin) {
            Self::KimiK2
        } else if source.contains("```json") {
            Self::R1
        } else if source.contains(DEEPSEEK.separator) {
            Self::V31
        } else {
            Self::R1
        }
    }

    pub(crate) fn tags(self) -> Tags {
        match self {
            Self::R1 | Self::V31 => DEEPSEEK,
            Self::KimiK2 => KIMI,
        }
    }

    /// A parser of answers. `unique` makes the ids of its calls differ from those of other answers.
    pub fn parser(self, unique: &str) -> ToolParser {
        ToolParser::new(self, unique)
    }

    /// The calls as the model writes them: what [`parser`](Self::parser) reads.
    pub fn render(self, calls: &[ToolCall]) -> String {
        let tags = self.tags();
        let mut text = tags.section_begin.to_owned();
        for (index, call) in calls.iter().enumerate() {
            text.push_str(if index > 0 && self == Self::R1 { "\n" } else { "" });
            text.push_str(tags.call_begin);
            text.push_str(&self.before_arguments(&call.name, index));
            text.push_str(&call.arguments);
            text.push_str(self.after_arguments());
            text.push_str(tags.call_end);
        }
        text + tags.section_end
    }

    /// What stands between the beginning of a call and its arguments.
    fn before_arguments(self, name: &str, index: usize) -> String {
        let separator = self.tags().separator;
        match self {
            Self::R1 => format!("function{separator}{name}\n```json\n"),
            Self::V31 => format!("{name}{separator}"),
            Self::KimiK2 => format!("functions.{name}:{index}{separator}"),
        }
    }

    fn after_arguments(self) -> &'static str {
        if self == Self::R1 { "\n```" } else { "" }
    }
}
