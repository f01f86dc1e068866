//! The source of a template before it is compiled: bounds, and what Jinja2 and `transformers`
//! accept but the engine does not.
//!
//! Compile time and stack depth grow with the square and with the length of one expression:
//! `1+1+...` of 64 KiB takes minutes. Published templates have up to 20 kB, and about 100 tokens in
//! a tag. The bounds on nesting, together with the filter `bounded` around every assigned value,
//! keep the depth of all values, and with it the stack they need, below a constant.
//!
//! Rewritten are: line ends (as Jinja2 reads them), `{% generation %}` blocks, which mark the
//! trained part of an answer and have no effect on a prompt, and `'...' % x` on string literals.

use std::ops::Range;

use crate::error::{Error, Result};

const SOURCE_BYTES_MAX: usize = 256 << 10;
const TAG_TOKENS_MAX: usize = 2_000;
/// Brackets inside one another in one tag.
const BRACKETS_MAX: usize = 32;
/// Filters in one tag.
const FILTERS_MAX: usize = 64;
/// `elif` in a template: each is one level of the syntax tree.
const ELIFS_MAX: usize = 300;

/// Checks a source and rewrites it for the engine.
pub(super) fn prepare(source: &str) -> Result<String> {
    if source.len() > SOURCE_BYTES_MAX {
        let bytes = source.len();
        return Err(too_large(format!("it has {bytes} bytes, the limit is {SOURCE_BYTES_MAX}")));
    }
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut prepared = String::with_capacity(source.len() + 256);
    let (mut copied, mut elifs) = (0, 0);
    let mut scanner = Scanner { source: &source, at: 0 };
    while let Some(tag) = scanner.next_tag() {
        let line = || source[..tag.body.end].lines().count().max(1);
        tag.check(&source).map_err(|fault| too_large(format!("line {}: {fault}", line())))?;
        elifs += usize::from(tag.word(&source, 0) == "elif");
        if elifs > ELIFS_MAX {
            return Err(too_large(format!("line {}: more than {ELIFS_MAX} `elif`", line())));
        }
        if let Some(body) = tag.rewritten(&source) {
            prepared.push_str(&source[copied..tag.body.start]);
            prepared.push_str(&body);
            copied = tag.body.end;
        }
    }
    prepared.push_str(&source[copied..]);
    Ok(prepared)
}

/// Whether a source has any tag: a bare name such as `chatml` is not a template.
pub(super) fn has_tags(source: &str) -> bool {
    Scanner { source, at: 0 }.next_tag().is_some()
}

/// The texts of all string literals in tags, without their quotes and with escapes as written.
pub(super) fn literals(source: &str) -> Vec<&str> {
    let mut scanner = Scanner { source, at: 0 };
    let mut literals = Vec::new();
    while let Some(tag) = scanner.next_tag() {
        let strings = tag.tokens.iter().filter(|token| token.kind == Kind::String);
        literals.extend(strings.filter_map(|token| {
            let quoted = &source[token.range.clone()];
            quoted.get(1..quoted.len() - 1)
        }));
    }
    literals
}

fn too_large(fault: String) -> Error {
    Error::TemplateTooLarge(fault)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    String,
    Open,
    Close,
    Other,
}

#[derive(Debug, Clone)]
struct Token {
    kind: Kind,
    range: Range<usize>,
}

/// `{% ... %}` or `{{ ... }}`.
struct Tag {
    is_statement: bool,
    /// What is between the delimiters and their `-` or `+`.
    body: Range<usize>,
    tokens: Vec<Token>,
}

/// Finds the tags of a source; comments and raw blocks have none. Faulty sources are left to the
/// compiler.
struct Scanner<'s> {
    source: &'s str,
    at: usize,
}

impl Scanner<'_> {
    fn next_tag(&mut self) -> Option<Tag> {
        loop {
            let rest = &self.source[self.at..];
            let start = rest
                .match_indices('{')
                .map(|(at, _)| at)
                .find(|at| matches!(rest.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')))?;
            let kind = rest.as_bytes()[start + 1];
            let inside = self.at + start + 2;
            if kind == b'#' {
                let end = self.source[inside..].find("#}");
                self.at = end.map_or(self.source.len(), |end| inside + end + 2);
                continue;
            }
            if kind == b'%'
                && let Some(raw) = after_bare(&self.source[inside..], "raw")
            {
                let raw_at = self.source.len() - raw.len();
                let ends = raw.match_indices("{%").map(|(at, _)| raw_at + at + 2);
                let mut ends = ends.filter_map(|at| after_bare(&self.source[at..], "endraw"));
                self.at = ends.next().map_or(self.source.len(), |e| self.source.len() - e.len());
                continue;
            }
            return Some(self.tag(inside, kind == b'%'));
        }
    }

    fn tag(&mut self, inside: usize, is_statement: bool) -> Tag {
        let bytes = self.source.as_bytes();
        let end: &[u8] = if is_statement { b"%}" } else { b"}}" };
        let start = inside + usize::from(matches!(bytes.get(inside), Some(b'-' | b'+')));
        let (mut at, mut depth) = (start, 0_isize);
        let mut tokens: Vec<Token> = Vec::new();
        while at < bytes.len() {
            let signed = matches!(bytes[at], b'-' | b'+') && bytes[at + 1..].starts_with(end);
            if depth <= 0 && (signed || bytes[at..].starts_with(end)) {
                self.at = at + usize::from(signed) + end.len();
                return Tag { is_statement, body: start..at, tokens };
            }
            let from = at;
            at += 1;
            let kind = match bytes[from] {
                quote @ (b'\'' | b'"') => {
                    while at < bytes.len() && bytes[at] != quote {
                        at += if bytes[at] == b'\\' { 2 } else { 1 };
                    }
                    at = (at + 1).min(bytes.len());
                    Kind::String
                }
                b'(' | b'[' | b'{' => {
                    depth += 1;
                    Kind::Open
                }
                b')' | b']' | b'}' => {
                    depth -= 1;
                    Kind::Close
                }
                byte if is_word(byte) => {
                    at += bytes[at..].iter().take_while(|byte| is_word(**byte)).count();
                    Kind::Word
                }
                byte if byte.is_ascii_whitespace() => continue,
                _ => Kind::Other,
            };
            tokens.push(Token { kind, range: from..at });
        }
        self.at = bytes.len();
        Tag { is_statement, body: start..bytes.len(), tokens }
    }
}

impl Tag {
    fn check(&self, source: &str) -> std::result::Result<(), String> {
        let tokens = self.tokens.len();
        if tokens > TAG_TOKENS_MAX {
            return Err(format!("a tag of {tokens} tokens, the limit is {TAG_TOKENS_MAX}"));
        }
        let (mut depth, mut deepest) = (0_usize, 0);
        for token in &self.tokens {
            match token.kind {
                Kind::Open => depth += 1,
                Kind::Close => depth = depth.saturating_sub(1),
                _ => {}
            }
            deepest = deepest.max(depth);
        }
        if deepest > BRACKETS_MAX {
            return Err(format!("brackets {deepest} deep, the limit is {BRACKETS_MAX}"));
        }
        let filters = self.tokens.iter().filter(|t| &source[t.range.clone()] == "|").count();
        if filters > FILTERS_MAX {
            return Err(format!("{filters} filters in a tag, the limit is {FILTERS_MAX}"));
        }
        Ok(())
    }

    fn word<'s>(&self, source: &'s str, index: usize) -> &'s str {
        self.tokens.get(index).map_or("", |token| &source[token.range.clone()])
    }

    /// The body as the engine needs it; nothing if it stays as it is.
    fn rewritten(&self, source: &str) -> Option<String> {
        if self.is_statement && self.tokens.len() == 1 {
            match self.word(source, 0) {
                "generation" => return Some(" with generation_ = 0 ".to_owned()),
                "endgeneration" => return Some(" endwith ".to_owned()),
                _ => {}
            }
        }
        // Insertions into the body, by position.
        let mut insertions: Vec<(usize, &str)> = Vec::new();
        if self.is_statement && self.word(source, 0) == "set" {
            self.bound(source, &mut insertions);
        }
        let formats = self.format_operands(source, &mut insertions);
        if insertions.is_empty() {
            return None;
        }
        insertions.sort_by_key(|(at, _)| *at);
        let mut body = String::with_capacity(self.body.len() + 16 * insertions.len());
        let mut from = self.body.start;
        for (at, text) in insertions {
            body.push_str(&source[from..at]);
            body.push_str(text);
            from = at + usize::from(formats.contains(&at)); // drops the `%`
        }
        body.push_str(&source[from..self.body.end]);
        Some(body)
    }

    /// `set target = value` becomes `set target = (value)|bounded`; of an attribute,
    /// `bounded(true)`.
    fn bound(&self, source: &str, insertions: &mut Vec<(usize, &str)>) {
        let text = |index: usize| self.word(source, index);
        let mut depth = 0_isize;
        let assign = (1..self.tokens.len()).find(|&index| {
            match self.tokens[index].kind {
                Kind::Open => depth += 1,
                Kind::Close => depth -= 1,
                _ => {}
            }
            depth == 0 && text(index) == "="
        });
        let Some(assign) = assign.filter(|assign| assign + 1 < self.tokens.len()) else { return };
        let is_attribute = (1..assign).any(|index| text(index) == ".");
        let last = self.tokens[self.tokens.len() - 1].range.end;
        insertions.push((self.tokens[assign].range.end, " ("));
        insertions.push((last, if is_attribute { ")|bounded(true)" } else { ")|bounded" }));
    }

    /// `'literal' % operand` becomes `'literal' |percent(operand)`. Returns where the operators
    /// are.
    fn format_operands(&self, source: &str, insertions: &mut Vec<(usize, &str)>) -> Vec<usize> {
        let mut operators = Vec::new();
        for (index, pair) in self.tokens.windows(2).enumerate() {
            let [string, operator] = pair else { continue };
            if string.kind != Kind::String || &source[operator.range.clone()] != "%" {
                continue;
            }
            let Some(end) = self.operand_end(source, index + 2) else { continue };
            operators.push(operator.range.start);
            insertions.push((operator.range.start, "|percent("));
            insertions.push((end, ")"));
        }
        operators
    }

    /// The end of the operand that starts with this token: a literal, name or bracket with its
    /// attributes, subscripts, calls and filters.
    fn operand_end(&self, source: &str, first: usize) -> Option<usize> {
        let tokens = &self.tokens;
        let text = |index: usize| self.word(source, index);
        let closing = |open: usize| {
            let mut depth = 0_isize;
            (open..tokens.len()).find(|&index| {
                match tokens[index].kind {
                    Kind::Open => depth += 1,
                    Kind::Close => depth -= 1,
                    _ => {}
                }
                depth == 0
            })
        };
        let mut at = match tokens.get(first)?.kind {
            Kind::Open => closing(first)?,
            Kind::Word | Kind::String => first,
            _ => return None,
        };
        loop {
            let next = tokens.get(at + 1);
            at = match next.map(|token| (token.kind, text(at + 1))) {
                Some((Kind::Open, "(" | "[")) => closing(at + 1)?,
                Some((_, "." | "|")) if at + 2 < tokens.len() => at + 2,
                _ => return Some(tokens[at].range.end),
            };
        }
    }
}

/// What follows a tag that consists of this one word.
fn after_bare<'s>(inside: &'s str, word: &str) -> Option<&'s str> {
    let inside = inside.strip_prefix(['-', '+']).unwrap_or(inside).trim_ascii_start();
    let end = inside.strip_prefix(word)?.trim_ascii_start();
    end.strip_prefix(['-', '+']).unwrap_or(end).strip_prefix("%}")
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(source: &str) -> Vec<usize> {
        let mut scanner = Scanner { source, at: 0 };
        std::iter::from_fn(|| scanner.next_tag().map(|tag| tag.tokens.len())).collect()
    }

    #[test]
    fn counts_tokens_of_tags() {
        assert_eq!(counts("a { b {{ x+1 }}{% if x -%}{{- {'a': {'b': 1}} -}}"), [3, 2, 9]);
        assert_eq!(counts(r#"{{ "}}\"'" ~ '%}' }}{{x}}"#), [3, 1]);
        assert_eq!(counts("{# {{ 1 }} #}{{ 1 }}"), [1]);
        assert_eq!(counts("{%- raw %}{{ ' {%- endraw -%}{{ 1+1 }}"), [3]);
        assert_eq!(counts("{{ unfinished 'x"), [2]);
        assert_eq!(counts("{{ 'x\\"), [1]);
    }

    #[test]
    fn refuses_what_would_compile_for_ever() {
        let chain = |links: usize| {
            format!("{{% raw %}}{{{{'{{% endraw %}}{{{{ 1{} }}}}", "+1".repeat(links))
        };
        assert!(prepare(&chain(900)).is_ok());
        let error = prepare(&chain(1_000)).unwrap_err().to_string();
        assert!(error.contains("2001 tokens"), "{error}");
        assert!(prepare(&" ".repeat(SOURCE_BYTES_MAX + 1)).is_err());
        assert!(prepare(&format!("{{{{ {}1{} }}}}", "[".repeat(33), "]".repeat(33))).is_err());
        assert!(prepare(&format!("{{{{ a{} }}}}", "|batch(1)".repeat(65))).is_err());
        assert!(prepare(super::super::fallback::R1).is_ok());
    }

    #[test]
    fn rewrites_what_the_engine_lacks() {
        let rewritten = |source: &str| prepare(source).unwrap();
        assert_eq!(
            rewritten("{%- generation -%}a{% endgeneration %}\r\nb"),
            "{%- with generation_ = 0 -%}a{% endwith %}\nb"
        );
        assert_eq!(
            rewritten("{% set x = a if b else c %}"),
            "{% set x = ( a if b else c)|bounded %}"
        );
        assert_eq!(rewritten("{%-set ns.x=[1]-%}"), "{%-set ns.x= ([1])|bounded(true)-%}");
        assert_eq!(rewritten("{% set x %}{% set y|upper %}"), "{% set x %}{% set y|upper %}");
        assert_eq!(
            rewritten("{{ '%d' % x.y[0] ~ 1 % 2 }}"),
            "{{ '%d' |percent( x.y[0]) ~ 1 % 2 }}"
        );
        assert_eq!(rewritten("{{ 'a %} b' }}{% if a %%}"), "{{ 'a %} b' }}{% if a %%}");
    }
}
