//! A vocabulary of the bytes and of the special tokens of R1's family.
#![allow(dead_code)] // each test file uses some of it

use std::sync::LazyLock;

use cachalot_text::{Vocab, VocabParts};

const SPECIAL: [&str; 16] = [
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<think>",
    "</think>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁outputs▁begin｜>",
    "<｜tool▁outputs▁end｜>",
    "<｜tool▁output▁begin｜>",
    "<｜tool▁output▁end｜>",
    "<|EOT|>",
];

/// The tokens for single bytes, in GPT-2's alphabet.
pub(crate) fn byte_tokens() -> Vec<String> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut next = 0x100;
    let token = |byte: u8| {
        let code = if printable(byte) { u32::from(byte) } else { next };
        next += u32::from(!printable(byte));
        char::from_u32(code).expect("U+0000 to U+0143 are characters").to_string()
    };
    (0..=255).map(token).collect()
}

/// A vocabulary of the bytes, then these special tokens, of which the first two are BOS and EOS.
pub(crate) fn vocab_of(special: &[&str], chat_template: Option<&str>) -> Vocab {
    let mut tokens = byte_tokens();
    tokens.extend(special.iter().map(ToString::to_string));
    let types: Vec<i32> = (0..tokens.len()).map(|id| if id < 256 { 1 } else { 3 }).collect();
    let parts = VocabParts {
        model: "gpt2",
        pre: "deepseek-v3",
        tokens: &tokens,
        token_types: &types,
        bos: Some(256),
        eos: Some(257),
        add_bos: true,
        chat_template,
        ..VocabParts::default()
    };
    Vocab::new(&parts).expect("the tables agree")
}

/// R1's special tokens.
pub(crate) static VOCAB: LazyLock<Vocab> = LazyLock::new(|| vocab_of(&SPECIAL, None));
