//! Lines typed by a person: editing, completion of commands, history across chats.

use std::fs;
use std::path::{Path, PathBuf};

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Helper};

use super::line::{COMMANDS, goes_on};

const PROMPT: &str = ">>> ";
const PROMPT_MORE: &str = "... ";
/// Lines that the history keeps.
const HISTORY_MAX: usize = 1000;

/// What a person typed.
pub(super) enum Typed {
    /// A line, or several between `"""`.
    Text(String),
    /// Ctrl-C.
    Interrupted,
}

/// The line editor.
pub(super) struct Editor {
    editor: rustyline::Editor<Commands, FileHistory>,
    /// Where the history is kept; without it, the history ends with the chat.
    history: Option<PathBuf>,
    remembers: bool,
}

impl Editor {
    /// An editor that keeps its history in this file, if that can be written.
    ///
    /// # Errors
    /// If the terminal cannot be used.
    pub(super) fn new(history: Option<PathBuf>) -> anyhow::Result<Self> {
        let config = Config::builder().max_history_size(HISTORY_MAX)?.auto_add_history(false);
        let mut editor = rustyline::Editor::with_config(config.build())?;
        editor.set_helper(Some(Commands));
        let history = history.filter(|path| prepare(path));
        if let Some(path) = &history {
            // An old history that cannot be read is no reason not to chat.
            let _ = editor.load_history(path);
        }
        Ok(Self { editor, history, remembers: true })
    }

    /// Whether to remember what is typed from now on.
    pub(super) fn remember(&mut self, on: bool) {
        self.remembers = on;
    }

    /// What is typed next; `None` at the end of input, which is Ctrl-D.
    ///
    /// # Errors
    /// If the terminal is gone.
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
            if !goes_on(&text) {
                break;
            }
            text.push('\n');
        }
        self.add_to_history(&text);
        Ok(Some(Typed::Text(text)))
    }

    fn add_to_history(&mut self, text: &str) {
        if !self.remembers || text.trim().is_empty() {
            return;
        }
        // A history that cannot be written is still there until the chat ends.
        let added = self.editor.add_history_entry(text);
        if let (Ok(true), Some(path)) = (added, &self.history) {
            let _ = self.editor.append_history(path);
        }
    }
}

/// Makes the folder; whether there is one.
fn prepare(path: &Path) -> bool {
    path.parent().is_some_and(|folder| fs::create_dir_all(folder).is_ok())
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

    #[test]
    fn a_place_that_cannot_be_made_is_no_place() {
        let folder = tempfile::tempdir().unwrap();
        assert!(prepare(&folder.path().join("a/b/history")));
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(!prepare(&file.join("history")));
    }
}
