//! Python's methods of strings and lists, as far as the engine's own are missing or differ.

use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{ErrorKind, State, Value};

use super::{Outcome, invalid};

/// Calls a method of a value that is not an object of the engine.
pub(super) fn call(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Outcome<Value> {
    let found = match (value.as_str(), value.kind()) {
        (Some(text), _) => string(state, text, method, args)?,
        (None, ValueKind::Seq) => list(value, method, args)?,
        _ => None,
    };
    match found {
        Some(result) => Ok(result),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// Where `justify` puts the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
    Both,
}

// tidy: long because it is one table, of Python's methods
fn string(
    state: &State<'_, '_>,
    text: &str,
    method: &str,
    args: &[Value],
) -> Outcome<Option<Value>> {
    let not_found = || invalid("substring not found");
    Ok(Some(match method {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            Value::from(match method {
                "lstrip" => trim_start(text, chars),
                "rstrip" => trim_end(text, chars),
                _ => trim(text, chars),
            })
        }
        "title" => {
            let (): () = from_args(args)?;
            Value::from(title(text))
        }
        "split" | "rsplit" => {
            let (separator, most, options): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
            let separator = separator.or(options.get("sep")?).filter(|value| !value.is_none());
            let most = most.or(options.get("maxsplit")?).unwrap_or(-1);
            options.assert_all_used()?;
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            let parts = match separator.as_ref().map(|value| value.as_str().unwrap_or_default()) {
                Some("") => return Err(invalid("empty separator")),
                Some(separator) if method == "split" => split(text, separator, most),
                Some(separator) => rsplit(text, separator, most),
                None if method == "split" => split_spaces(text, most),
                None => rsplit_spaces(text, most),
            };
            state.consume_fuel((parts.len() / 4) as u64)?;
            parts.into_iter().map(Value::from).collect()
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            if separator.is_empty() {
                return Err(invalid("empty separator"));
            }
            let first = method == "partition";
            let found = if first { text.find(separator) } else { text.rfind(separator) };
            let parts = match found {
                Some(at) => [&text[..at], separator, &text[at + separator.len()..]],
                None if first => [text, "", ""],
                None => ["", "", text],
            };
            Value::from_object(Tuple::new(parts.map(Value::from).to_vec()))
        }
        "find" | "rfind" | "index" | "rindex" => {
            let (wanted, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let (part, before) = slice(text, start, end);
            let at = if method.starts_with('r') { part.rfind(wanted) } else { part.find(wanted) };
            match at {
                Some(at) => Value::from(before + part[..at].chars().count()),
                None if method.ends_with("find") => Value::from(-1),
                None => return Err(not_found()),
            }
        }
        "count" => {
            let (wanted, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let part = slice(text, start, end).0;
            let empty = wanted.is_empty();
            Value::from(if empty { part.chars().count() + 1 } else { part.matches(wanted).count() })
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "swapcase" => {
            let () = from_args(args)?;
            Value::from(text.chars().flat_map(swapped).collect::<String>())
        }
        "casefold" => {
            let () = from_args(args)?;
            Value::from(text.replace('ß', "ss").to_lowercase())
        }
        "ljust" | "rjust" | "center" => {
            let (width, fill): (i64, Option<char>) = from_args(args)?;
            let width = usize::try_from(width).unwrap_or(0);
            let side = match method {
                "ljust" => Side::Left,
                "rjust" => Side::Right,
                _ => Side::Both,
            };
            Value::from(justify(state, text, width, fill.unwrap_or(' '), side)?)
        }
        "zfill" => {
            let (width,): (i64,) = from_args(args)?;
            let width = usize::try_from(width).unwrap_or(0);
            let (sign, digits) = match text.strip_prefix(['-', '+']) {
                Some(digits) => (&text[..1], digits),
                None => ("", text),
            };
            let width = width.saturating_sub(sign.len());
            let digits = justify(state, digits, width, '0', Side::Right)?;
            Value::from(format!("{sign}{digits}"))
        }
        "splitlines" => {
            let (keep, options): (Option<bool>, Kwargs) = from_args(args)?;
            let keep = keep.or(options.get("keepends")?).unwrap_or(false);
            split_lines(text, keep).into_iter().map(Value::from).collect()
        }
        "isdecimal" => {
            let () = from_args(args)?;
            Value::from(!text.is_empty() && text.chars().all(char::is_numeric))
        }
        _ => return Ok(None),
    }))
}

fn list(value: &Value, method: &str, args: &[Value]) -> Outcome<Option<Value>> {
    if method != "index" {
        return Ok(None);
    }
    let (wanted,): (&Value,) = from_args(args)?;
    let at = value.try_iter()?.position(|item| &item == wanted);
    let missing = || minijinja::Error::new(ErrorKind::InvalidOperation, "value is not in list");
    Ok(Some(Value::from(at.ok_or_else(missing)?)))
}

/// What Python's `str.isspace` accepts: four control characters more than Unicode.
fn is_space(char: char) -> bool {
    char.is_whitespace() || matches!(char, '\x1c'..='\x1f')
}

fn is_stripped(char: char, chars: Option<&str>) -> bool {
    chars.map_or_else(|| is_space(char), |chars| chars.contains(char))
}

/// `str.strip`.
pub(super) fn trim<'t>(text: &'t str, chars: Option<&str>) -> &'t str {
    text.trim_matches(|char| is_stripped(char, chars))
}

fn trim_start<'t>(text: &'t str, chars: Option<&str>) -> &'t str {
    text.trim_start_matches(|char| is_stripped(char, chars))
}

fn trim_end<'t>(text: &'t str, chars: Option<&str>) -> &'t str {
    text.trim_end_matches(|char| is_stripped(char, chars))
}

/// A capital after everything that is not a letter, also within a word.
fn title(text: &str) -> String {
    let mut after_letter = false;
    let mut titled = String::with_capacity(text.len());
    for char in text.chars() {
        match after_letter {
            true => titled.extend(char.to_lowercase()),
            false => titled.extend(char.to_uppercase()),
        }
        after_letter = char.is_lowercase() || char.is_uppercase();
    }
    titled
}

fn split<'t>(text: &'t str, separator: &str, most: usize) -> Vec<&'t str> {
    text.splitn(most.saturating_add(1), separator).collect()
}

fn rsplit<'t>(text: &'t str, separator: &str, most: usize) -> Vec<&'t str> {
    let mut parts: Vec<&str> = text.rsplitn(most.saturating_add(1), separator).collect();
    parts.reverse();
    parts
}

fn split_spaces(text: &str, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        if parts.len() == most {
            parts.push(rest);
            break;
        }
        let end = rest.find(is_space).unwrap_or(rest.len());
        parts.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(is_space);
    }
    parts
}

fn rsplit_spaces(text: &str, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_end_matches(is_space);
    while !rest.is_empty() {
        if parts.len() == most {
            parts.push(rest);
            break;
        }
        let last = rest.char_indices().rev().find(|(_, char)| is_space(*char));
        let start = last.map_or(0, |(at, char)| at + char.len_utf8());
        parts.push(&rest[start..]);
        rest = rest[..start].trim_end_matches(is_space);
    }
    parts.reverse();
    parts
}

/// Lines end as Python has it: also at vertical tabs, separators and U+2028.
fn split_lines(text: &str, keep: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    let is_end = |char| {
        matches!(
            char,
            '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    while !rest.is_empty() {
        let end = rest.find(is_end).unwrap_or(rest.len());
        let ending = match rest[end..].chars().next() {
            Some('\r') if rest[end + 1..].starts_with('\n') => 2,
            Some(char) => char.len_utf8(),
            None => 0,
        };
        lines.push(&rest[..end + if keep { ending } else { 0 }]);
        rest = &rest[end + ending..];
    }
    lines
}

/// `text[start:end]`, and how many characters come before it.
fn slice(text: &str, start: Option<i64>, end: Option<i64>) -> (&str, usize) {
    if start.is_none() && end.is_none() {
        return (text, 0);
    }
    let count = text.chars().count();
    let index = |at: i64| {
        let at = if at < 0 { at + count as i64 } else { at };
        usize::try_from(at).unwrap_or(0).min(count)
    };
    let (start, end) = (start.map_or(0, index), end.map_or(count, index));
    let byte = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
    if end < start { ("", start) } else { (&text[byte(start)..byte(end)], start) }
}

/// Pads a text to a width in characters.
pub(super) fn justify(
    state: &State<'_, '_>,
    text: &str,
    width: usize,
    fill: char,
    side: Side,
) -> Outcome<String> {
    let missing = width.saturating_sub(text.chars().count());
    state.consume_fuel((missing / 16) as u64)?;
    let left = match side {
        Side::Left => 0,
        Side::Right => missing,
        // As CPython rounds.
        Side::Both => missing / 2 + (missing & width & 1),
    };
    let fill = |count| std::iter::repeat_n(fill, count);
    Ok(fill(left).chain(text.chars()).chain(fill(missing - left)).collect())
}

fn swapped(char: char) -> Vec<char> {
    if char.is_uppercase() { char.to_lowercase().collect() } else { char.to_uppercase().collect() }
}
