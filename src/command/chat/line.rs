//! Parses a line typed in the chat. The commands are Ollama's.

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
    Show(Show),
    Set(Set),
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

/// Printed by `/?`.
pub(super) const HELP: &str = r#"  /show [info|parameters|system|template]
                             show the model and the settings
  /set parameter NAME VALUE  set a parameter; /show parameters lists them
  /set system TEXT           set the system prompt
  /set think | nothink       think before answering, or not
  /set verbose | quiet       print statistics after each answer, or not
  /set history | nohistory   save typed lines to the history, or not
  /clear                     clear the conversation
  /bye                       exit; also Ctrl-D
  /?                         this help
Put text of several lines between """ and """.
Ctrl-C stops an answer."#;

/// All completions.
pub(super) const COMMANDS: [&str; 17] = [
    "/?",
    "/bye",
    "/clear",
    "/help",
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
        "/bye" | "/exit" | "/quit" => Line::Bye,
        "/clear" => Line::Clear,
        // A path or a fraction at the start of a message is not a command.
        _ if command[1..].contains(|c: char| !c.is_alphabetic()) => {
            return Ok(Line::Message(line.to_owned()));
        }
        _ => {
            let known = ["/bye", "/clear", "/help", "/set", "/show"];
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
    let nearest = known.iter().min_by_key(|name| distance(name, typed));
    match nearest.filter(|name| distance(name, typed) <= 2) {
        Some(name) => format!("unknown {kind} `{typed}`; did you mean `{name}`?"),
        None => format!("unknown {kind} `{typed}`; /? lists the commands"),
    }
}

/// How many letters must be inserted, deleted or replaced to make `a` of `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
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
            ("/set verbose please", "takes no value"),
        ] {
            let error = parse(typed).unwrap_err();
            assert!(error.contains(nearest), "{typed}: {error}");
        }
    }

    #[test]
    fn every_completion_is_a_command() {
        for command in COMMANDS {
            let typed = if command.ends_with("parameter ") {
                format!("{command}top_p 1")
            } else {
                command.to_owned()
            };
            assert!(!matches!(parse(&typed), Err(_) | Ok(Line::Message(_))), "{command}");
        }
    }
}
