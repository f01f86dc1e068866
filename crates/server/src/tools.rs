//! Tool calls in the text of an answer, as the model's format has them.

use cachalot_engine::request::Constraint;
use cachalot_text::{Channel, ToolChoice, ToolEvent, ToolParser};

use crate::app::{Served, fresh_id};
use crate::chat::Chat;

/// Finds tool calls, if the conversation may have any.
pub(crate) fn parser(chat: &Chat, served: &Served) -> Option<ToolParser> {
    let possible = !chat.tools.is_empty() && chat.choice != ToolChoice::None;
    possible.then(|| served.template().tool_format().parser(&fresh_id("")))
}

/// What makes calls valid, and makes the model call a tool that it must call.
pub(crate) fn constraint(chat: &Chat, served: &Served) -> Option<Constraint> {
    let format = served.template().tool_format();
    let grammar = format.grammar(&chat.choice, &chat.tools, chat.parallel, &served.info().vocab);
    grammar.map(Constraint::Lark)
}

/// The part of an output that a text belongs to, as the parser names it.
pub(crate) fn channel(kind: cachalot_engine::event::Kind) -> Channel {
    match kind {
        cachalot_engine::event::Kind::Reasoning => Channel::Reasoning,
        cachalot_engine::event::Kind::Answer => Channel::Answer,
    }
}

/// Whether an event is something to write.
pub(crate) fn is_end(event: &ToolEvent) -> bool {
    matches!(event, ToolEvent::End { .. })
}
