//! A recursive grammar as a Lark grammar of llguidance.
//!
//! A parser that is asked about every byte of every token is slow where nearly all tokens are
//! possible, as inside a string. A lexer is fast there, but takes the longest match. So regular
//! parts become terminals, `"` to `"` as one, where no text of any terminal is the beginning of
//! another's: what is longest is then the only match. All else is read by terminals of a single
//! character.

use std::collections::HashMap;
use std::fmt::Write;

use super::automaton::{Alphabet, Automaton};
use super::{Grammar, Node, class, repeat};

/// Nodes that are considered as one terminal.
const WINDOW_MAX: usize = 16;
/// Parts that are considered at all.
const PARTS_MAX: usize = 256;

/// The rules that `root` needs.
pub(super) fn of(grammar: &Grammar, root: usize) -> String {
    let alphabet = Alphabet::of(grammar);
    let mut parts = Parts { grammar, alphabet, known: HashMap::new() };
    loop {
        let mut writer = Writer { parts: &mut parts, terminals: HashMap::new() };
        let text = writer.rules(root);
        let terminals: Vec<String> = writer.terminals.into_keys().collect();
        if parts.drop_ambiguous(&terminals) == 0 {
            return text;
        }
    }
}

/// Regular parts of a grammar by their regular expressions.
struct Parts<'a> {
    grammar: &'a Grammar,
    alphabet: Alphabet,
    /// Those that can be terminals; `None` if they cannot.
    known: HashMap<String, Option<Automaton>>,
}

impl Parts<'_> {
    /// The regular expression of nodes that can be one terminal. It neither begins nor ends with a
    /// rule: that is a part of its own, which others would begin with.
    fn terminal(&mut self, nodes: &[Node]) -> Option<String> {
        let is_open = |node: Option<&Node>| node.is_none_or(ends_in_rule);
        if is_open(nodes.first()) || is_open(nodes.last()) {
            return None;
        }
        let mut regex = String::new();
        for node in nodes {
            regex.push_str("(?:");
            self.grammar.regex_of(node, &mut regex, 0)?;
            regex.push(')');
        }
        if !self.known.contains_key(&regex) {
            let room = self.known.len() < PARTS_MAX;
            let made = room.then(|| Automaton::of(self.grammar, &self.alphabet, nodes)).flatten();
            let sound = made.filter(|one| !one.is_nullable() && !one.is_prefix_of(one));
            self.known.insert(regex.clone(), sound);
        }
        self.known[&regex].is_some().then_some(regex)
    }

    /// Forgets terminals that begin as others end, or the other way round; returns how many.
    fn drop_ambiguous(&mut self, terminals: &[String]) -> usize {
        let found = |text: &String| self.known.get(text)?.as_ref();
        let all: Vec<(&String, &Automaton)> =
            terminals.iter().filter_map(|text| Some((text, found(text)?))).collect();
        let is_ambiguous =
            |a: &Automaton| all.iter().any(|(_, b)| a.is_prefix_of(b) || b.is_prefix_of(a));
        // Single characters stay: they are what is left when nothing else is.
        let dropped: Vec<String> = all
            .iter()
            .filter(|(text, one)| text.starts_with("(?:") && is_ambiguous(one))
            .map(|(text, _)| (*text).clone())
            .collect();
        for text in &dropped {
            self.known.insert(text.clone(), None);
        }
        dropped.len()
    }
}

fn ends_in_rule(node: &Node) -> bool {
    match node {
        Node::Rule(_) => true,
        Node::Sequence(nodes) => {
            [nodes.first(), nodes.last()].into_iter().any(|end| end.is_none_or(ends_in_rule))
        }
        _ => false,
    }
}

struct Writer<'a, 'g> {
    parts: &'a mut Parts<'g>,
    terminals: HashMap<String, usize>,
}

impl Writer<'_, '_> {
    fn rules(&mut self, root: usize) -> String {
        let rules = &self.parts.grammar.rules;
        let mut out = format!("start: r{root}\n");
        let mut needed = vec![root];
        let mut seen = vec![false; rules.len()];
        seen[root] = true;
        while let Some(rule) = needed.pop() {
            let mut body = String::new();
            self.node(&rules[rule], &mut body, &mut |name| {
                if !std::mem::replace(&mut seen[name], true) {
                    needed.push(name);
                }
            });
            let _ = writeln!(out, "r{rule}: {body}");
        }
        let mut terminals: Vec<(&String, &usize)> = self.terminals.iter().collect();
        terminals.sort_unstable_by_key(|(_, index)| **index);
        for (regex, index) in terminals {
            let _ = writeln!(out, "T{index}: /{}/", regex.replace('/', "\\/"));
        }
        out
    }

    fn node(&mut self, node: &Node, out: &mut String, refer: &mut dyn FnMut(usize)) {
        let is_single = matches!(node, Node::Class { .. } | Node::Rule(_));
        if !is_single && let Some(regex) = self.parts.terminal(std::slice::from_ref(node)) {
            return self.terminal(regex, out);
        }
        match node {
            Node::Class { ranges, negated } => {
                let mut text = String::new();
                class(ranges, *negated, &mut text);
                let Parts { grammar, alphabet, known } = self.parts;
                let nodes = std::slice::from_ref(node);
                let automaton = || Automaton::of(grammar, alphabet, nodes);
                known.entry(text.clone()).or_insert_with(automaton);
                self.terminal(text, out);
            }
            Node::Rule(rule) => {
                refer(*rule);
                let _ = write!(out, "r{rule}");
            }
            Node::Sequence(nodes) if nodes.is_empty() => out.push_str("\"\""),
            Node::Sequence(nodes) => self.sequence(nodes, out, refer),
            Node::Choice(options) => {
                for (i, option) in options.iter().enumerate() {
                    out.push_str(if i > 0 { " | " } else { "" });
                    self.grouped(option, out, refer);
                }
            }
            Node::Repeat { node, min, max } => {
                out.push('(');
                self.node(node, out, refer);
                out.push(')');
                repeat(*min, *max, out);
            }
        }
    }

    /// Nodes one after the other, the longest parts that can be terminals as such.
    fn sequence(&mut self, nodes: &[Node], out: &mut String, refer: &mut dyn FnMut(usize)) {
        let mut rest = nodes;
        while !rest.is_empty() {
            out.push_str(if rest.len() < nodes.len() { " " } else { "" });
            let longest = rest.len().min(WINDOW_MAX);
            let part =
                (2..=longest).rev().find_map(|len| Some((self.parts.terminal(&rest[..len])?, len)));
            let taken = match part {
                Some((regex, len)) => {
                    self.terminal(regex, out);
                    len
                }
                None => {
                    self.grouped(&rest[0], out, refer);
                    1
                }
            };
            rest = &rest[taken..];
        }
    }

    fn grouped(&mut self, node: &Node, out: &mut String, refer: &mut dyn FnMut(usize)) {
        let is_choice = matches!(node, Node::Choice(_));
        out.push_str(if is_choice { "(" } else { "" });
        self.node(node, out, refer);
        out.push_str(if is_choice { ")" } else { "" });
    }

    fn terminal(&mut self, regex: String, out: &mut String) {
        let next = self.terminals.len();
        let _ = write!(out, "T{}", self.terminals.entry(regex).or_insert(next));
    }
}
