//! Bounds on a template's source. The time and the stack that compiling takes grow with the square and
//! with the length of one expression: `1+1+...` of 64 KiB takes minutes. No real template comes
//! near these bounds: the largest published ones have 20 kB, and some 100 tokens in one tag.

use crate::error::{Error, Result};

const SOURCE_BYTES_MAX: usize = 256 << 10;
const TAG_TOKENS_MAX: usize = 2_000;

/// Refuses sources that are too large, or have too large an expression.
pub(super) fn check(source: &str) -> Result<()> {
    if source.len() > SOURCE_BYTES_MAX {
        let bytes = source.len();
        return Err(Error::TemplateTooLarge(format!(
            "it has {bytes} bytes, at most {SOURCE_BYTES_MAX} are accepted"
        )));
    }
    let mut rest = source;
    while let Some((tag, after)) = next_tag(rest) {
        if tag > TAG_TOKENS_MAX {
            let line = source[..source.len() - after.len()].lines().count();
            return Err(Error::TemplateTooLarge(format!(
                "the tag that ends in line {line} has {tag} tokens, at most {TAG_TOKENS_MAX} are accepted"
            )));
        }
        rest = after;
    }
    Ok(())
}

/// Counts the tokens of the next tag; returns the count and what follows the tag. Comments and raw
/// blocks count none. Where a source is faulty the compiler will say so: here anything will do.
fn next_tag(source: &str) -> Option<(usize, &str)> {
    let start = source
        .match_indices('{')
        .map(|(at, _)| at)
        .find(|at| matches!(source.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')))?;
    let inside = &source[start + 2..];
    match source.as_bytes()[start + 1] {
        b'#' => Some((0, inside.split_once("#}").map_or("", |(_, after)| after))),
        b'{' => Some(tokens(inside, "}}")),
        _ => Some(after_basic_tag(inside, "raw").map_or_else(
            || tokens(inside, "%}"),
            |raw| {
                let mut tags = raw.match_indices("{%");
                (
                    0,
                    tags.find_map(|(at, _)| after_basic_tag(&raw[at + 2..], "endraw"))
                        .unwrap_or(""),
                )
            },
        )),
    }
}

/// What follows a tag that consists of this one word.
fn after_basic_tag<'s>(inside: &'s str, word: &str) -> Option<&'s str> {
    let inside = inside.strip_prefix(['-', '+']).unwrap_or(inside).trim_ascii_start();
    let end = inside.strip_prefix(word)?.trim_ascii_start();
    end.strip_prefix(['-', '+']).unwrap_or(end).strip_prefix("%}")
}

/// Tokens up to the end of the tag, outside of brackets and strings, and what follows it.
fn tokens<'s>(inside: &'s str, end: &str) -> (usize, &'s str) {
    let bytes = inside.as_bytes();
    let (mut at, mut count, mut depth) = (0, 0, 0_isize);
    while at < bytes.len() {
        if depth == 0 && bytes[at..].starts_with(end.as_bytes()) {
            return (count, &inside[at + end.len()..]);
        }
        let byte = bytes[at];
        at += 1;
        match byte {
            b'\'' | b'"' => {
                while at < bytes.len() && bytes[at] != byte {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            _ if is_word(byte) => {
                at += bytes[at..].iter().take_while(|byte| is_word(**byte)).count();
            }
            _ if byte.is_ascii_whitespace() => continue,
            _ => {}
        }
        count += 1;
    }
    (count, "")
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(mut source: &str) -> Vec<usize> {
        std::iter::from_fn(|| {
            let (count, after) = next_tag(source)?;
            source = after;
            Some(count)
        })
        .collect()
    }

    #[test]
    fn counts_tokens_of_tags() {
        assert_eq!(counts("a { b {{ x+1 }}{% if x -%}{{- {'a': {'b': 1}} -}}"), [3, 3, 11]);
        assert_eq!(counts(r#"{{ "}}\"'" ~ '%}' }}{{x}}"#), [3, 1]);
        assert_eq!(counts("{# {{ 1 }} #}{{ 1 }}"), [0, 1]);
        assert_eq!(counts("{%- raw %}{{ ' {%- endraw -%}{{ 1+1 }}"), [0, 3]);
        assert_eq!(counts("{{ unfinished 'x"), [2]);
        assert_eq!(counts("{{ 'x\\"), [1]);
    }

    #[test]
    fn refuses_what_would_compile_for_ever() {
        let chain = |links: usize| {
            format!("{{% raw %}}{{{{'{{% endraw %}}{{{{ 1{} }}}}", "+1".repeat(links))
        };
        assert!(check(&chain(900)).is_ok());
        let error = check(&chain(1_000)).unwrap_err().to_string();
        assert!(error.contains("2001 tokens"), "{error}");
        assert!(check(&" ".repeat(SOURCE_BYTES_MAX + 1)).is_err());
        assert!(check(super::super::R1).is_ok());
    }
}
