//! Any text through a small vocabulary and back, and any tokens to bytes: nothing is lost, nothing
//! panics.
#![no_main]

use cachalot_text::{ReasoningParser, StopStrings, Utf8Stream, Vocab, VocabParts};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// The 256 bytes, a few merges, and special tokens of every kind.
static VOCAB: LazyLock<Vocab> = LazyLock::new(|| {
    let (mut plain, mut substitutes) = (Vec::new(), 0x100..);
    for byte in 0..=u8::MAX {
        let printable = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
        let code = if printable { u32::from(byte) } else { substitutes.next().unwrap() };
        plain.push(char::from_u32(code).unwrap().to_string());
    }
    let mut types = vec![1; 256];
    for (token, kind) in [
        ("ab", 1),
        ("abab", 1),
        ("ĠĠ", 1),
        ("<bos>", 3),
        ("<eos>", 3),
        ("<think>", 4),
        ("[PAD]", 5),
    ] {
        plain.push(token.to_owned());
        types.push(kind);
    }
    let merges = ["a b", "ab ab", "Ġ Ġ"].map(str::to_owned);
    Vocab::new(&VocabParts {
        model: "gpt2",
        pre: "deepseek-v3",
        tokens: &plain,
        token_types: &types,
        merges: &merges,
        bos: Some(259),
        eos: Some(260),
        add_bos: true,
        ..VocabParts::default()
    })
    .unwrap()
});

fuzz_target!(|data: &[u8]| {
    let Some((flags, bytes)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(bytes);
    let special = flags & 1 == 1;
    let ids = VOCAB.encode(&text, special).unwrap();
    assert_eq!(VOCAB.decode(&ids), text);
    assert!(special || ids.iter().all(|id| *id < 259));
    let prompt = VOCAB.encode_prompt(&text).unwrap();
    assert!(prompt[0] == 259 && prompt.get(1) != Some(&259));

    let ids: Vec<u32> = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) + 8 * u32::from(*pair.last().unwrap()))
        .collect();
    let (mut stream, mut stops) = (Utf8Stream::default(), StopStrings::new(["<eos>", "ab"]));
    let mut reasoning = ReasoningParser::from_prompt_tail(&text);
    let mut streamed = String::new();
    for id in &ids {
        let piece = stream.push(VOCAB.token_bytes(*id));
        reasoning.push(&stops.push(&piece).text);
        streamed.push_str(&piece);
    }
    streamed.push_str(&stream.finish());
    reasoning.finish();
    assert_eq!(streamed, VOCAB.decode(&ids));
});
