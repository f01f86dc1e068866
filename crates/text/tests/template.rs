//! Chat templates against Python's Jinja2: `fixtures/renderings.json`, written by
//! `fixtures/render.py`. And hostile templates.

#![allow(clippy::unwrap_used)] // a test may fail anywhere

use cachalot_text::{ChatTemplate, Error, Message, RenderOptions, Think, Tool, ToolCall};
use serde_json::Value as Json;
use std::path::Path;

mod common;

use common::VOCAB;

const BOS: &str = "<｜begin▁of▁sentence｜>";

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    std::fs::read_to_string(path).unwrap()
}

fn compiled(source: Option<&str>) -> ChatTemplate {
    ChatTemplate::new(source, &VOCAB).unwrap()
}

fn rendered(source: Option<&str>, messages: &[Message], options: &RenderOptions) -> String {
    compiled(source).render(messages, options).unwrap().text().to_owned()
}

/// A message from the shape that APIs give it.
fn message(json: &Json) -> Message {
    let text = |key: &str| json[key].as_str().map(str::to_owned);
    let call = |call: &Json| ToolCall {
        id: call["id"].as_str().map(str::to_owned),
        name: call["function"]["name"].as_str().unwrap().to_owned(),
        arguments: match &call["function"]["arguments"] {
            Json::String(text) => text.clone(),
            other => other.to_string(),
        },
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

fn tool(json: &Json) -> Tool {
    let function = &json["function"];
    Tool {
        name: function["name"].as_str().unwrap().to_owned(),
        description: function["description"].as_str().map(str::to_owned),
        parameters: function["parameters"].clone(),
    }
}

struct Case {
    name: String,
    source: Option<String>,
    messages: Vec<Message>,
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
            options: RenderOptions {
                think: if thinking { Think::Auto } else { Think::Off },
                add_generation_prompt: generation,
                tools: case["tools"].as_array().into_iter().flatten().map(tool).collect(),
                ..RenderOptions::default()
            },
            expected: case["expected"].as_str().unwrap().to_owned(),
        }
    };
    cases.iter().map(case).collect()
}

impl Case {
    fn render(&self, think: Think) -> String {
        let mut options = RenderOptions { think, ..self.options.clone() };
        // Where a template has no section for tools, ours is added, which Jinja2 does not know of.
        if !compiled(self.source.as_deref()).source().unwrap().contains("tools") {
            options.tools.clear();
        }
        rendered(self.source.as_deref(), &self.messages, &options)
    }
}

#[test]
fn renders_as_jinja2_does() {
    let cases = cases();
    assert!(cases.len() > 30);
    for case in cases {
        let rendered = case.render(case.options.think);
        // The only difference allowed: a thought that is not wanted is closed where a template left
        // that out.
        let tail = rendered.strip_prefix(&case.expected);
        assert!(tail.is_some(), "{}: {rendered}\n\n--- Jinja2:\n{}", case.name, case.expected);
        let closed = case.expected.trim_end().ends_with("</think>");
        let thinks = compiled(case.source.as_deref()).thinks();
        let asked = case.options.think == Think::Off && case.options.add_generation_prompt;
        let may_close = asked && thinks && !closed;
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
    let cases = cases();
    let thinks = |case: &&Case| compiled(case.source.as_deref()).thinks();
    let cases = cases.iter().filter(|case| case.options.add_generation_prompt).filter(thinks);
    for case in cases {
        let forced = case.render(Think::Force);
        assert!(forced.trim_end().ends_with("<think>"), "{}", case.name);
        assert!(!forced.trim_end().ends_with("<think><think>"), "{}", case.name);
        let off = case.render(Think::Off);
        assert!(off.trim_end().ends_with("</think>"), "{}", case.name);
    }
    let user = [Message::new("user", "Hi")];
    let with = |source: Option<&str>, think| {
        rendered(source, &user, &RenderOptions { think, ..RenderOptions::default() })
    };
    assert_eq!(with(None, Think::Force), format!("{BOS}<｜User｜>Hi<｜Assistant｜><think>\n"));
    assert_eq!(with(None, Think::Auto), with(None, Think::Force));
    assert_eq!(
        with(None, Think::Off),
        format!("{BOS}<｜User｜>Hi<｜Assistant｜><think>\n</think>")
    );
    let silent = Some("{{ messages[0].content }}<A>");
    for think in [Think::Auto, Think::Force, Think::Off] {
        assert_eq!(with(silent, think), "Hi<A>", "this template knows of no thoughts");
    }
    let knows = Some("{{ messages[0].content }}<A>{% if 0 %}</think>{% endif %}");
    assert_eq!(with(knows, Think::Auto), "Hi<A>");
    assert_eq!(with(knows, Think::Force), "Hi<A><think>\n");
    assert_eq!(with(knows, Think::Off), "Hi<A><think>\n</think>\n\n");
}

#[test]
fn arguments_in_a_string_are_taken_apart_and_keep_their_order() {
    let call = |arguments: &str| Message {
        role: "assistant".to_owned(),
        tool_calls: vec![ToolCall {
            id: None,
            name: "f".to_owned(),
            arguments: arguments.to_owned(),
        }],
        ..Message::default()
    };
    let arguments = "messages[0].tool_calls[0].function.arguments";
    let render = |expression: &str, message: Message| {
        let source = format!("{{{{ {} }}}}", expression.replace('A', arguments));
        rendered(Some(&source), &[message], &no_prompt())
    };
    let text = r#"{"z":1,"a":{"y":[],"b":"é"}}"#;
    assert_eq!(render("A | tojson", call(text)), r#"{"z": 1, "a": {"y": [], "b": "é"}}"#);
    assert_eq!(render("A | tojson", call("not json")), r#""not json""#);
    // Official templates of R1, V3 and V3.1 join the text; others print it or iterate the object.
    for joining in ["'' + A", "A", "'' ~ A", "A + ''"] {
        assert_eq!(render(joining, call(text)), text, "{joining}");
    }
    assert_eq!(render("A.items() | length", call(text)), "2");
    assert_eq!(render("A.z + A['z'] ", call(text)), "2");
    assert_eq!(render("A is mapping", call(text)), "True");
}

fn no_prompt() -> RenderOptions {
    RenderOptions { add_generation_prompt: false, ..RenderOptions::default() }
}

#[test]
fn the_method_and_the_filter_of_titles_differ() {
    let source = "{{ \"they're x,b\".title() }} {{ \"they're x,b\" | title }}";
    assert_eq!(rendered(Some(source), &[], &no_prompt()), "They'Re X,B They're X,b");
}

#[test]
fn a_refusal_is_told_apart_from_a_fault() {
    let render = |source: &str| compiled(Some(source)).render(&[], &no_prompt());
    let refused = render(
        "{% macro m() %}{{ raise_exception('Roles must alternate') }}{% endmacro %}\n{{ m() }}",
    );
    assert!(matches!(refused, Err(Error::Refused(message)) if message == "Roles must alternate"));
    let failed = render("line one\n{{ messages.x.y }}").unwrap_err();
    assert!(
        matches!(&failed, Error::TemplateRender(message) if message.starts_with("line 2")),
        "{failed}"
    );
    let syntax = ChatTemplate::new(Some("{% if %}"), &VOCAB).unwrap_err();
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
    let prompt = rendered(None, &messages, &RenderOptions::default());
    assert!(prompt.len() > 4_000_000);
}

/// Templates that mean harm end in an error, or in a bounded output; never in a panic, an exhausted
/// stack, or a long wait.
#[test]
fn hostile_templates_are_stopped() {
    let namespace =
        |first: &str, rest: &str| format!("{{% set ns = namespace(x={first}) %}}{rest}");
    let repeat =
        |times: usize, inner: &str| format!("{{% for i in range({times}) %}}{inner}{{% endfor %}}");
    let nest = |inner: &str, tail: &str| {
        let set = format!("{{% set ns.x = {inner} %}}");
        namespace("[]", &(repeat(99_999, &repeat(99_999, &set)) + tail))
    };
    let deep = |levels: usize, tail: &str| {
        namespace("[]", &(repeat(levels, "{% set ns.x = [[[[[[[[ns.x]]]]]]]] %}") + tail))
    };
    let shared =
        |tail: &str| namespace("[1]", &(repeat(60, "{% set ns.x = [ns.x, ns.x] %}") + tail));
    let sources = [
        "{% for i in range(99999) %}{% for i in range(99999) %}{% endfor %}{% endfor %}".to_owned(),
        "{{ 'x' * 999999999 }}".to_owned(),
        namespace("'x'", &(repeat(60, "{% set ns.x = ns.x ~ ns.x %}") + "{{ ns.x }}")),
        // Values that hold one another in other ways than lists.
        namespace("1", &repeat(50_000, "{% set ns.x = namespace(y=ns) %}{% set ns = ns.x %}")),
        namespace("1", &repeat(50_000, "{% set ns.x = {'y': ns.x}.items() %}")),
        namespace("1", &repeat(50_000, "{% set ns.x = {'y': ns.x} %}")),
        namespace("1", &repeat(50_000, "{% set ns.x = [ns.x] | map('list') %}")),
        namespace(
            "1",
            &repeat(50_000, "{% macro m() %}{{ ns.x }}{% endmacro %}{% set ns.x = m %}"),
        ),
        repeat(50_000, "{% macro m() %}{{ f }}{% endmacro %}{% set f = m %}"),
        repeat(50_000, "{% set x = [x] %}"),
        "{% macro f(x) %}{{ f([[[[x]]]]) }}{% endmacro %}{{ f(1) }}".to_owned(),
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".to_owned(),
        "{% set x = range(99999) | list | tojson(indent=999999999) %}".to_owned(),
        nest("[ns.x]", ""),
        nest("[[[[[[[[ns.x]]]]]]]]", ""),
        nest("[ns.x, ns.x]", ""),
        deep(9_000, "{{ ns.x }}"),
        deep(9_000, "{{ ns.x | tojson }}"),
        deep(9_000, "{{ ns.x | string | length }}{{ ns.x == ns.x }}"),
        shared("{{ ns.x | tojson }}"),
        shared("{{ ns.x }}"),
        shared("{{ ns.x ~ '' }}{{ ns.x | string }}"),
    ];
    for source in sources {
        let started = std::time::Instant::now();
        let result = compiled(Some(&source)).render(&[], &no_prompt());
        let text = result.as_ref().map_or(0, |prompt| prompt.text().len());
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
        let _ = ChatTemplate::new(Some(&source), &VOCAB);
    }
}
