//! Line editor of the chat: editing, completion of commands, history across chats.

use std::path::PathBuf;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Helper};

use super::history;
use super::line::{COMMANDS, is_open};

const PROMPT: &str = ">>> ";
const PROMPT_MORE: &str = "... ";
/// Maximum number of lines in the history.
const HISTORY_MAX: usize = 1000;

/// What was typed.
pub(super) enum Typed {
    /// A line, or several lines between `"""`.
    Text(String),
    /// Ctrl-C.
    Interrupted,
}

/// The line editor.
pub(super) struct Editor {
    editor: rustyline::Editor<Commands, MemHistory>,
    /// File of the history; without one, the history ends with the chat.
    history: Option<PathBuf>,
    records: bool,
}

impl Editor {
    /// An editor with its history in this file, if it can be written.
    ///
    /// # Errors
    /// If the terminal cannot be used.
    pub(super) fn new(history: Option<PathBuf>) -> anyhow::Result<Self> {
        let config = Config::builder().max_history_size(HISTORY_MAX)?.auto_add_history(false);
        let config = config.build();
        let history_of_session = MemHistory::with_config(&config);
        let mut editor = rustyline::Editor::with_history(config, history_of_session)?;
        editor.set_helper(Some(Commands));
        for entry in history.as_deref().map(history::load).unwrap_or_default() {
            editor.add_history_entry(entry)?;
        }
        Ok(Self { editor, history, records: true })
    }

    /// Whether lines are added to the history from now on.
    pub(super) fn set_history(&mut self, on: bool) {
        self.records = on;
    }

    /// Reads the next input; `None` at its end, which is Ctrl-D.
    ///
    /// # Errors
    /// If the terminal is closed.
    pub(super) fn read(&mut self) -> anyhow::Result<Option<Typed>> {
        let mut text = String::new();
        loop {
            let prompt = if text.is_empty() { PROMPT } else { PROMPT_MORE };
            match self.editor.readline(prompt) {
                Ok(line) => text.push_str(&line),
                Err(ReadlineError::Eof) => return Ok(None),
                Err(ReadlineError::Interrupted) => return Ok(Some(Typed::Interrupted)),
                Err(error) => return Err(error.into()),
            }
            if !is_open(&text) {
                break;
            }
            text.push('\n');
        }
        self.add_to_history(&text);
        Ok(Some(Typed::Text(text)))
    }

    fn add_to_history(&mut self, text: &str) {
        if !self.records || text.trim().is_empty() {
            return;
        }
        // A history that cannot be saved still works until the chat ends.
        let added = self.editor.add_history_entry(text);
        if let (Ok(true), Some(path)) = (added, &self.history) {
            history::append(path, text, HISTORY_MAX);
        }
    }
}

/// Completes commands.
struct Commands;

impl Completer for Commands {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok((0, completions(&line[..position])))
    }
}

fn completions(typed: &str) -> Vec<String> {
    let fits = |command: &&&str| typed.starts_with('/') && command.starts_with(typed);
    COMMANDS.iter().filter(fits).map(ToString::to_string).collect()
}

impl Hinter for Commands {
    type Hint = String;
}
impl Highlighter for Commands {}
impl Validator for Commands {}
impl Helper for Commands {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_complete() {
        assert_eq!(completions("/b"), ["/bye"]);
        assert_eq!(completions("/set no"), ["/set nohistory", "/set nothink"]);
        assert_eq!(completions("b"), [""; 0]);
        assert_eq!(completions(""), [""; 0]);
    }
}
