//! The vocabulary against Hugging Face's: R1's real tables, and 296 texts with the ids that the
//! published tokenizer gives them.

#![allow(clippy::unwrap_used)] // a test may fail anywhere

use cachalot_gguf::Gguf;
use cachalot_text::{Error, Utf8Stream, Vocab, VocabParts};
use proptest::prelude::*;
use std::path::Path;
use std::sync::LazyLock;

static R1: LazyLock<Vocab> = LazyLock::new(|| {
    let gguf = Gguf::open(&fixture("deepseek-r1-vocab.gguf")).unwrap();
    Vocab::new(&VocabParts::from_metadata(&gguf.metadata).unwrap()).unwrap()
});

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A vocabulary of single bytes, one merge, and special tokens of every kind.
fn tiny<'a>(tokens: &'a [String], types: &'a [i32], merges: &'a [String]) -> VocabParts<'a> {
    VocabParts {
        model: "gpt2",
        pre: "deepseek-v3",
        tokens,
        token_types: types,
        merges,
        ..VocabParts::default()
    }
}

fn tiny_tables() -> (Vec<String>, Vec<i32>, Vec<String>) {
    let alphabet = (0..=u8::MAX).map(|byte| match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte).to_string(),
        0..=0x20 => char::from_u32(0x100 + u32::from(byte)).unwrap().to_string(),
        0x7F..=0xA0 => char::from_u32(0x121 + u32::from(byte) - 0x7F).unwrap().to_string(),
        0xAD => "\u{143}".to_owned(),
    });
    let mut tokens: Vec<String> = alphabet.collect();
    let mut types = vec![1; 256];
    for (token, kind) in
        [("ab", 1), ("<bos>", 3), ("<eos>", 3), ("<think>", 4), ("[PAD]", 5), ("▁x", 1)]
    {
        tokens.push(token.to_owned());
        types.push(kind);
    }
    (tokens, types, vec!["a b".to_owned()])
}

#[test]
fn every_published_vector_is_equal() {
    let vectors = std::fs::read_to_string(fixture("deepseek-r1-vectors.jsonl")).unwrap();
    let mut count = 0;
    for line in vectors.lines() {
        let vector: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = vector["text"].as_str().unwrap();
        let ids: Vec<u32> = vector["ids"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_u64().unwrap() as u32)
            .collect();
        assert_eq!(R1.encode(text, true).unwrap(), ids, "{text:?}");
        assert_eq!(R1.decode(&ids), text);
        count += 1;
    }
    assert_eq!(count, 296);
}

#[test]
fn r1_is_described_as_its_file_says() {
    assert_eq!(R1.len(), 129_280);
    assert_eq!((R1.bos(), R1.eos(), R1.pad(), R1.add_bos()), (Some(0), Some(1), Some(1), true));
    assert_eq!(R1.id_of("<think>"), Some(128_798));
    assert_eq!(R1.id_of("</think>"), Some(128_799));
    assert_eq!(R1.id_of("Hello"), Some(19_923));
    assert_eq!(
        R1.id_of(" trailing"),
        Some(52_964).filter(|id| R1.token_bytes(*id) == b" trailing")
    );
    assert_eq!(R1.id_of("no such token"), None);
    assert!(R1.is_end(1) && R1.is_end(R1.id_of("<|EOT|>").unwrap()));
    assert!(!R1.is_end(0) && !R1.is_end(128_798));
    assert!(R1.chat_template().unwrap().contains("<｜Assistant｜>"));
    assert_eq!(R1.token_text(R1.bos()), "<｜begin▁of▁sentence｜>");
    assert_eq!(R1.token_bytes(129_279), b"", "table filling");
    assert_eq!(R1.token_bytes(u32::MAX), b"");
}

#[test]
fn a_prompt_has_one_bos() {
    let (bos, text) = (R1.bos().unwrap(), "<｜User｜>Hi<｜Assistant｜>");
    let once = R1.encode_prompt(text).unwrap();
    assert_eq!(once[0], bos);
    assert_eq!(once.iter().filter(|id| **id == bos).count(), 1);
    for written in [1, 2, 3] {
        let prompt = "<｜begin▁of▁sentence｜>".repeat(written) + text;
        assert_eq!(R1.encode_prompt(&prompt).unwrap(), once);
    }
    assert_eq!(R1.encode_prompt("").unwrap(), [bos]);
    assert_eq!(R1.encode(text, true).unwrap(), once[1..]);

    let (tokens, types, merges) = tiny_tables();
    let mut parts = tiny(&tokens, &types, &merges);
    assert_eq!(
        Vocab::new(&parts).unwrap().encode_prompt("a").unwrap(),
        [97],
        "the file names no bos"
    );
    parts.bos = Some(257);
    assert_eq!(
        Vocab::new(&parts).unwrap().encode_prompt("a").unwrap(),
        [97],
        "or does not want it"
    );
    parts.add_bos = true;
    assert_eq!(Vocab::new(&parts).unwrap().encode_prompt("a").unwrap(), [257, 97]);
}

#[test]
fn special_tokens_count_only_where_they_are_parsed() {
    let text = "a<｜Assistant｜><think>";
    assert_eq!(R1.encode(text, true).unwrap(), [67, 128_804, 128_798]);
    let plain = R1.encode(text, false).unwrap();
    assert!(plain.iter().all(|id| *id < 128_000), "{plain:?}");
    assert_eq!(R1.decode(&plain), text);
    // the look-alike in ASCII is not special
    assert!(R1.encode("<|Assistant|>", true).unwrap().len() > 1);
}

#[test]
fn kinds_of_tokens_give_their_bytes() {
    let (tokens, types, merges) = tiny_tables();
    let mut parts = tiny(&tokens, &types, &merges);
    parts.eos = Some(258);
    let vocab = Vocab::new(&parts).unwrap();
    assert_eq!(vocab.encode("aab<think>", true).unwrap(), [97, 256, 259]);
    assert_eq!(vocab.token_bytes(10), b"\n");
    assert_eq!(vocab.token_bytes(0xAD), [0xAD]);
    assert_eq!(vocab.token_bytes(256), b"ab");
    assert_eq!(vocab.token_bytes(259), b"<think>");
    assert_eq!(vocab.token_bytes(260), b"", "unused");
    assert_eq!(vocab.token_bytes(261), "▁x".as_bytes(), "not in the alphabet: its own text");
    assert_eq!(vocab.decode(&[97, 0xE2, 0x82, 98, 261]), "a\u{FFFD}b▁x");
    assert!(vocab.is_end(258) && !vocab.is_end(257));
}

#[test]
fn contradicting_tables_are_errors() {
    let (tokens, types, merges) = tiny_tables();
    let good = tiny(&tokens, &types, &merges);
    assert!(Vocab::new(&good).is_ok());
    let error = |parts: VocabParts<'_>| match Vocab::new(&parts) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("accepted"),
    };
    assert!(error(VocabParts { model: "llama", ..good.clone() }).contains("`llama`"));
    assert!(error(VocabParts { pre: "x", ..good.clone() }).contains("deepseek-v3"));
    assert!(
        error(VocabParts { tokens: &[], token_types: &[], ..good.clone() }).contains("0 tokens")
    );
    assert!(
        error(VocabParts { token_types: &types[1..], ..good.clone() })
            .contains("261 types for 262")
    );
    assert!(error(VocabParts { bos: Some(262), ..good.clone() }).contains("bos_token_id: 262"));
    assert!(
        error(VocabParts { tokens: &tokens[1..], token_types: &types[1..], ..good.clone() })
            .contains("0x00")
    );
    for bad in ["ab", "a q", "a c", "ab ab", "aaaaaaaa bbbbbbb", " ", ""] {
        let merges = [bad.to_owned()];
        assert!(
            error(VocabParts { merges: &merges, ..good.clone() }).contains("merges"),
            "{bad:?}"
        );
    }
    assert!(matches!(VocabParts::from_metadata(&Default::default()), Err(Error::Metadata(_))));
}

#[test]
fn long_texts_are_encoded_in_linear_time() {
    // One word of 200,000 letters, and white space without end: both take seconds if anything is
    // quadratic.
    for unit in ["a", " ", "é"] {
        let text = unit.repeat(200_000);
        assert_eq!(R1.decode(&R1.encode(&text, true).unwrap()), text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn text_survives(text in prop_oneof![any::<String>(), "(<｜User｜>|<think>|[a-z ]|日|🐋|\r?\n|[0-9]){0,30}"]) {
        for special in [false, true] {
            let ids = R1.encode(&text, special).unwrap();
            prop_assert_eq!(R1.decode(&ids), text.as_str());
            // one token at a time, through a stream, it is the same text in whole characters
            let mut stream = Utf8Stream::default();
            let pieces = ids.iter().map(|id| stream.push(R1.token_bytes(*id)));
            let mut streamed: String = pieces.collect();
            streamed.push_str(&stream.finish());
            prop_assert_eq!(streamed, text.as_str());
        }
    }

    #[test]
    fn any_tokens_decode(ids in prop::collection::vec(0_u32..130_000, 0..30)) {
        let mut stream = Utf8Stream::default();
        let mut streamed: String = ids.iter().map(|id| stream.push(R1.token_bytes(*id))).collect();
        streamed.push_str(&stream.finish());
        prop_assert_eq!(streamed, R1.decode(&ids));
    }
}
