//! Parses a line typed in the chat. The commands are Ollama's.

use crate::terminal::{prose, table};

/// A parsed line.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Line {
    /// Only whitespace.
    Empty,
    /// A message for the model.
    Message(String),
    Help,
    Bye,
    /// Clear the conversation.
    Clear,
    /// Save the conversation to a file.
    Save(String),
    /// Replace the conversation by one from a file.
    Load(String),
    Show(Show),
    Set(Set),
    Unset(Unset),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    Info,
    Parameters,
    System,
    Template,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Set {
    Parameter { name: String, value: String },
    System(String),
    Think(bool),
    Verbose(bool),
    History(bool),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Unset {
    /// Restore the default; with a value, of `stop`, remove only that one.
    Parameter {
        name: String,
        value: Option<String>,
    },
    System,
}

/// The text for `/?`.
pub(super) fn help() -> String {
    let rows = HELP.map(|(command, meaning)| vec![format!("  {command}"), meaning.to_owned()]);
    format!(
        "{}{}",
        table("ll", &rows),
        prose("Put text of several lines between \"\"\" and \"\"\".\nCtrl-C stops an answer.")
    )
}

const HELP: [(&str, &str); 11] = [
    ("/show [TOPIC]", "show info, parameters, system or template"),
    ("/set parameter NAME VALUE", "set a parameter; /show parameters lists them"),
    ("/unset parameter NAME", "restore a parameter's default"),
    ("/set system TEXT", "set the system prompt; /unset system removes it"),
    ("/set think | nothink", "think before answering, or not"),
    ("/set verbose | quiet", "print statistics after each answer, or not"),
    ("/set history | nohistory", "save typed lines to the history, or not"),
    ("/save FILE, /load FILE", "save the conversation, or load one"),
    ("/clear", "clear the conversation"),
    ("/bye", "exit; also Ctrl-D"),
    ("/?", "this help"),
];

/// All completions.
pub(super) const COMMANDS: [&str; 21] = [
    "/?",
    "/bye",
    "/clear",
    "/help",
    "/load ",
    "/save ",
    "/set history",
    "/set nohistory",
    "/set nothink",
    "/set parameter ",
    "/set quiet",
    "/set system ",
    "/set think",
    "/set verbose",
    "/show",
    "/show info",
    "/show parameters",
    "/show system",
    "/show template",
    "/unset parameter ",
    "/unset system",
];

/// Parses a line.
///
/// # Errors
/// A message for the user.
pub(super) fn parse(line: &str) -> Result<Line, String> {
    let line = line.trim();
    if line.is_empty() {
        return Ok(Line::Empty);
    }
    if !line.starts_with('/') {
        return Ok(Line::Message(unquoted(line).to_owned()));
    }
    let (command, rest) = first_word(line);
    let command = match command {
        "/?" | "/help" => return Ok(Line::Help),
        "/show" => return show(rest).map(Line::Show),
        "/set" => return set(rest).map(Line::Set),
        "/unset" => return unset(rest).map(Line::Unset),
        "/save" | "/load" if rest.is_empty() => return Err(format!("usage: {command} FILE")),
        "/save" => return Ok(Line::Save(unquoted(rest).to_owned())),
        "/load" => return Ok(Line::Load(unquoted(rest).to_owned())),
        "/bye" | "/exit" | "/quit" => Line::Bye,
        "/clear" => Line::Clear,
        // A path or a fraction at the start of a message is not a command.
        _ if command[1..].contains(|c: char| !c.is_alphabetic()) => {
            return Ok(Line::Message(line.to_owned()));
        }
        _ => {
            let known = ["/bye", "/clear", "/help", "/load", "/save", "/set", "/show", "/unset"];
            return Err(unknown("command", command, &known));
        }
    };
    if rest.is_empty() {
        Ok(command)
    } else {
        Err(format!("`{line}`: this command takes no value"))
    }
}

fn show(what: &str) -> Result<Show, String> {
    Ok(match what {
        "" | "info" => Show::Info,
        "parameters" => Show::Parameters,
        "system" => Show::System,
        "template" => Show::Template,
        _ => {
            return Err(unknown("topic", what, &["info", "parameters", "system", "template"]));
        }
    })
}

fn set(rest: &str) -> Result<Set, String> {
    let (what, rest) = first_word(rest);
    let set = match what {
        "parameter" => {
            let (name, value) = first_word(rest);
            if value.is_empty() {
                return Err(
                    "usage: /set parameter NAME VALUE; /show parameters lists the names".into()
                );
            }
            return Ok(Set::Parameter { name: name.to_owned(), value: value.to_owned() });
        }
        "system" => return Ok(Set::System(unquoted(rest).to_owned())),
        "think" => Set::Think(true),
        "nothink" => Set::Think(false),
        "verbose" => Set::Verbose(true),
        "quiet" => Set::Verbose(false),
        "history" => Set::History(true),
        "nohistory" => Set::History(false),
        "" => return Err("usage: /set NAME VALUE; /? lists the settings".to_owned()),
        _ => {
            let known = [
                "parameter",
                "system",
                "think",
                "nothink",
                "verbose",
                "quiet",
                "history",
                "nohistory",
            ];
            return Err(unknown("setting", what, &known));
        }
    };
    if rest.is_empty() { Ok(set) } else { Err(format!("`/set {what}` takes no value")) }
}

fn unset(rest: &str) -> Result<Unset, String> {
    let (what, rest) = first_word(rest);
    match (what, rest) {
        ("system", "") => Ok(Unset::System),
        ("parameter", "") | ("", _) => {
            Err("usage: /unset parameter NAME, or /unset system".to_owned())
        }
        ("parameter", rest) => {
            let (name, value) = first_word(rest);
            let value = (!value.is_empty()).then(|| value.trim_matches('"').to_owned());
            Ok(Unset::Parameter { name: name.to_owned(), value })
        }
        _ => Err(unknown("setting", what, &["parameter", "system"])),
    }
}

/// Whether more lines follow: a `"""` is still open.
pub(super) fn is_open(text: &str) -> bool {
    let text = text.trim_start();
    let quoted = text.strip_prefix("/set system").map_or(text, str::trim_start);
    quoted.strip_prefix(QUOTES).is_some_and(|rest| !rest.contains(QUOTES))
}

const QUOTES: &str = "\"\"\"";

/// The text without its quotes, if it has any.
fn unquoted(text: &str) -> &str {
    let inner = text.strip_prefix(QUOTES).and_then(|text| text.strip_suffix(QUOTES));
    let one = || text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    match inner {
        Some(inner) => inner.trim_matches('\n'),
        None if text.starts_with(QUOTES) => text[QUOTES.len()..].trim_matches('\n'),
        None => one().filter(|inner| !inner.contains('"')).unwrap_or(text),
    }
}

fn first_word(text: &str) -> (&str, &str) {
    match text.split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim()),
        None => (text, ""),
    }
}

/// "unknown command `/shwo`; did you mean `/show`?"
fn unknown(kind: &str, typed: &str, known: &[&str]) -> String {
    match nearest(typed, known) {
        Some(name) => format!("unknown {kind} `{typed}`; did you mean `{name}`?"),
        None => format!("unknown {kind} `{typed}`; /? lists the commands"),
    }
}

/// The known name that a typed one was probably meant to be: at most two edits away.
pub(super) fn nearest<'a>(typed: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |name: &&&str| strsim::levenshtein(name, typed);
    known.iter().min_by_key(distance).filter(|name| distance(name) <= 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_parsed() {
        let parameter = |name: &str, value: &str| {
            Line::Set(Set::Parameter { name: name.into(), value: value.into() })
        };
        for (typed, line) in [
            ("", Line::Empty),
            ("  \t", Line::Empty),
            ("/bye", Line::Bye),
            (" /clear ", Line::Clear),
            ("/?", Line::Help),
            ("/help", Line::Help),
            ("/show", Line::Show(Show::Info)),
            ("/show  parameters", Line::Show(Show::Parameters)),
            ("/set parameter temperature 0.2", parameter("temperature", "0.2")),
            ("/set parameter stop two words", parameter("stop", "two words")),
            ("/set system You count sheep.", Line::Set(Set::System("You count sheep.".into()))),
            ("/set system \"Be brief.\"", Line::Set(Set::System("Be brief.".into()))),
            ("/set system", Line::Set(Set::System(String::new()))),
            ("/set nothink", Line::Set(Set::Think(false))),
            ("/set verbose", Line::Set(Set::Verbose(true))),
            ("/set nohistory", Line::Set(Set::History(false))),
            ("/save a chat.json", Line::Save("a chat.json".into())),
            ("/load \"a.json\"", Line::Load("a.json".into())),
            ("/unset system", Line::Unset(Unset::System)),
            (
                "/unset parameter seed",
                Line::Unset(Unset::Parameter { name: "seed".into(), value: None }),
            ),
            (
                "/unset parameter stop the end",
                Line::Unset(Unset::Parameter {
                    name: "stop".into(),
                    value: Some("the end".into()),
                }),
            ),
        ] {
            assert_eq!(parse(typed), Ok(line), "{typed}");
        }
    }

    #[test]
    fn everything_else_is_a_message() {
        for typed in ["hello", "what is /bye?", "/etc/passwd has how many lines?", "/2 of 4"] {
            assert_eq!(parse(typed), Ok(Line::Message(typed.to_owned())));
        }
        assert_eq!(parse("\"quoted\""), Ok(Line::Message("quoted".into())));
        assert_eq!(parse("\"a\" and \"b\""), Ok(Line::Message("\"a\" and \"b\"".into())));
    }

    #[test]
    fn quotes_enclose_several_lines() {
        assert!(is_open("\"\"\"one"));
        assert!(is_open("\"\"\"one\ntwo"));
        assert!(is_open("/set system \"\"\"one"));
        assert!(!is_open("\"\"\"one\ntwo\"\"\""));
        assert!(!is_open("a \"\"\" b"));
        assert_eq!(parse("\"\"\"\none\n two\n\"\"\""), Ok(Line::Message("one\n two".into())));
        assert_eq!(parse("\"\"\"\"\"\""), Ok(Line::Message(String::new())));
        assert_eq!(
            parse("/set system \"\"\"a\nb\"\"\""),
            Ok(Line::Set(Set::System("a\nb".into())))
        );
    }

    #[test]
    fn an_unknown_command_is_named_with_the_nearest() {
        for (typed, nearest) in [
            ("/shwo", "did you mean `/show`"),
            ("/by", "did you mean `/bye`"),
            ("/show parameter", "did you mean `parameters`"),
            ("/set thinks", "did you mean `think`"),
            ("/frobnicate", "/? lists"),
            ("/set frobnicate", "/? lists"),
            ("/set parameter top_p", "NAME VALUE"),
            ("/set", "usage: /set"),
            ("/bye now", "takes no value"),
            ("/save", "usage: /save FILE"),
            ("/unset", "usage: /unset"),
            ("/unset sistem", "did you mean `system`"),
            ("/set verbose please", "takes no value"),
        ] {
            let error = parse(typed).unwrap_err();
            assert!(error.contains(nearest), "{typed}: {error}");
        }
    }

    #[test]
    fn every_completion_is_a_command() {
        for command in COMMANDS {
            let typed = if command.ends_with(' ') {
                format!("{command}top_p 1")
            } else {
                command.to_owned()
            };
            assert!(!matches!(parse(&typed), Err(_) | Ok(Line::Message(_))), "{command}");
        }
    }
}
