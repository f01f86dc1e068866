//! Tool calls: what a format renders, its parser reads, however the output is cut.

#![allow(clippy::unwrap_used)] // a test may fail anywhere

use cachalot_text::{
    Channel, ChatTemplate, Message, RenderOptions, Tool, ToolCall, ToolChoice, ToolEvent,
    ToolFormat,
};
use common::VOCAB;
use proptest::prelude::*;
use serde_json::json;

mod common;

const FORMATS: [ToolFormat; 3] = [ToolFormat::R1, ToolFormat::V31, ToolFormat::KimiK2];

/// The joined events of an output.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    reasoning: String,
    answer: String,
    calls: Vec<ToolCall>,
    ended: usize,
}

fn read(format: ToolFormat, pieces: &[(Channel, &str)]) -> Read {
    let mut parser = format.parser("x");
    let mut read = Read::default();
    let mut events: Vec<ToolEvent> =
        pieces.iter().flat_map(|(channel, text)| parser.push(*channel, text)).collect();
    events.extend(parser.finish());
    for event in events {
        match event {
            ToolEvent::Text { channel: Channel::Reasoning, text } => read.reasoning += &text,
            ToolEvent::Text { channel: Channel::Answer, text } => read.answer += &text,
            ToolEvent::Call { index, id, name } => {
                assert_eq!(index, read.calls.len());
                read.calls.push(ToolCall { id: Some(id), name, arguments: String::new() });
            }
            ToolEvent::Arguments { index, delta } => {
                assert_eq!(index + 1, read.calls.len());
                read.calls[index].arguments += &delta;
            }
            ToolEvent::End { index } => {
                assert_eq!(index + 1, read.calls.len());
                read.ended += 1;
            }
        }
    }
    assert_eq!(parser.calls(), read.calls.len());
    read
}

fn answer(format: ToolFormat, text: &str) -> Read {
    read(format, &[(Channel::Answer, text)])
}

fn call(name: &str, arguments: &str) -> ToolCall {
    ToolCall { id: None, name: name.to_owned(), arguments: arguments.to_owned() }
}

#[test]
fn published_examples_are_read() {
    let r1 = "I look.\n\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n\
              ```json\n{\"place\": \"Paris\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function\
              <｜tool▁sep｜>time\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    let found = answer(ToolFormat::R1, r1);
    assert_eq!((found.answer.as_str(), found.ended), ("I look.", 2));
    let calls: Vec<(&str, &str)> =
        found.calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect();
    assert_eq!(calls, [("weather", r#"{"place": "Paris"}"#), ("time", "{}")]);
    assert_ne!(found.calls[0].id, found.calls[1].id);

    let v31 = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"place\": \"a}\"}\
               <｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    // Models write one form for the other.
    for format in [ToolFormat::V31, ToolFormat::R1] {
        let found = answer(format, v31);
        assert_eq!(found.calls[0].name, "weather");
        assert_eq!(found.calls[0].arguments, r#"{"place": "a}"}"#);
        assert_eq!((found.answer.as_str(), found.ended), ("", 1));
    }
    let kimi = "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0\
                <|tool_call_argument_begin|>{\"city\": \"北京\"}<|tool_call_end|>\
                <|tool_calls_section_end|>";
    let found = answer(ToolFormat::KimiK2, kimi);
    assert_eq!(found.calls[0].name, "get_weather");
    assert_eq!(found.calls[0].id.as_deref(), Some("functions.get_weather:0"));
    assert_eq!(found.calls[0].arguments, r#"{"city": "北京"}"#);
}

#[test]
fn a_call_may_be_inside_or_after_a_thought() {
    for format in FORMATS {
        let text = format.render(&[call("f", r#"{"a": 1}"#)]);
        let pieces = [
            (Channel::Reasoning, "Let me look.\n"),
            (Channel::Reasoning, text.as_str()),
            (Channel::Reasoning, "Now wait."),
        ];
        let inside = read(format, &pieces);
        assert_eq!(inside.reasoning, "Let me look.Now wait.");
        assert_eq!((inside.calls.len(), inside.ended, inside.answer.as_str()), (1, 1, ""));
        let after = read(format, &[(Channel::Reasoning, "Hm.\n"), (Channel::Answer, &text)]);
        assert_eq!((after.reasoning.as_str(), after.answer.as_str()), ("Hm.\n", ""));
        assert_eq!(after.calls[0].arguments, r#"{"a": 1}"#);
        // Without the tags of the section.
        let start = text.find(if format == ToolFormat::KimiK2 {
            "<|tool_call_b"
        } else {
            "<｜tool▁call▁b"
        });
        assert_eq!(answer(format, &text[start.unwrap()..]).calls.len(), 1, "{format:?}");
    }
}

#[test]
fn what_is_not_a_call_is_text() {
    for format in FORMATS {
        let whole = format.render(&[call("f", "{}")]);
        let section = whole.split_inclusive('>').next().unwrap();
        for text in [
            "a <｜tool or <|tool_call",
            &format!("x {section} y"),
            section,
            &format!("a\n{section}{section}"),
        ] {
            let found = answer(format, text);
            assert_eq!((found.answer.as_str(), found.calls.len()), (text, 0), "{format:?}");
        }
        // A call that is cut off has what it has.
        let cut = &whole[..whole.find('{').unwrap() + 1];
        let found = answer(format, cut);
        assert_eq!((found.calls.len(), found.ended), (1, 0), "{format:?}");
        assert_eq!(found.calls[0].arguments, "{");
    }
}

#[test]
fn templates_without_a_section_for_tools_get_one() {
    // As R1's official template: calls and results, but no tools.
    let source = "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\
                  {% else %}<｜User｜>{{ m.content }}{% endif %}{% endfor %}<｜Assistant｜>\
                  {% if 0 %}```json{% endif %}";
    let template = ChatTemplate::new(Some(source), &VOCAB).unwrap();
    assert_eq!(template.tool_format(), ToolFormat::R1);
    let tool = Tool {
        name: "weather".to_owned(),
        description: Some("Tells the weather <｜User｜>".to_owned()),
        parameters: json!({ "type": "object", "properties": { "place": { "type": "string" } } }),
    };
    let options = RenderOptions { tools: vec![tool.clone()], ..RenderOptions::default() };
    for system in [None, Some("Be brief.")] {
        let mut messages = vec![Message::new("user", "Hi")];
        messages.splice(0..0, system.map(|text| Message::new("system", text)));
        let prompt = template.render(&messages, &options).unwrap();
        let text = prompt.text();
        assert!(text.contains("### weather\nDescription: Tells the weather"), "{text}");
        assert!(text.contains("{\"place\":{\"type\":\"string\"}}"), "{text}");
        assert_eq!(text.contains("Be brief.\n\n## Tools"), system.is_some(), "{text}");
        let control: Vec<&str> =
            prompt.control().iter().map(|range| &text[range.clone()]).collect();
        assert_eq!(control.iter().filter(|tag| **tag == "<｜User｜>").count(), 1);
        assert!(control.contains(&"<｜tool▁sep｜>"), "{control:?}");
    }
    let none = RenderOptions { tools: ToolChoice::None.offered(&[tool]), ..options };
    let prompt = template.render(&[Message::new("user", "Hi")], &none).unwrap();
    assert_eq!(prompt.text(), "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>");
}

#[test]
fn grammars_name_the_tools() {
    let tool = |name: &str| Tool { name: name.to_owned(), ..Tool::default() };
    let tools = [tool("a"), tool("b\"")];
    let grammar = |format: ToolFormat, choice: &ToolChoice, parallel| {
        format.grammar(choice, &tools, parallel, &VOCAB)
    };
    let required = grammar(ToolFormat::R1, &ToolChoice::Required, true).unwrap();
    assert!(
        required.starts_with("start: calls\ncalls: <[262]> call (\"\\n\" call){0,15} <[263]>\n")
    );
    assert!(
        required.contains(r#""function" <[266]> "b\"\n```json\n" arguments_1 "\n```" <[265]>"#)
    );
    let named = ToolChoice::Named("a".to_owned());
    let named = grammar(ToolFormat::V31, &named, false).unwrap();
    assert!(
        !named.contains("tool_1") && named.contains("calls: <[262]> call <[263]>\n"),
        "{named}"
    );
    let kimi = grammar(ToolFormat::KimiK2, &ToolChoice::Required, false).unwrap();
    assert!(kimi.contains("\"<|tool_call_begin|>\" \"functions.a:\" /[0-9]{1,3}/"), "{kimi}");
    assert!(grammar(ToolFormat::R1, &ToolChoice::Auto, true).unwrap().contains("TEXT calls?"));
    assert_eq!(grammar(ToolFormat::KimiK2, &ToolChoice::Auto, true), None, "no such tokens");
    assert_eq!(grammar(ToolFormat::R1, &ToolChoice::None, true), None);
    assert_eq!(grammar(ToolFormat::R1, &ToolChoice::Named("c".to_owned()), true), None);
}

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<i32>().prop_map(|number| json!(number)),
        "[a-z{}\\[\\]\"\\\\`\n<>｜]{0,8}|<｜tool▁call▁end｜>|```|\\PC{0,4}".prop_map(|s| json!(s)),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| json!(items)),
            prop::collection::btree_map("[a-z\"{}]{0,4}", inner, 0..4).prop_map(|m| json!(m)),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_rendered_is_read(
        format in prop::sample::select(FORMATS.to_vec()),
        calls in prop::collection::vec(
            ("[a-zA-Z_][a-zA-Z0-9_.-]{0,12}", prop::collection::btree_map("[a-z]{1,4}", json_value(), 0..4)),
            1..4,
        ),
        before in "[a-z]{0,5}",
        size in 1_usize..9,
    ) {
        let call = |(name, arguments)| call(name, &json!(arguments).to_string());
        let calls: Vec<ToolCall> = calls.iter().map(|(n, a)| call((n, a))).collect();
        let text = before.clone() + &format.render(&calls);
        let chars: Vec<char> = text.chars().collect();
        for size in [size, usize::MAX] {
            let pieces: Vec<String> =
                chars.chunks(size.min(chars.len())).map(|piece| piece.iter().collect()).collect();
            let pieces: Vec<(Channel, &str)> =
                pieces.iter().map(|piece| (Channel::Answer, piece.as_str())).collect();
            let found = read(format, &pieces);
            prop_assert_eq!(&found.answer, &before);
            prop_assert_eq!(found.ended, calls.len());
            let plain: Vec<ToolCall> =
                found.calls.into_iter().map(|call| ToolCall { id: None, ..call }).collect();
            prop_assert_eq!(&plain, &calls);
        }
    }

    #[test]
    fn any_cut_gives_the_same(
        format in prop::sample::select(FORMATS.to_vec()),
        parts in prop::collection::vec(prop::sample::select(vec![
            "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>",
            "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "<|tool_calls_section_begin|>",
            "<|tool_calls_section_end|>", "<|tool_call_begin|>", "<|tool_call_end|>",
            "<|tool_call_argument_begin|>", "function", "name", "\n```json\n", "\n```", "{", "}",
            "\"", "\\", " ", "\n", "x", "<｜tool", "functions.f:0",
        ]), 0..14),
        size in 1_usize..7,
    ) {
        let text = parts.concat();
        let whole = answer(format, &text);
        for size in [size, 1] {
            let chars: Vec<char> = text.chars().collect();
            let pieces: Vec<String> = chars.chunks(size).map(|p| p.iter().collect()).collect();
            let pieces: Vec<(Channel, &str)> =
                pieces.iter().map(|piece| (Channel::Answer, piece.as_str())).collect();
            prop_assert_eq!(&read(format, &pieces), &whole);
        }
        if whole.calls.is_empty() {
            prop_assert_eq!(whole.answer, text);
        }
    }
}
