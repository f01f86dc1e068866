//! Grammars against a slow reading of them, one character after the other.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::constraint::tests::accepted;

/// GBNF as it is meant, one character after the other.
struct Slow<'a> {
    grammar: &'a Grammar,
    text: &'a [char],
    /// Where a rule can end, by where it starts and how deeply it is nested.
    known: HashMap<(usize, usize, usize), BTreeSet<usize>>,
}

impl Slow<'_> {
    /// Where matches of a node from `start` on can end.
    fn ends(&mut self, node: &Node, start: usize, depth: usize) -> BTreeSet<usize> {
        let one = |end| BTreeSet::from([end]);
        match node {
            Node::Class { ranges, negated } => match self.text.get(start) {
                Some(c) if ranges.iter().any(|(a, b)| (a..=b).contains(&c)) != *negated => {
                    one(start + 1)
                }
                _ => BTreeSet::new(),
            },
            // Nothing so short needs more rules within rules.
            Node::Rule(_) if depth > 24 => BTreeSet::new(),
            Node::Rule(rule) => {
                if let Some(ends) = self.known.get(&(*rule, start, depth)) {
                    return ends.clone();
                }
                let grammar = self.grammar;
                let ends = self.ends(&grammar.rules[*rule], start, depth + 1);
                self.known.insert((*rule, start, depth), ends.clone());
                ends
            }
            Node::Sequence(nodes) => nodes.iter().fold(one(start), |ends, node| {
                ends.into_iter().flat_map(|end| self.ends(node, end, depth)).collect()
            }),
            Node::Choice(nodes) => {
                nodes.iter().flat_map(|node| self.ends(node, start, depth)).collect()
            }
            Node::Repeat { node, min, max } => {
                let (mut all, mut ends) = (BTreeSet::new(), one(start));
                for count in 0..=max.unwrap_or(self.text.len() as u32 + min) {
                    if count >= *min {
                        all.extend(&ends);
                    }
                    ends = ends.iter().flat_map(|end| self.ends(node, *end, depth)).collect();
                }
                all
            }
        }
    }
}

fn matches(source: &str, text: &str) -> bool {
    let grammar = Parser::new(source).grammar().unwrap();
    let text: Vec<char> = text.chars().collect();
    let mut slow = Slow { grammar: &grammar, text: &text, known: HashMap::new() };
    slow.ends(&grammar.rules[grammar.names["root"]], 0, 0).contains(&text.len())
}

const JSON: &str = r#"
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws ( # a comment
string ":" ws value
("," ws string ":" ws value)*
  )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"#;

#[test]
fn grammars_of_llama_cpp_are_followed() {
    for (source, good, bad) in [
        (JSON, vec![r#"{"a": [1, {"b": null}], "ü": "\n\u00e9"}"#, "{}"], vec!["[1]", "{1}"]),
        ("root ::= \"a\"{5,5}", vec!["aaaaa"], vec!["aaaa", "aaaaaa"]),
        ("root ::= [a-z]+ \"x\"", vec!["abx", "xx"], vec!["x", "ab"]),
        ("root ::= \"a\" \"bc\" | \"ab\" \"d\"", vec!["abc", "abd"], vec!["ab", "abcd"]),
        ("root ::= x | y\nx ::= (\"(\" root? \")\")\ny::=[0-9-]", vec!["((7))", "-"], vec!["(("]),
        ("root ::= .? \"\\U0001F40B\" |\n  \"\\n\"", vec!["x🐋", "🐋", "\n"], vec!["", "xx🐋"]),
    ] {
        for (texts, expected) in [(good, true), (bad, false)] {
            for text in texts {
                assert_eq!(!accepted(source, &[text]).is_empty(), expected, "{source}: {text}");
                assert_eq!(matches(source, text), expected, "{source}: {text}");
            }
        }
    }
}

#[test]
fn strings_are_read_by_the_lexer_and_what_could_go_on_is_not() {
    let lark = |source| match translate(source).unwrap() {
        Translated::Lark(lark) => lark,
        Translated::Regex(regex) => panic!("{regex}"),
    };
    let has_long =
        |lark: &str| lark.lines().any(|line| line.starts_with('T') && line.contains(")(?:"));
    let json = lark(JSON);
    assert!(has_long(&json), "{json}");
    // A string of letters may go on, and `'` may begin what is not a string.
    let open = lark("root ::= \"(\" root \")\" | [a-z]+ [0-9]*");
    assert!(!has_long(&open), "{open}");
    let other = lark("root ::= \"(\" root \")\" | \"'\" [^']* \"'\" | \"'\" root");
    assert!(!has_long(&other), "{other}");
}

#[test]
fn faults_are_named_with_their_line() {
    for (source, expected) in [
        ("", "no rule `root`"),
        ("root ::= a", "the rule `a` is not defined"),
        ("root ::= \"a", "line 1: the text ends"),
        ("a ::= \"x\"\nroot ::= [z-a]", "line 2: the range"),
        ("root ::= ( \"a\"", "`)` was expected"),
        ("root ::= \"a\"{3,2}", "repetitions"),
        ("root ::= \"a\"{99999}", "repetitions"),
        ("root ::= <[1]>", "tokens"),
        ("root ::= +", "nothing to repeat"),
        ("root = \"a\"", "`:` was expected"),
    ] {
        let error = translate(source).unwrap_err();
        assert!(error.contains(expected), "{source:?}: {error}");
    }
    let deep = format!("root ::= {}\"a\"{}", "(".repeat(1000), ")".repeat(1000));
    assert!(translate(&deep).unwrap_err().contains("too deeply"));
    let wide: String = (0..40).map(|i| format!("a{i} ::= a{} a{}\n", i + 1, i + 1)).collect();
    let wide = format!("root ::= a0\n{wide}a40 ::= \"x\"");
    assert!(matches!(translate(&wide), Ok(Translated::Lark(_))), "2^40 characters");
}

fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "\"a\"", "\"ab\"", "\"b\"", "[ab]", "[^a]", "[b-d]", "\"\"", "root", "other",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..3).prop_map(|all| all.join(" ")),
            prop::collection::vec(inner.clone(), 1..3)
                .prop_map(|all| format!("({})", all.join(" | "))),
            (inner, prop::sample::select(vec!["?", "*", "+", "{1,2}"]))
                .prop_map(|(inner, repeat)| format!("({inner}){repeat}")),
        ]
    })
}

proptest! {
#![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

#[test]
fn any_text_has_an_answer(source in "(root|a| |::=|\\||\"|\\[|\\]|\\(|\\)|[*+?{}0-9,]|\n|\\\\|é){0,30}") {
    let _ = translate(&source);
}

/// Nothing is accepted that the grammar does not allow, whatever the lexer prefers.
#[test]
fn what_is_accepted_is_what_the_grammar_means(
    root in expression(),
    other in expression(),
    texts in prop::collection::vec("[abcd]{0,5}", 6),
) {
    let source = format!("root ::= \"c\" | {root}\nother ::= \"d\" | {other}");
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let expected: Vec<&str> =
        texts.iter().filter(|text| matches(&source, text)).copied().collect();
    prop_assert_eq!(accepted(&source, &texts), expected, "{}", source);
}
}
