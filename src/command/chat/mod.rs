//! `cachalot run` without a prompt: a chat on the terminal.

mod editor;
mod history;
mod line;
mod saved;
mod settings;

use std::io::{self, Write};

use cachalot_engine::request::SubmitError;
use cachalot_text::Think;

use self::editor::{Editor, Typed};
use self::line::{Line, help};
use crate::conversation::Conversation;
use crate::embedded;
use crate::interrupt::Interrupt;
use crate::remote::ServerError;
use crate::settings::{Environment, Run};
use crate::terminal::prose;

/// Chats until the user leaves.
pub(super) fn run(run: Run, environment: &Environment, interrupt: Interrupt) -> anyhow::Result<()> {
    let is_calf = run.source == embedded::SOURCE;
    let think = run.answering.think;
    let conversation = Conversation::begin(run, environment, interrupt)?;
    let editor = Editor::new(environment.history.clone())?;
    let mut chat = Chat { conversation, editor, think };
    let greeting =
        if is_calf { embedded::INTRODUCTION.to_owned() } else { chat.conversation.verdict() };
    print(&prose(&format!("{greeting}\n/? for help, Ctrl-D to exit.\n")))?;
    while let Some(typed) = chat.editor.read()? {
        match typed {
            Typed::Interrupted => print("Press Ctrl-D or type /bye to exit.")?,
            Typed::Text(text) => {
                if chat.take(&text)? {
                    break;
                }
            }
        }
    }
    chat.conversation.finish()
}

/// Prints a line; an error if standard output is closed, which ends the chat.
fn print(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}

struct Chat {
    conversation: Conversation,
    editor: Editor,
    /// Thinking mode from the command line.
    think: Think,
}

impl Chat {
    /// Handles one input; returns whether the chat is over.
    fn take(&mut self, text: &str) -> anyhow::Result<bool> {
        let reply = match line::parse(text) {
            Ok(Line::Empty) => return Ok(false),
            Ok(Line::Bye) => return Ok(true),
            Ok(Line::Message(text)) => self.say(&text)?,
            Ok(Line::Help) => help(),
            Ok(Line::Clear) => {
                self.conversation.clear();
                "Conversation cleared.".to_owned()
            }
            Ok(Line::Save(file)) => prose(&saved::save(&self.conversation, &file)),
            Ok(Line::Load(file)) => prose(&saved::load(&mut self.conversation, &file)),
            Ok(Line::Show(what)) => settings::show(&self.conversation, what),
            Ok(Line::Set(what)) => prose(&self.set(what)),
            Ok(Line::Unset(what)) => prose(&settings::unset(&mut self.conversation, &what)),
            Err(message) => prose(&message),
        };
        print(&reply)?;
        Ok(false)
    }

    /// Returns what is left to print after the answer.
    fn say(&mut self, text: &str) -> anyhow::Result<String> {
        match self.conversation.say(text) {
            Ok(_) => Ok(String::new()),
            // A failed question does not end the chat; a closed terminal does.
            Err(error)
                if error.is::<cachalot_engine::Error>()
                    || error.is::<SubmitError>()
                    || error.is::<ServerError>() =>
            {
                Ok(prose(&error.to_string()))
            }
            Err(error) => Err(error),
        }
    }

    fn set(&mut self, what: line::Set) -> String {
        if let line::Set::History(on) = what {
            self.editor.set_history(on);
            return if on { "History on." } else { "History off." }.to_owned();
        }
        settings::set(&mut self.conversation, what, self.think)
    }
}
