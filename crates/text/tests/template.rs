//! Chat templates against Python's Jinja2: `fixtures/renderings.json`, written by `fixtures/render.py`. And
//! templates that mean harm.

#![allow(clippy::unwrap_used)] // a test may fail anywhere

use cachalot_text::{ChatTemplate, Error, Message, RenderOptions, Think, ToolCall};
use serde_json::{Value as Json, json};
use std::path::Path;

const BOS: &str = "<｜begin▁of▁sentence｜>";
const EOS: &str = "<｜end▁of▁sentence｜>";

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    std::fs::read_to_string(path).unwrap()
}

fn compiled(source: Option<&str>) -> ChatTemplate {
    ChatTemplate::new(source, BOS, EOS).unwrap()
}

/// A message from the shape that APIs give it.
fn message(json: &Json) -> Message {
    let text = |key: &str| json[key].as_str().map(str::to_owned);
    let call = |call: &Json| ToolCall {
        id: call["id"].as_str().map(str::to_owned),
        name: call["function"]["name"].as_str().unwrap().to_owned(),
        arguments: call["function"]["arguments"].clone(),
    };
    Message {
        role: text("role").unwrap(),
        content: text("content"),
        reasoning: text("reasoning_content"),
        tool_calls: json["tool_calls"].as_array().into_iter().flatten().map(call).collect(),
        name: text("name"),
        tool_call_id: text("tool_call_id"),
    }
}

struct Case {
    name: String,
    source: Option<String>,
    messages: Vec<Message>,
    tools: Option<Vec<Json>>,
    options: RenderOptions,
    expected: String,
}

fn cases() -> Vec<Case> {
    let cases: Vec<Json> = serde_json::from_str(&fixture("renderings.json")).unwrap();
    let case = |case: &Json| {
        let template = case["template"].as_str().unwrap();
        let generation = case["add_generation_prompt"].as_bool().unwrap();
        let thinking = case["thinking"].as_bool().unwrap();
        let conversation = case["conversation"].as_str().unwrap();
        Case {
            name: format!("{template} {conversation} {generation} {thinking}"),
            source: (template != "r1").then(|| fixture(&format!("{template}.jinja"))),
            messages: case["messages"].as_array().unwrap().iter().map(message).collect(),
            tools: case["tools"].as_array().cloned(),
            options: RenderOptions {
                think: if thinking { Think::Auto } else { Think::Off },
                add_generation_prompt: generation,
            },
            expected: case["expected"].as_str().unwrap().to_owned(),
        }
    };
    cases.iter().map(case).collect()
}

impl Case {
    fn render(&self, think: Think) -> String {
        let template = compiled(self.source.as_deref());
        let options = RenderOptions { think, ..self.options };
        template.render(&self.messages, self.tools.as_deref(), options).unwrap()
    }
}

#[test]
fn renders_as_jinja2_does() {
    let cases = cases();
    assert!(cases.len() > 30);
    for case in cases {
        let rendered = case.render(case.options.think);
        // The only difference allowed: a thought that is not wanted is closed where a template left that out.
        let tail = rendered.strip_prefix(&case.expected);
        assert!(tail.is_some(), "{}: {rendered}\n\n--- Jinja2:\n{}", case.name, case.expected);
        let closed = case.expected.trim_end().ends_with("</think>");
        let may_close =
            case.options.think == Think::Off && case.options.add_generation_prompt && !closed;
        assert_eq!(
            tail,
            Some(if may_close { "<think>\n</think>\n\n" } else { "" }),
            "{}",
            case.name
        );
    }
}

#[test]
fn r1_prompts() {
    let snapshots = [
        ("r1 user true true", Think::Auto),
        ("r1 user true true", Think::Force),
        ("r1 user true true", Think::Off),
        ("r1 system_user true true", Think::Auto),
        ("r1 turns true true", Think::Auto),
        ("r1 turns false true", Think::Auto),
        ("r1 tool_results true true", Think::Auto),
        ("r1 tool_results true true", Think::Force),
        ("r1 tools_then_reply true true", Think::Auto),
    ];
    let cases = cases();
    for (name, think) in snapshots {
        let case = cases.iter().find(|case| case.name == name).unwrap();
        // Quoted, since the white space at the end matters.
        let lines: Vec<String> =
            case.render(think).split_inclusive('\n').map(str::to_owned).collect();
        insta::assert_debug_snapshot!(format!("{name} {think:?}").replace(' ', "_"), lines);
    }
}

#[test]
fn thinking_is_forced_or_switched_off_at_the_tail() {
    for case in cases().iter().filter(|case| case.options.add_generation_prompt) {
        let forced = case.render(Think::Force);
        assert!(forced.trim_end().ends_with("<think>"), "{}", case.name);
        assert!(!forced.trim_end().ends_with("<think><think>"), "{}", case.name);
        let off = case.render(Think::Off);
        assert!(off.trim_end().ends_with("</think>"), "{}", case.name);
    }
    let user = [Message::new("user", "Hi")];
    let with = |source: Option<&str>, think| {
        let options = RenderOptions { think, add_generation_prompt: true };
        compiled(source).render(&user, None, options).unwrap()
    };
    assert_eq!(with(None, Think::Force), format!("{BOS}<｜User｜>Hi<｜Assistant｜><think>\n"));
    assert_eq!(with(None, Think::Auto), with(None, Think::Force));
    assert_eq!(
        with(None, Think::Off),
        format!("{BOS}<｜User｜>Hi<｜Assistant｜><think>\n</think>")
    );
    let silent = Some("{{ messages[0].content }}<A>");
    assert_eq!(with(silent, Think::Auto), "Hi<A>");
    assert_eq!(with(silent, Think::Force), "Hi<A><think>\n");
    assert_eq!(with(silent, Think::Off), "Hi<A><think>\n</think>\n\n");
}

#[test]
fn arguments_in_a_string_are_taken_apart_and_keep_their_order() {
    let call = |arguments: Json| Message {
        role: "assistant".to_owned(),
        tool_calls: vec![ToolCall { id: None, name: "f".to_owned(), arguments }],
        ..Message::default()
    };
    let source = "{{ messages[0].tool_calls[0].function.arguments | tojson }}";
    let render = |message| compiled(Some(source)).render(&[message], None, no_prompt()).unwrap();
    assert_eq!(
        render(call(json!(r#"{"z":1,"a":{"y":[],"b":"é"}}"#))),
        r#"{"z": 1, "a": {"y": [], "b": "é"}}"#
    );
    assert_eq!(render(call(json!("not json"))), r#""not json""#);
}

fn no_prompt() -> RenderOptions {
    RenderOptions { think: Think::Auto, add_generation_prompt: false }
}

#[test]
fn a_refusal_is_told_apart_from_a_fault() {
    let render = |source: &str| compiled(Some(source)).render(&[], None, no_prompt());
    let refused = render(
        "{% macro m() %}{{ raise_exception('Roles must alternate') }}{% endmacro %}\n{{ m() }}",
    );
    assert!(matches!(refused, Err(Error::Refused(message)) if message == "Roles must alternate"));
    let failed = render("line one\n{{ messages.x.y }}").unwrap_err();
    assert!(
        matches!(&failed, Error::TemplateRender(message) if message.starts_with("line 2")),
        "{failed}"
    );
    let syntax = ChatTemplate::new(Some("{% if %}"), BOS, EOS).unwrap_err();
    assert!(
        matches!(&syntax, Error::TemplateSyntax(message) if message.starts_with("line 1")),
        "{syntax}"
    );
}

#[test]
fn a_long_conversation_does_not_run_out_of_fuel() {
    let text = "word ".repeat(2_000);
    let messages: Vec<Message> =
        (0..400).map(|turn| Message::new(["user", "assistant"][turn % 2], &text)).collect();
    let prompt = compiled(None).render(&messages, None, RenderOptions::default()).unwrap();
    assert!(prompt.len() > 4_000_000);
}

/// Templates that mean harm end in an error, or in a bounded output; never in a panic, an exhausted
/// stack, or a long wait.
#[test]
fn hostile_templates_are_stopped() {
    let nest = |inner: &str, tail: &str| {
        format!(
            "{{% set ns = namespace(x=[]) %}}{{% for i in range(99999) %}}{{% for i in range(99999) %}}{{% set ns.x = {inner} %}}{{% endfor %}}{{% endfor %}}{tail}"
        )
    };
    let deep = |levels: usize, tail: &str| {
        format!(
            "{{% set ns = namespace(x=[]) %}}{{% for i in range({levels}) %}}{{% set ns.x = [[[[[[[[ns.x]]]]]]]] %}}{{% endfor %}}{tail}"
        )
    };
    let shared = |tail: &str| {
        format!(
            "{{% set ns = namespace(x=[1]) %}}{{% for i in range(60) %}}{{% set ns.x = [ns.x, ns.x] %}}{{% endfor %}}{tail}"
        )
    };
    let sources = [
        "{% for i in range(99999) %}{% for i in range(99999) %}{% endfor %}{% endfor %}".to_owned(),
        "{{ 'x' * 999999999 }}".to_owned(),
        "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}".to_owned(),
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".to_owned(),
        "{% set x = range(99999) | list | tojson(indent=999999999) %}".to_owned(),
        nest("[ns.x]", ""),
        nest("[[[[[[[[ns.x]]]]]]]]", ""),
        nest("[ns.x, ns.x]", ""),
        deep(9_000, "{{ ns.x }}"),
        deep(9_000, "{{ ns.x | tojson }}"),
        deep(9_000, "{{ ns.x | string | length }}{{ ns.x == ns.x }}"),
        shared("{{ ns.x | tojson }}"),
    ];
    for source in sources {
        let started = std::time::Instant::now();
        let result = compiled(Some(&source)).render(&[], None, no_prompt());
        let text = result.as_ref().map_or(0, String::len);
        assert!(text < 64 << 20, "{source}");
        assert!(started.elapsed().as_secs() < 20, "{source}");
        if let Err(error) = result {
            assert!(!error.to_string().contains("panicked"), "{error} {source}");
        }
    }
    for source in [
        format!("{{{{ {}1 }}}}", "(".repeat(100_000)),
        format!("{{{{ 1{} }}}}", "+1".repeat(100_000)),
        format!("{{{{ 1{} }}}}", "+a".repeat(990)),
        format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(20_000)),
        format!("{}{}", "{% if 1 %}".repeat(10_000), "{% endif %}".repeat(10_000)),
    ] {
        let _ = ChatTemplate::new(Some(&source), BOS, EOS);
    }
}
