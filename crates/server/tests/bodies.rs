//! Bodies that make no sense are errors, whatever they are.

use cachalot_server::read_bodies;
use proptest::prelude::*;
use serde_json::{Value, json};

fn any_json() -> impl Strategy<Value = Value> {
    let words = [
        "role",
        "content",
        "user",
        "assistant",
        "tool",
        "type",
        "text",
        "function",
        "name",
        "arguments",
        "tools",
        "messages",
        "input",
        "format",
        "schema",
        "thinking",
        "tool_use",
        "tool_result",
        "image_url",
        "reasoning",
        "function_call",
        "call_id",
        "auto",
        "required",
    ];
    let word = prop::sample::select(words.to_vec()).prop_map(str::to_owned);
    let text = prop_oneof![word.clone(), any::<String>()];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        any::<i64>().prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(text.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_body_brings_a_dialect_down(
        messages in any_json(), tools in any_json(), choice in any_json(), input in any_json(),
        format in any_json(), thinking in any_json(),
    ) {
        let body = json!({
            "model": "m", "messages": messages, "tools": tools, "tool_choice": choice,
            "input": input, "response_format": format, "text": { "format": format },
            "thinking": thinking, "reasoning": thinking, "system": input,
        });
        read_bodies(body.to_string().as_bytes());
        let listed = json!({ "messages": [messages, input], "input": [tools, input], "tools": [tools] });
        read_bodies(listed.to_string().as_bytes());
    }

    #[test]
    fn no_bytes_do_either(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
        read_bodies(&bytes);
    }
}
