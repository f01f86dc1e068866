//! Any chat template on any conversation: an error or a prompt, never a panic, and soon. The input is the
//! template, then a zero byte before each message.
#![no_main]

use cachalot_text::{ChatTemplate, Message, RenderOptions, Think, ToolCall};
use libfuzzer_sys::fuzz_target;

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
        let arguments = serde_json::json!(last.content);
        last.tool_calls.push(ToolCall { id: None, name: "f".to_owned(), arguments });
    }
    let template = match ChatTemplate::new(Some(source), "<bos>", "<eos>") {
        Ok(template) => template,
        Err(error) => return assert!(!error.to_string().contains("panicked"), "{error}"),
    };
    let options = RenderOptions { think: Think::Force, add_generation_prompt: true };
    match template.render(&messages, None, options) {
        Ok(prompt) => assert!(prompt.trim_end().ends_with("<think>")),
        Err(error) => assert!(!error.to_string().contains("panicked"), "{error}"),
    }
});
