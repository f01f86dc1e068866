//! README's examples, replayed: what it shows is what the program prints.
//!
//! A line that starts with `$` in a code block is a command; the lines up to the next one are its
//! output. Times, rates and sizes of memory differ from run to run, so lines of statistics are
//! compared without their numbers. The output of `plan` may go on after what README shows.
#![cfg(unix)]
#![allow(clippy::unwrap_used)] // what fails here is a test

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rexpect::session::spawn_command;

const README: &str = include_str!("../README.md");
const PROMPT: &str = ">>> ";
/// How lines of statistics start.
const STATISTICS: [&str; 5] = ["load:", "prompt:", "answer:", "KV cache:", "memory:"];

/// The code blocks of README.
fn blocks() -> Vec<&'static str> {
    let fenced = README.split("\n```\n").collect::<Vec<_>>();
    fenced.into_iter().skip(1).step_by(2).collect()
}

/// Commands and their outputs, in order.
fn examples() -> Vec<(&'static str, String)> {
    let mut examples: Vec<(&str, String)> = Vec::new();
    for block in blocks().into_iter().filter(|block| block.starts_with("$ ")) {
        for line in block.lines() {
            match line.strip_prefix("$ ") {
                Some(command) => examples.push((command, String::new())),
                None => examples.last_mut().unwrap().1 += &format!("{line}\n"),
            }
        }
    }
    examples
}

/// The folder in which commands run: a home, with the model that README names.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("models")).unwrap();
    fs::copy(common::calf(), home.path().join("models/calf.gguf")).unwrap();
    fs::create_dir_all(home.path().join(".local/share/bash-completion/completions")).unwrap();
    home
}

/// A command for a shell in this home, where `cachalot` is the program under test.
fn shell(command: &str, home: &Path) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_cachalot"));
    let path = std::env::var("PATH").unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(home).env("HOME", home).env("TERM", "xterm");
    shell.env("PATH", format!("{}:{path}", program.parent().unwrap().display()));
    for variable in ["CACHALOT_CPU", "CACHALOT_THREADS", "NO_COLOR", "XDG_STATE_HOME"] {
        shell.env_remove(variable);
    }
    shell
}

/// The text with the numbers of statistics masked.
fn masked(text: &str) -> String {
    let mask = |line: &str| {
        if !STATISTICS.iter().any(|start| line.starts_with(start)) {
            return line.to_owned();
        }
        let words = line.split_inclusive(|c: char| c.is_whitespace() || c == ';');
        let is_number = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
        let is_unit = |word: &str| ["ms", "s", "KiB", "MiB", "GiB"].contains(&word);
        let kept = words.filter(|word| {
            let word = word.trim_end().trim_end_matches([';', ',']);
            !is_number(word) && !is_unit(word)
        });
        kept.collect()
    };
    text.lines().map(|line| mask(line).trim_end().to_owned() + "\n").collect()
}

#[test]
fn every_example_prints_what_readme_shows() {
    let home = home();
    let mut replayed = 0;
    for (command, expected) in examples() {
        if expected.starts_with("This is calf") {
            continue; // the chat, below
        }
        let output = shell(command, home.path()).stdin(Stdio::null()).output().unwrap();
        let mut printed = String::from_utf8(output.stdout).unwrap();
        printed += &String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{command}: {printed}");
        let (printed, expected) = (masked(&printed), masked(&expected));
        if command.starts_with("cachalot plan") {
            assert!(printed.starts_with(&expected), "{command} prints:\n{printed}");
        } else {
            assert_eq!(printed, expected, "{command}");
        }
        replayed += 1;
    }
    assert!(replayed >= 6, "{replayed} examples are found");
}

#[test]
fn the_first_command_answers_as_shown() {
    let [commands, answer] = blocks()[..2] else { panic!("README starts with a command") };
    let command = commands.lines().next().unwrap();
    let arguments = command.strip_prefix("cargo run --release -- ").unwrap();
    let command = format!("cachalot {arguments} --temp 0 </dev/null");
    let output = shell(&command, home().path()).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim_end(), answer);
}

/// Terminal output without control sequences.
fn plain(text: &str) -> String {
    let mut pieces = text.split('\x1b');
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        plain += piece.trim_start_matches(|c: char| "[?;0123456789".contains(c)).get(1..).unwrap();
    }
    plain.replace('\r', "")
}

#[test]
fn the_chat_goes_as_shown() {
    let examples = examples();
    let (command, session) = examples.iter().find(|(_, out)| out.contains(PROMPT)).unwrap();
    let home = home();
    let mut chat =
        spawn_command(shell(&format!("{command} --temp 0"), home.path()), Some(60_000)).unwrap();
    let mut parts = session.split(PROMPT);
    assert_eq!(plain(&chat.exp_string(PROMPT).unwrap()), parts.next().unwrap());
    for part in parts {
        let (typed, reply) = part.split_once('\n').unwrap();
        chat.send_line(typed).unwrap();
        chat.exp_string("\n").unwrap();
        if typed == "/bye" {
            chat.exp_eof().unwrap();
            return;
        }
        assert_eq!(plain(&chat.exp_string(PROMPT).unwrap()), reply, "{typed}");
    }
    panic!("the example ends with /bye");
}

/// Long options in a text.
fn options(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| word.starts_with("--") && word.len() > 2).collect()
}

#[test]
fn the_options_of_run_are_those_in_readme() {
    let help = common::succeeds(common::cachalot(&["run", "--help"])).stdout;
    let taken: BTreeSet<&str> =
        options(&help).into_iter().filter(|option| *option != "--help").collect();
    let section = README.split("\n### ").find(|section| section.starts_with("`cachalot run"));
    let section = section.unwrap();
    let rows: String =
        section.lines().filter(|line| line.starts_with("| `--")).collect::<Vec<_>>().join("\n");
    let documented = options(&rows);
    let missing: Vec<_> = taken.difference(&documented).collect();
    assert!(missing.is_empty(), "README lacks {missing:?}");
    let known = |option: &str| taken.contains(option) || option == "--temp"; // an alias
    let unknown: Vec<_> = documented.iter().filter(|option| !known(option)).collect();
    assert!(unknown.is_empty(), "`run` does not take {unknown:?}");
}
