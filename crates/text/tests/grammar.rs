//! Grammars for tool calls accept what the formats render, and nothing else: checked with
//! llguidance.

#![allow(clippy::unwrap_used)] // a test may fail anywhere

use std::sync::Arc;

use cachalot_text::{Tool, ToolCall, ToolChoice, ToolFormat, Vocab};
use common::{VOCAB, vocab_of};
use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory, toktrie};
use serde_json::json;
use toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};

mod common;

fn environment(vocab: &Vocab) -> TokEnv {
    let words: Vec<Vec<u8>> = (0..vocab.len() as u32)
        .map(|id| {
            let marker: &[u8] = if id < 256 { &[] } else { &[TokTrie::SPECIAL_TOKEN_MARKER] };
            [marker, vocab.token_bytes(id)].concat()
        })
        .collect();
    let info = TokRxInfo::new(vocab.len() as u32, vocab.eos().unwrap());
    Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words)))
}

/// Whether an answer fits a grammar as a whole.
fn fits(vocab: &Vocab, grammar: &str, answer: &str) -> bool {
    let environment = environment(vocab);
    let factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &[]).unwrap();
    let grammar = TopLevelGrammar::from_lark(grammar.to_owned());
    let mut matcher = Matcher::new(factory.create_parser(grammar));
    assert_eq!(matcher.get_error(), None);
    let ids = vocab.encode(answer, true).unwrap();
    matcher.try_consume_tokens(&ids).unwrap() == ids.len() && matcher.is_accepting().unwrap()
}

fn tools() -> Vec<Tool> {
    let parameters = json!({
        "type": "object",
        "properties": { "place": { "type": "string" }, "days": { "type": "integer" } },
        "required": ["place"],
        "additionalProperties": false,
    });
    let weather = Tool { name: "weather".to_owned(), description: None, parameters };
    vec![weather, Tool { name: "now".to_owned(), ..Tool::default() }]
}

fn call(name: &str, arguments: &str) -> ToolCall {
    ToolCall { id: None, name: name.to_owned(), arguments: arguments.to_owned() }
}

#[test]
fn rendered_calls_fit_and_others_do_not() {
    let kimi = vocab_of(
        &[
            "[BOS]",
            "[EOS]",
            "<|tool_calls_section_begin|>",
            "<|tool_calls_section_end|>",
            "<|tool_call_begin|>",
            "<|tool_call_end|>",
            "<|tool_call_argument_begin|>",
        ],
        None,
    );
    // Without tokens for the tags, too.
    let plain = vocab_of(&["<s>", "</s>"], None);
    for (format, vocab) in [
        (ToolFormat::R1, &*VOCAB),
        (ToolFormat::V31, &*VOCAB),
        (ToolFormat::KimiK2, &kimi),
        (ToolFormat::R1, &plain),
    ] {
        let grammar = |choice: &ToolChoice, parallel| {
            format.grammar(choice, &tools(), parallel, vocab).unwrap()
        };
        let weather = call("weather", r#"{"place": "Zürich \"x\"", "days": 3}"#);
        let one = format.render(std::slice::from_ref(&weather));
        let two = format.render(&[weather, call("now", "{}")]);
        let required = grammar(&ToolChoice::Required, true);
        assert!(fits(vocab, &required, &one), "{format:?} {one} {required}");
        assert!(fits(vocab, &required, &two), "{format:?} {two}");
        let single = grammar(&ToolChoice::Required, false);
        assert!(fits(vocab, &single, &one) && !fits(vocab, &single, &two), "{format:?}");
        let named = grammar(&ToolChoice::Named("now".to_owned()), true);
        assert!(
            fits(vocab, &named, &format.render(&[call("now", "{}")])) && !fits(vocab, &named, &one)
        );
        for wrong in [
            format.render(&[call("weather", r#"{"days": 3}"#)]),
            format.render(&[call("weather", r#"{"place": 1}"#)]),
            format.render(&[call("unknown", "{}")]),
            format.render(&[call("weather", "{")]),
            "Hello".to_owned(),
            String::new(),
        ] {
            assert!(!fits(vocab, &required, &wrong), "{format:?} {wrong}");
        }
        if let Some(auto) = format.grammar(&ToolChoice::Auto, &tools(), true, vocab) {
            for answer in ["", "Hello\n<think>", &one, &format!("I look.\n\n{two}")] {
                let tags_are_tokens =
                    !answer.contains("<think>") || vocab.id_of("<think>").is_none();
                assert_eq!(fits(vocab, &auto, answer), tags_are_tokens, "{format:?} {answer}");
            }
        }
    }
}
