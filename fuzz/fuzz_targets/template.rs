//! Any chat template with any conversation: an error or a prompt, no panic, and soon. The input is
//! the template, then a zero byte before each message. Messages write no control token.
#![no_main]

use std::sync::LazyLock;

use cachalot_text::{ChatTemplate, Message, RenderOptions, Think, ToolCall, Vocab, VocabParts};
use libfuzzer_sys::fuzz_target;

/// The bytes as tokens, and a few special ones.
static VOCAB: LazyLock<Vocab> = LazyLock::new(|| {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut next = 0x100;
    let mut tokens: Vec<String> = (0..=255_u8)
        .map(|byte| {
            let code = if printable(byte) { u32::from(byte) } else { next };
            next += u32::from(!printable(byte));
            char::from_u32(code).expect("a character").to_string()
        })
        .collect();
    tokens.extend(["<bos>", "<eos>", "<a>", "<think>", "</think>"].map(str::to_owned));
    let types: Vec<i32> = (0..tokens.len()).map(|id| if id < 256 { 1 } else { 3 }).collect();
    let parts = VocabParts {
        model: "gpt2",
        pre: "default",
        tokens: &tokens,
        token_types: &types,
        bos: Some(256),
        eos: Some(257),
        ..VocabParts::default()
    };
    Vocab::new(&parts).expect("a vocabulary")
});

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split('\0');
    let source = parts.next().unwrap_or_default();
    let roles = ["user", "assistant", "tool", "system"];
    let mut messages: Vec<Message> = parts
        .zip(roles.into_iter().cycle())
        .map(|(content, role)| Message::new(role, content))
        .collect();
    if let Some(last) = messages.last_mut() {
        let arguments = last.content.clone().unwrap_or_default();
        last.tool_calls.push(ToolCall { id: None, name: "f".to_owned(), arguments });
    }
    let template = match ChatTemplate::new(Some(source), &VOCAB) {
        Ok(template) => template,
        Err(error) => return assert!(!error.to_string().contains("panicked"), "{error}"),
    };
    let options = RenderOptions { think: Think::Force, ..RenderOptions::default() };
    match template.render(&messages, &options) {
        Ok(prompt) => {
            assert!(!template.thinks() || prompt.opens_thought());
            prompt.tokens(&VOCAB).expect("tokens");
        }
        Err(error) => assert!(!error.to_string().contains("panicked"), "{error}"),
    }
});
