//! `cachalot run`: one answer, or a chat.

use std::io::{self, IsTerminal, Write};

use cachalot_engine::event::FinishReason;
use cachalot_engine::layout::Source;
use cachalot_engine::request::{embedded_vocab, open_vocab, render};
use cachalot_plan::fit::CONTEXT_DEFAULT_MAX;
use cachalot_text::Message;

use super::chat;
use crate::args::RunArgs;
use crate::conversation::Conversation;
use crate::failure::{Exit, usage};
use crate::input;
use crate::interrupt::Interrupt;
use crate::settings::{Environment, Run};
use crate::terminal::{note, without_controls};

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
        if run.arriving.is_some() {
            return Err(usage("--while-pulling: give a prompt; a chat starts once it is complete"));
        }
        if run.json {
            return Err(usage("--json: a chat has no single answer; give a prompt"));
        }
        return chat::run(run, environment, interrupt);
    };
    if run.show_prompt {
        return show_prompt(&run, &prompt);
    }
    let arriving = run.arriving.take();
    let answer = || {
        let mut conversation = Conversation::begin(run, environment, interrupt)?;
        let reason = conversation.say(&prompt)?;
        conversation.finish()?;
        Ok(reason)
    };
    let reason = match arriving {
        Some(arriving) => arriving.end(answer())?,
        None => answer()?,
    };
    if reason == FinishReason::Cancelled { Err(Exit::Interrupted.into()) } else { Ok(()) }
}

/// Prints the prompt that would be computed.
fn show_prompt(run: &Run, prompt: &str) -> anyhow::Result<()> {
    let vocab = match &run.source {
        Source::File(path) => open_vocab(path)?,
        Source::Embedded(bytes) => embedded_vocab(bytes)?,
    };
    let system = run.system.iter().map(|text| Message::new("system", text));
    let messages: Vec<Message> = system.chain([Message::new("user", prompt)]).collect();
    let template = run.options.chat_template.as_deref();
    let prompt = render(&vocab, template, &messages, run.answering.think)?;
    if let Some(warning) = prompt.warning {
        note(&format!("{warning}."));
    }
    let mut out = io::stdout();
    if out.is_terminal() {
        writeln!(out, "{}", without_controls(&prompt.text))?;
    } else {
        write!(out, "{}", prompt.text)?;
    }
    Ok(())
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
