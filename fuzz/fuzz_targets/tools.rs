//! Any output, cut anywhere, through the parsers of tool calls: the events do not depend on the
//! cuts, and what is not a call is passed on. The first byte is the size of the pieces.
#![no_main]

use cachalot_text::{Channel, ToolEvent, ToolFormat};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((size, rest)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    // Cuts are between characters: the output is decoded before it is parsed.
    let chars: Vec<char> = text.chars().collect();
    let pieces: Vec<String> = chars
        .chunks(usize::from(*size).max(1))
        .map(|piece| piece.iter().collect())
        .collect();
    for format in [ToolFormat::R1, ToolFormat::V31, ToolFormat::KimiK2] {
        let whole = joined(format, &[text.to_string()]);
        assert_eq!(joined(format, &pieces), whole, "{format:?}");
        if whole.len() == 1 {
            assert_eq!(whole[0].1, text, "{format:?}: nothing is lost");
        }
    }
});

/// Text and calls, each in one piece: the kind, and the text.
fn joined(format: ToolFormat, pieces: &[String]) -> Vec<(String, String)> {
    let mut parser = format.parser("");
    let mut events: Vec<ToolEvent> =
        pieces.iter().flat_map(|piece| parser.push(Channel::Answer, piece)).collect();
    events.extend(parser.finish());
    let mut joined = vec![("text".to_owned(), String::new())];
    for event in events {
        match event {
            ToolEvent::Text { text, .. } => joined[0].1.push_str(&text),
            ToolEvent::Call { index, id, name } => {
                joined.push((format!("{index} {id} {name}"), String::new()));
            }
            ToolEvent::Arguments { index, delta } => joined[index + 1].1.push_str(&delta),
            ToolEvent::End { index } => joined[index + 1].0.push_str(" end"),
        }
    }
    joined
}
