//! The chat on a pseudo-terminal, driven by keys.
#![cfg(unix)]
#![allow(clippy::unwrap_used)] // what fails here is a test

mod common;

use std::fs;
use std::path::Path;

use rexpect::session::{PtySession, spawn_command};

const PROMPT: &str = ">>> ";
const PROMPT_MORE: &str = "... ";
/// Start of dimmed thinking.
const DIM: &str = "\x1b[2m";
const UP: &str = "\x1b[A";
const PATIENCE_MS: u64 = 60_000;

/// A chat with calf on a pseudo-terminal.
struct Chat(PtySession);

impl Chat {
    /// Starts a greedy chat with its history in `state`.
    fn begin(state: &Path, flags: &[&str]) -> Self {
        let mut command = common::command(&[&["run", "--temp=0"], flags].concat());
        command.env("TERM", "xterm").env("XDG_STATE_HOME", state);
        let mut chat = Self(spawn_command(command, Some(PATIENCE_MS)).unwrap());
        let greeting = chat.until(PROMPT);
        assert!(greeting.contains("calf") && greeting.contains("/? for help"), "{greeting}");
        chat
    }

    /// Returns what is printed before `text`.
    #[track_caller]
    fn until(&mut self, text: &str) -> String {
        self.0.exp_string(text).unwrap_or_else(|error| panic!("no {text:?}: {error}"))
    }

    /// Types a line; returns what is printed up to the next prompt, without the typing itself.
    #[track_caller]
    fn says(&mut self, line: &str) -> String {
        self.0.send_line(line).unwrap();
        self.until("\r\n"); // the editor echoes the line
        self.until(PROMPT)
    }

    /// Types a line whose reply must contain `expected`.
    #[track_caller]
    fn replies(&mut self, line: &str, expected: &str) -> String {
        let reply = self.says(line);
        assert!(reply.contains(expected), "{line}: {reply}");
        reply
    }

    /// Types keys without ending the line.
    fn types(&mut self, keys: &str) {
        self.0.send(keys).unwrap();
        self.0.flush().unwrap();
    }

    fn press(&mut self, control: char) {
        self.0.send_control(control).unwrap();
    }

    /// Waits for the program to exit with code 0.
    #[track_caller]
    fn ends(mut self) {
        self.0.exp_eof().unwrap();
        let status = format!("{:?}", self.0.process().wait().unwrap());
        assert!(status.starts_with("Exited(") && status.ends_with(", 0)"), "{status}");
    }
}

#[test]
fn a_question_is_answered_after_dimmed_thinking() {
    let state = tempfile::tempdir().unwrap();
    let mut chat = Chat::begin(state.path(), &[]);
    let reply = chat.replies("What is 47 + 38?", "47 + 38 = 85\r\n");
    assert!(reply.contains(&format!("{DIM}Add")), "{reply:?}");
    assert!(!reply.contains("think>"), "tags are for pipes: {reply:?}");
    chat.press('d');
    chat.ends();
}

#[test]
fn commands_change_how_it_answers() {
    let state = tempfile::tempdir().unwrap();
    let mut chat = Chat::begin(state.path(), &[]);
    chat.replies("/?", "/set parameter NAME VALUE");
    chat.replies("/set parameter temperature 0.25", "temperature is now 0.25.");
    chat.replies("/set parameter top_p 7", "from 0 to 1");
    chat.replies("/set parameter temperature warm", "`warm` is not a number");
    chat.replies("/set parameter max_tokens 6", "max_tokens is now 6.");
    chat.replies("/set parameter seed 5", "seed is now 5.");
    chat.replies("/set parameter stop END", "stop is now END.");
    let parameters = chat.says("/show parameters");
    for row in [["temperature", "0.25"], ["max_tokens", "6"], ["seed", "5"], ["stop", "\"END\""]] {
        let is_row = |line: &str| line.split_whitespace().take(2).eq(row);
        assert!(parameters.lines().any(is_row), "{row:?} in {parameters}");
    }
    assert!(parameters.lines().all(|line| line.chars().count() < 80), "{parameters}");
    chat.replies("What is 12 + 30?", "(--max-tokens reached: 6)");
    chat.replies("/set parameter stop STOP", "stop is now END, STOP.");
    chat.replies("/unset parameter stop END", "stop is now STOP.");
    chat.replies("/unset parameter stop END", "not a stop text");
    chat.replies("/unset parameter seed", "seed is now random.");
    chat.replies("/set parameter seed x", "seed: expected a whole number, or random");
    chat.replies("/set parameter num_predict few", "such as 4096 or 32k, or none");
    chat.replies("/set parameter num_predict -1", "num_predict is now none.");
    chat.replies("/set parameter temprature 1", "did you mean `temperature`?");
    chat.replies("/unset parameter temperature", "temperature is now ");
    chat.replies("/set parameter temperature 0", "temperature is now 0.");
    for (name, nothing) in [("max_tokens", "none"), ("seed", "random"), ("stop", "none")] {
        chat.replies(&format!("/set parameter {name} {nothing}"), &format!("is now {nothing}."));
        assert!(chat.says("/show parameters").contains(nothing));
    }
    chat.replies("/set verbose", "Statistics on.");
    chat.replies("What is 12 + 30?", "tokens/s");
    chat.replies("/set quiet", "Statistics off.");
    chat.replies("/set sytem x", "did you mean `system`?");
    chat.0.send_line("/bye").unwrap();
    chat.ends();
}

#[test]
fn thinking_is_disabled_and_enabled() {
    let state = tempfile::tempdir().unwrap();
    let mut chat = Chat::begin(state.path(), &["--max-tokens=20"]);
    chat.replies("/set nothink", "Thinking disabled.");
    let plain = chat.says("What is 12 + 30?");
    assert!(!plain.contains("Add digit") && plain.len() > 10, "{plain:?}");
    chat.replies("/clear", "Conversation cleared.");
    chat.replies("/set think", "Thinking enabled.");
    chat.replies("What is 12 + 30?", &format!("{DIM}Add"));
}

#[test]
fn a_conversation_is_shown_and_cleared() {
    let state = tempfile::tempdir().unwrap();
    let mut chat = Chat::begin(state.path(), &["--verbose"]);
    chat.replies("/show", "(embedded)");
    let first = chat.replies("What is 12 + 30?", "12 + 30 = 42");
    let second = chat.says("What is 12 + 30?");
    let computed = |reply: &str| -> usize {
        let (_, line) = reply.split_once("prompt:").expect("statistics are printed");
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    assert!(computed(&second) > 5 && second.contains("tokens computed, "), "{second}");
    chat.replies("/clear", "Conversation cleared.");
    let again = chat.replies("What is 12 + 30?", "12 + 30 = 42");
    // With the first turns still in the prompt, it would be longer than the first time.
    assert!(computed(&again) < 4, "all but the opening of the thought is in the cache: {again}");
    let answer = |reply: &str| reply.split("\r\nload:").next().unwrap().to_owned();
    assert_eq!(answer(&again), answer(&first));
    chat.replies("/show template", "add_generation_prompt");
}

#[test]
fn quotes_enclose_several_lines() {
    let state = tempfile::tempdir().unwrap();
    let mut chat = Chat::begin(state.path(), &["--hide-thinking"]);
    for line in ["\"\"\"", "What is"] {
        chat.0.send_line(line).unwrap();
        chat.until("\r\n");
        chat.until(PROMPT_MORE);
    }
    let reply = chat.says("12 + 30?\"\"\"");
    let expected = common::cachalot(&["run", "--temp=0", "--hide-thinking", "What is\n12 + 30?"]);
    let expected = common::succeeds(expected).stdout.trim_end().to_owned();
    assert!(reply.contains(&expected), "{expected} in {reply}");
}

#[test]
fn a_conversation_is_saved_and_loaded() {
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("a chat.json");
    let file = file.to_str().unwrap();
    let mut chat = Chat::begin(state.path(), &["--hide-thinking"]);
    chat.replies("/set system Be brief.", "System prompt set.");
    chat.replies("What is 12 + 30?", "12 + 30 =");
    chat.replies(&format!("/save {file}"), "Saved 2 messages");
    chat.replies("/save", "usage: /save FILE");
    chat.replies("/load no-such-file.json", "cannot read no-such-file.json");
    chat.press('d');
    chat.ends();
    let mut chat = Chat::begin(state.path(), &["--hide-thinking"]);
    chat.replies(&format!("/load {file}"), "Loaded 2 messages");
    chat.replies("/show system", "Be brief.");
    chat.replies("/save /dev/null", "only regular files");
    chat.press('d');
    chat.ends();
}

#[test]
fn narrow_terminals_get_whole_words() {
    let state = tempfile::tempdir().unwrap();
    let mut chat = Chat::begin(state.path(), &[]);
    drop(chat.0.send_line("/bye"));
    chat.ends();
    // The size of the pseudo-terminal is set by a shell in it.
    let mut command = std::process::Command::new("sh");
    let program = env!("CARGO_BIN_EXE_cachalot");
    let show =
        format!("stty rows 24 cols 40; {program} show models/calf.gguf; {program} run; echo end");
    command.args(["-c", &show]).env("XDG_STATE_HOME", state.path()).env("TERM", "xterm");
    command.env("CACHALOT_RECORD", "off");
    let mut chat = Chat(spawn_command(command, Some(PATIENCE_MS)).unwrap());
    let page = chat.until(PROMPT);
    for line in page.lines().filter(|line| !line.contains('\x1b')) {
        assert!(line.chars().count() <= 40, "{line:?} in {page}");
    }
    let help = chat.says("/?") + &chat.says("/show parameters");
    for line in help.lines().filter(|line| !line.contains('\x1b')) {
        assert!(line.chars().count() <= 40, "{line:?} in {help}");
    }
}

/// All lines typed, in whatever pieces they arrive, are taken in order.
#[test]
fn no_typed_line_is_lost() {
    let state = tempfile::tempdir().unwrap();
    let mut chat = Chat::begin(state.path(), &["--hide-thinking"]);
    // Several lines in one read, as from a paste without brackets or from a script.
    chat.types("What is 1 + 1?\n/clear\nWhat is 2 + 2?\n/clear\nWhat is 3");
    for answer in ["1 + 1 = 2", "Conversation cleared.", "2 + 2 = 4", "Conversation cleared."] {
        chat.until(answer);
    }
    // The rest of a line that was begun, and lines that arrive while it answers.
    chat.types(" + 3?\n/clear\nWhat is 4 + 4?\n");
    chat.until("3 + 3 = 6");
    chat.types("/clear\n/bye\n");
    chat.until("4 + 4 = 8");
    chat.until("Conversation cleared.");
    chat.ends();
}

#[test]
fn history_is_kept_across_chats_unless_turned_off() {
    let state = tempfile::tempdir().unwrap();
    let mut chat = Chat::begin(state.path(), &["--hide-thinking"]);
    chat.replies("What is 12 + 30?", "12 + 30 = 42");
    chat.replies("/set nohistory", "History off.");
    chat.replies("/show system", "No system prompt");
    chat.press('d');
    chat.ends();
    let kept = fs::read_to_string(state.path().join("cachalot/history")).unwrap();
    assert!(kept.contains("12 + 30") && !kept.contains("/show system"), "{kept}");

    let mut chat = Chat::begin(state.path(), &["--hide-thinking"]);
    chat.types(UP);
    chat.until("/set nohistory");
    chat.types(UP);
    chat.until("What is 12 + 30?");
    chat.replies("", "12 + 30 = 42");
}

#[test]
fn an_interrupt_ends_an_answer_and_not_the_chat() {
    let state = tempfile::tempdir().unwrap();
    // Hot enough to never end, and slow enough to be interrupted on its way.
    let mut chat = Chat::begin(state.path(), &["--top-p=1", "--seed=1", "--exact", "--threads=1"]);
    chat.replies("/set parameter temperature 100", "now 100.");
    chat.0.send_line("Tell me a story.").unwrap();
    chat.until(DIM);
    chat.press('c');
    chat.until("(stopped)");
    chat.until(PROMPT);
    chat.replies("/set parameter temperature 0", "now 0.");
    chat.replies("/clear", "Conversation cleared.");
    chat.replies("What is 12 + 30?", "12 + 30 = 42");
    // Without an answer in progress, it says how to exit.
    chat.press('c');
    chat.until("Ctrl-D or type /bye");
    chat.until(PROMPT);
    chat.press('d');
    chat.ends();
}

#[test]
fn a_file_cannot_control_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let template = "\x1b]0;mine\x07{{ messages[-1].content }}".to_owned();
    let path = common::calf_with(folder.path(), "tokenizer.chat_template", template);
    let mut chat = Chat::begin(folder.path(), &[path.to_str().unwrap()]);
    let shown = chat.replies("/show template", "messages[-1].content");
    assert!(!shown.contains("\x1b]0;"), "{shown:?}");
}

#[test]
fn a_question_that_does_not_fit_leaves_the_chat_alive() {
    let state = tempfile::tempdir().unwrap();
    let mut chat = Chat::begin(state.path(), &["--ctx=100", "--hide-thinking"]);
    chat.0.send_line(&"word ".repeat(100)).unwrap();
    chat.until("context holds 100");
    chat.until(PROMPT);
    chat.replies("What is 12 + 30?", "12 + 30 = 42");
    let full = chat.says("What is 12 + 30?");
    assert!(full.contains("(context window full"), "{full}");
    chat.replies("/clear", "Conversation cleared.");
    chat.replies("What is 12 + 30?", "12 + 30 = 42");
}

#[test]
fn a_long_prompt_shows_progress() {
    let state = tempfile::tempdir().unwrap();
    let text = "What is 12 + 30? ".repeat(150);
    let mut command = common::command(&["run", "--exact", "--threads=1", "--max-tokens=1", &text]);
    command.env("TERM", "xterm").env("XDG_STATE_HOME", state.path());
    let mut chat = Chat(spawn_command(command, Some(PATIENCE_MS)).unwrap());
    chat.until("processing prompt");
    chat.until(" %");
    chat.until("(--max-tokens reached: 1)");
    chat.ends();
}
