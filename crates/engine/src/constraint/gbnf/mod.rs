//! llama.cpp's GBNF -> what llguidance reads.
//!
//! A grammar without recursion becomes one regular expression, which is fast to follow. Any other
//! one becomes a Lark grammar (`lark.rs`). llguidance's lexer takes the longest match, as GBNF does
//! not: terminals are such that there is nothing to choose, single characters if need be.
//!
//! The notation is that of llama.cpp's `grammars/README.md`. Tokens by number (`<[123]>`) are
//! refused.

mod automaton;
mod lark;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt::Write;
use std::iter::Peekable;
use std::str::Chars;

/// Groups within groups.
const DEPTH_MAX: usize = 64;
/// Rules within rules, where they are written out as a regular expression.
const NESTING_MAX: usize = 32;
/// The longest regular expression, in bytes; longer ones become a Lark grammar.
const REGEX_MAX: usize = 1 << 16;
/// The most repetitions, as llama.cpp has it.
const REPEAT_MAX: u32 = 2000;

/// A grammar in a form that llguidance reads.
#[derive(Debug, PartialEq)]
pub(super) enum Translated {
    /// A regular expression for the whole text.
    Regex(String),
    /// A Lark grammar.
    Lark(String),
}

/// Translates a grammar.
///
/// # Errors
/// What is wrong, with its line.
pub(super) fn translate(source: &str) -> Result<Translated, String> {
    let grammar = Parser::new(source).grammar()?;
    let root = *grammar.names.get("root").ok_or("there is no rule `root`")?;
    let mut regex = String::new();
    if grammar.regex(root, &mut regex, 0).is_some() {
        return Ok(Translated::Regex(regex));
    }
    Ok(Translated::Lark(lark::of(&grammar, root)))
}

/// For the fuzz target: whatever the source, there is an answer.
#[doc(hidden)]
pub fn fuzz_gbnf(source: &str) -> bool {
    translate(source).is_ok()
}

#[derive(Debug)]
struct Grammar {
    names: HashMap<String, usize>,
    rules: Vec<Node>,
}

#[derive(Clone, Debug)]
enum Node {
    /// One character of these ranges, or of no other.
    Class {
        ranges: Vec<(char, char)>,
        negated: bool,
    },
    Rule(usize),
    Sequence(Vec<Self>),
    Choice(Vec<Self>),
    Repeat {
        node: Box<Self>,
        min: u32,
        max: Option<u32>,
    },
}

impl Node {
    fn character(c: char) -> Self {
        Self::Class { ranges: vec![(c, c)], negated: false }
    }
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
    names: HashMap<String, usize>,
    rules: Vec<Option<Node>>,
}

impl<'a> Parser<'a> {
    fn new(source: &'a str) -> Self {
        let rest = source.chars().peekable();
        Self { rest, line: 1, names: HashMap::new(), rules: Vec::new() }
    }

    fn grammar(mut self) -> Result<Grammar, String> {
        self.space(true);
        while self.rest.peek().is_some() {
            self.rule()?;
            self.space(true);
        }
        let name = |index: usize| {
            let found = self.names.iter().find(|(_, i)| **i == index);
            found.map_or(String::new(), |(name, _)| name.clone())
        };
        let rules = self.rules.iter().enumerate();
        let rules = rules.map(|(i, rule)| {
            rule.clone().ok_or_else(|| format!("the rule `{}` is not defined", name(i)))
        });
        Ok(Grammar { rules: rules.collect::<Result<_, _>>()?, names: self.names })
    }

    fn rule(&mut self) -> Result<(), String> {
        let name = self.name()?;
        self.space(false);
        for expected in "::=".chars() {
            self.expect(expected)?;
        }
        self.space(true);
        let node = self.choice(0)?;
        let index = self.index(name);
        self.rules[index] = Some(node);
        match self.rest.peek().copied() {
            None | Some('\n' | '\r') => Ok(()),
            Some(c) => Err(self.fault(&format!("`{c}` was not expected"))),
        }
    }

    fn index(&mut self, name: String) -> usize {
        let next = self.rules.len();
        let index = *self.names.entry(name).or_insert(next);
        if index == next {
            self.rules.push(None);
        }
        index
    }

    fn choice(&mut self, depth: usize) -> Result<Node, String> {
        let mut options = vec![self.sequence(depth)?];
        while self.rest.next_if_eq(&'|').is_some() {
            self.space(true);
            options.push(self.sequence(depth)?);
        }
        Ok(if options.len() == 1 { options.swap_remove(0) } else { Node::Choice(options) })
    }

    fn sequence(&mut self, depth: usize) -> Result<Node, String> {
        if depth > DEPTH_MAX {
            return Err(self.fault("groups are nested too deeply"));
        }
        let mut nodes: Vec<Node> = Vec::new();
        while let Some(&c) = self.rest.peek() {
            match c {
                '"' => nodes.push(self.literal()?),
                '[' => nodes.push(self.class()?),
                '.' => {
                    self.rest.next();
                    nodes.push(Node::Class { ranges: Vec::new(), negated: true });
                }
                '(' => {
                    self.rest.next();
                    self.space(true);
                    let group = self.choice(depth + 1)?;
                    self.space(true);
                    self.expect(')')?;
                    nodes.push(group);
                }
                '*' | '+' | '?' | '{' => {
                    let (min, max) = self.repetition()?;
                    let node = nodes.pop().ok_or_else(|| self.fault("nothing to repeat"))?;
                    nodes.push(Node::Repeat { node: Box::new(node), min, max });
                }
                _ if is_name(c) => {
                    let name = self.name()?;
                    nodes.push(Node::Rule(self.index(name)));
                }
                '<' | '!' => return Err(self.fault("tokens (`<...>`) are not supported")),
                _ => break,
            }
            self.space(depth > 0);
        }
        Ok(if nodes.len() == 1 { nodes.swap_remove(0) } else { Node::Sequence(nodes) })
    }

    fn literal(&mut self) -> Result<Node, String> {
        self.expect('"')?;
        let mut nodes = Vec::new();
        while self.rest.next_if_eq(&'"').is_none() {
            nodes.push(Node::character(self.character()?));
        }
        Ok(Node::Sequence(nodes))
    }

    fn class(&mut self) -> Result<Node, String> {
        self.expect('[')?;
        let negated = self.rest.next_if_eq(&'^').is_some();
        let mut ranges = Vec::new();
        while self.rest.next_if_eq(&']').is_none() {
            let first = self.character()?;
            let mut last = first;
            let mut ahead = self.rest.clone();
            if ahead.next_if_eq(&'-').is_some() && ahead.peek() != Some(&']') {
                self.rest.next();
                last = self.character()?;
            }
            if last < first {
                return Err(self.fault(&format!("the range {first:?}-{last:?} is empty")));
            }
            ranges.push((first, last));
        }
        if ranges.is_empty() && !negated {
            return Err(self.fault("`[]` matches nothing"));
        }
        Ok(Node::Class { ranges, negated })
    }

    fn character(&mut self) -> Result<char, String> {
        let c = self.rest.next().ok_or_else(|| self.fault("the text ends within a literal"))?;
        self.line += usize::from(c == '\n');
        if c != '\\' {
            return Ok(c);
        }
        let escaped = self.rest.next().ok_or_else(|| self.fault("the text ends after `\\`"))?;
        let digits = match escaped {
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            '\\' | '"' | '[' | ']' | '-' | '/' | '\'' => return Ok(escaped),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => return Err(self.fault(&format!("`\\{escaped}` is not an escape"))),
        };
        let mut code = 0_u32;
        for _ in 0..digits {
            let digit = self.rest.next().and_then(|digit| digit.to_digit(16));
            let digit = digit.ok_or_else(|| self.fault("an escape lacks digits"))?;
            code = code << 4 | digit;
        }
        char::from_u32(code).ok_or_else(|| self.fault(&format!("{code:#x} is not a character")))
    }

    fn repetition(&mut self) -> Result<(u32, Option<u32>), String> {
        match self.rest.next() {
            Some('*') => return Ok((0, None)),
            Some('+') => return Ok((1, None)),
            Some('?') => return Ok((0, Some(1))),
            _ => {}
        }
        self.space(false);
        let min = self.number()?;
        self.space(false);
        let max = if self.rest.next_if_eq(&',').is_some() {
            self.space(false);
            match self.rest.peek() {
                Some('}') => None,
                _ => Some(self.number()?),
            }
        } else {
            Some(min)
        };
        self.space(false);
        self.expect('}')?;
        let min = min.unwrap_or(0);
        let max = max.map(|max| max.unwrap_or(0));
        if min > REPEAT_MAX || max.is_some_and(|max| max > REPEAT_MAX || max < min) {
            return Err(self.fault(&format!("repetitions are up to {REPEAT_MAX}, in order")));
        }
        Ok((min, max))
    }

    fn number(&mut self) -> Result<Option<u32>, String> {
        let mut digits = String::new();
        while let Some(digit) = self.rest.next_if(char::is_ascii_digit) {
            digits.push(digit);
        }
        if digits.is_empty() {
            return Ok(None);
        }
        digits.parse().map(Some).map_err(|_| self.fault(&format!("{digits} is too large")))
    }

    fn name(&mut self) -> Result<String, String> {
        let mut name = String::new();
        while let Some(c) = self.rest.next_if(|c| is_name(*c)) {
            name.push(c);
        }
        if name.is_empty() { Err(self.fault("a rule's name was expected")) } else { Ok(name) }
    }

    fn expect(&mut self, expected: char) -> Result<(), String> {
        match self.rest.next() {
            Some(c) if c == expected => Ok(()),
            Some(c) => Err(self.fault(&format!("`{expected}` was expected, not `{c}`"))),
            None => Err(self.fault(&format!("`{expected}` was expected"))),
        }
    }

    /// Skips blanks and comments, and line breaks where they mean nothing.
    fn space(&mut self, lines: bool) {
        while let Some(&c) = self.rest.peek() {
            match c {
                ' ' | '\t' => {}
                '#' => {
                    while self.rest.next_if(|c| *c != '\n' && *c != '\r').is_some() {}
                    continue;
                }
                '\r' | '\n' if lines => self.line += usize::from(c == '\n'),
                _ => return,
            }
            self.rest.next();
        }
    }

    fn fault(&self, what: &str) -> String {
        format!("line {}: {what}", self.line)
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

impl Grammar {
    /// Appends a rule as a regular expression; `None` if it is recursive or too long.
    fn regex(&self, rule: usize, out: &mut String, nesting: usize) -> Option<()> {
        // A recursive rule nests for ever.
        (nesting < NESTING_MAX).then_some(())?;
        self.regex_of(&self.rules[rule], out, nesting)
    }

    fn regex_of(&self, node: &Node, out: &mut String, nesting: usize) -> Option<()> {
        (out.len() < REGEX_MAX).then_some(())?;
        match node {
            Node::Class { ranges, negated } => class(ranges, *negated, out),
            Node::Rule(rule) => {
                out.push_str("(?:");
                self.regex(*rule, out, nesting + 1)?;
                out.push(')');
            }
            Node::Sequence(nodes) => {
                for node in nodes {
                    let is_choice = matches!(node, Node::Choice(_));
                    out.push_str(if is_choice { "(?:" } else { "" });
                    self.regex_of(node, out, nesting)?;
                    out.push_str(if is_choice { ")" } else { "" });
                }
            }
            Node::Choice(options) => {
                for (i, option) in options.iter().enumerate() {
                    out.push_str(if i > 0 { "|" } else { "" });
                    self.regex_of(option, out, nesting)?;
                }
            }
            Node::Repeat { node, min, max } => {
                out.push_str("(?:");
                self.regex_of(node, out, nesting)?;
                out.push(')');
                repeat(*min, *max, out);
            }
        }
        Some(())
    }
}

fn class(ranges: &[(char, char)], negated: bool, out: &mut String) {
    if ranges.is_empty() {
        out.push_str("(?s:.)");
        return;
    }
    out.push_str(if negated { "[^" } else { "[" });
    for &(first, last) in ranges {
        let _ = write!(out, "\\x{{{:x}}}", first as u32);
        if last > first {
            let _ = write!(out, "-\\x{{{:x}}}", last as u32);
        }
    }
    out.push(']');
}

fn repeat(min: u32, max: Option<u32>, out: &mut String) {
    let _ = match (min, max) {
        (0, None) => write!(out, "*"),
        (1, None) => write!(out, "+"),
        (0, Some(1)) => write!(out, "?"),
        (min, None) => write!(out, "{{{min},}}"),
        (min, Some(max)) => write!(out, "{{{min},{max}}}"),
    };
}
