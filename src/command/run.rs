//! `cachalot run`: one answer, or a chat.

use std::io::{self, IsTerminal};

use cachalot_engine::FinishReason;
use cachalot_plan::fit::CONTEXT_DEFAULT_MAX;

use super::chat;
use crate::args::RunArgs;
use crate::conversation::Conversation;
use crate::failure::{Exit, usage};
use crate::input;
use crate::interrupt::Interrupt;
use crate::settings::{Environment, Run};

/// Answers the prompt from the command line or a pipe; without one, starts a chat.
pub(crate) fn run(args: RunArgs, environment: &Environment) -> anyhow::Result<()> {
    let mut run = Run::new(args, environment)?;
    let interrupt = Interrupt::install()?;
    let asked = run.prompt.is_some();
    // A longer text than the context window can hold is refused before the model is loaded.
    let context = run.options.context.unwrap_or(CONTEXT_DEFAULT_MAX as usize);
    let piped = input::piped(input::bytes_of(context))?;
    let Some(prompt) = joined(piped, run.prompt.take()) else {
        if asked || !io::stdin().is_terminal() {
            return Err(usage(
                "no prompt: give one, as in `cachalot run \"Why is the sky blue?\"`, or pipe text to \
                 standard input; on a terminal, `cachalot run` starts a chat",
            ));
        }
        if run.json {
            return Err(usage("--json: a chat has no single answer; give a prompt"));
        }
        return chat::run(run, environment, interrupt);
    };
    let mut conversation = Conversation::begin(run, environment, interrupt)?;
    let reason = conversation.say(&prompt)?;
    conversation.finish()?;
    if reason == FinishReason::Cancelled { Err(Exit::Interrupted.into()) } else { Ok(()) }
}

/// Piped text first, as in Ollama, then the prompt; `None` if both are blank.
fn joined(piped: Option<String>, prompt: Option<String>) -> Option<String> {
    let texts = [piped, prompt].into_iter().flatten();
    let texts: Vec<String> = texts
        .map(|text| text.trim_end().to_owned())
        .filter(|text| !text.trim_start().is_empty())
        .collect();
    (!texts.is_empty()).then(|| texts.join("\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn piped_text_precedes_the_prompt() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(joined(text("a\nb\n"), text("Summarize.")), text("a\nb\n\nSummarize."));
        assert_eq!(joined(text("a\n"), None), text("a"));
        assert_eq!(joined(text(""), text("b")), text("b"));
        assert_eq!(joined(None, text(" ")), None);
        assert_eq!(joined(None, None), None);
    }
}
