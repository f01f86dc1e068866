//! The smallest model that says what it is told: greedily, after each token of a chain the next.

use std::fs;
use std::path::{Path, PathBuf};

use cachalot_gguf::write::Writer;
use cachalot_gguf::{TensorType, Value};

/// Numbers in a hidden state: one for each token of a chain, and one for all others.
const HIDDEN: usize = 32;
/// The newline at the end of a prompt, in the byte-level alphabet.
pub(crate) const NEWLINE: &str = "Ċ";
/// The special tokens of R1, all of them control tokens.
pub(crate) const R1: [(&str, i32); 6] = [
    ("<｜begin▁of▁sentence｜>", 3),
    ("<｜end▁of▁sentence｜>", 3),
    ("<｜User｜>", 3),
    ("<｜Assistant｜>", 3),
    ("<think>", 4),
    ("</think>", 4),
];

/// A model with the 256 bytes and the `special` tokens, of which the first two begin and end a
/// text, with their types.
#[derive(Debug, Clone)]
pub(crate) struct Scripted {
    special: Vec<(String, i32)>,
    /// Text of tokens in the byte-level alphabet, each once: the first is the last of the prompt.
    chain: Vec<String>,
    keys: Vec<(String, Value)>,
}

impl Scripted {
    pub(crate) fn new(special: &[(&str, i32)], chain: &[&str]) -> Self {
        assert!(chain.len() < HIDDEN, "one number each, and one for other tokens");
        let owned = |(text, ty): &(&str, i32)| ((*text).to_owned(), *ty);
        Self {
            special: special.iter().map(owned).collect(),
            chain: chain.iter().map(ToString::to_string).collect(),
            keys: Vec::new(),
        }
    }

    /// Sets a metadata key.
    pub(crate) fn key(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.keys.push((key.to_owned(), value.into()));
        self
    }

    /// Sets a metadata key to the id of a special token.
    pub(crate) fn token(self, key: &str, text: &str) -> Self {
        let id = self.id(text);
        self.key(key, id)
    }

    /// The id of a special token.
    pub(crate) fn id(&self, text: &str) -> u32 {
        let at = self.special.iter().position(|(special, _)| special == text);
        256 + at.unwrap_or_else(|| panic!("no special token {text}")) as u32
    }

    /// Writes the file `name` into a folder.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> PathBuf {
        let mut tokens = byte_tokens();
        let mut types = vec![1; tokens.len()];
        for (text, ty) in &self.special {
            tokens.push(text.clone());
            types.push(*ty);
        }
        let id_of = |text: &String| tokens.iter().position(|token| token == text).unwrap();
        let chain: Vec<usize> = self.chain.iter().map(id_of).collect();

        let mut embedding = vec![0_f32; HIDDEN * tokens.len()]; // [tokens, HIDDEN]
        for row in embedding.chunks_exact_mut(HIDDEN) {
            row[HIDDEN - 1] = 1.0;
        }
        let mut head = vec![0_f32; embedding.len()];
        for (place, pair) in chain.windows(2).enumerate() {
            embedding[pair[0] * HIDDEN + HIDDEN - 1] = 0.0;
            embedding[pair[0] * HIDDEN + place] = 1.0;
            head[pair[1] * HIDDEN + place] = 4.0;
        }
        let path = folder.join(name);
        fs::write(&path, self.file(tokens, types, &embedding, &head)).unwrap();
        path
    }

    /// One dense layer whose weights are zero: it adds nothing to the embedding of the last token.
    fn file(
        &self,
        tokens: Vec<String>,
        types: Vec<i32>,
        embedding: &[f32],
        head: &[f32],
    ) -> Vec<u8> {
        let vocabulary = tokens.len() as u64;
        let mut writer = Writer::default();
        let mut set = |key: &str, value: Value| writer.metadata.insert(key, value);
        set("general.architecture", "deepseek2".into());
        set("general.name", "Scripted".into());
        for (key, number) in [
            ("block_count", 1),
            ("context_length", 4096),
            ("embedding_length", HIDDEN as u32),
            ("feed_forward_length", 32),
            ("leading_dense_block_count", 1),
            ("expert_count", 2),
            ("expert_used_count", 1),
            ("expert_shared_count", 1),
            ("expert_feed_forward_length", 32),
            ("expert_gating_func", 2),
            ("vocab_size", vocabulary as u32),
            ("attention.head_count", 1),
            ("attention.head_count_kv", 1),
            ("attention.kv_lora_rank", 32),
            ("attention.key_length", 40),
            ("attention.value_length", 32),
            ("attention.key_length_mla", 24),
            ("attention.value_length_mla", 16),
            ("rope.dimension_count", 8),
        ] {
            set(&format!("deepseek2.{key}"), number.into());
        }
        set("deepseek2.attention.layer_norm_rms_epsilon", 1e-6_f32.into());
        set("tokenizer.ggml.model", "gpt2".into());
        set("tokenizer.ggml.pre", "deepseek-v3".into());
        set("tokenizer.ggml.tokens", tokens.into());
        set("tokenizer.ggml.token_type", types.into());
        set("tokenizer.ggml.merges", Vec::<String>::new().into());
        set("tokenizer.ggml.bos_token_id", 256_u32.into());
        set("tokenizer.ggml.eos_token_id", 257_u32.into());
        set("tokenizer.ggml.add_bos_token", true.into());
        for (key, value) in &self.keys {
            set(key, value.clone());
        }
        let hidden = HIDDEN as u64;
        let zeros: [(&str, &[u64]); 11] = [
            ("attn_norm", &[hidden]),
            ("attn_q", &[hidden, 24]),
            ("attn_kv_a_mqa", &[hidden, 40]),
            ("attn_kv_a_norm", &[32]),
            ("attn_k_b", &[16, 32, 1]),
            ("attn_v_b", &[32, 16, 1]),
            ("attn_output", &[16, hidden]),
            ("ffn_norm", &[hidden]),
            ("ffn_gate", &[hidden, 32]),
            ("ffn_up", &[hidden, 32]),
            ("ffn_down", &[32, hidden]),
        ];
        let mut declare = |name: &str, shape: &[u64]| {
            writer.tensor(name, TensorType::F32, shape).unwrap();
        };
        declare("token_embd.weight", &[hidden, vocabulary]);
        declare("output.weight", &[hidden, vocabulary]);
        declare("output_norm.weight", &[hidden]);
        for (name, shape) in zeros {
            declare(&format!("blk.0.{name}.weight"), shape);
        }
        let mut data = writer.start(Vec::new()).unwrap();
        for numbers in [embedding, head, &[1.0; HIDDEN]] {
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            data.append(&bytes).unwrap();
        }
        while let Some(due) = data.due() {
            let zeros = vec![0; due.size as usize];
            data.append(&zeros).unwrap();
        }
        data.finish().unwrap()
    }
}

/// The tokens for single bytes, in GPT-2's alphabet.
fn byte_tokens() -> Vec<String> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut next = 0x100;
    let token = |byte: u8| {
        let code = if printable(byte) { u32::from(byte) } else { next };
        next += u32::from(!printable(byte));
        char::from_u32(code).unwrap().to_string()
    };
    (0..=255).map(token).collect()
}
