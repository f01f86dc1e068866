//! A real tokenizer's tables, cut to the number of tokens that a model is to have.
//!
//! Byte pairs were merged in order of their frequency, so the first tokens of a vocabulary are a
//! smaller vocabulary; only the special tokens, which stand at its end, must be moved.

use std::collections::HashSet;

use anyhow::{Result, ensure};
use cachalot_gguf::Metadata;

/// Values of `token_type`.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// The keys that hold a token's id.
const IDS: [&str; 3] = ["bos", "eos", "padding"];

/// Copies the keys of the tokenizer, cut or filled up to `len` tokens.
///
/// # Errors
/// If the source lacks a table, or `len` leaves no room for the special tokens.
pub(super) fn copy(source: &Metadata, len: usize, to: &mut Metadata) -> Result<()> {
    let own = source.iter().filter(|(key, _)| key.starts_with("tokenizer."));
    own.for_each(|(key, value)| drop(to.insert(key, value.clone())));

    let texts = source.strings("tokenizer.ggml.tokens")?;
    let types = source.i32s("tokenizer.ggml.token_type")?;
    let merges = source.strings("tokenizer.ggml.merges")?;
    let kept = kept(texts, types, len)?;
    let unused = texts.len()..len.max(texts.len());

    let kept_texts = kept.iter().map(|&id| texts[id].clone());
    let tokens: Vec<_> = kept_texts.chain(unused.clone().map(|id| format!("[PAD{id}]"))).collect();
    let kept_types = kept.iter().map(|&id| types[id]);
    let token_types: Vec<_> = kept_types.chain(unused.map(|_| UNUSED)).collect();
    let normal: HashSet<&str> =
        kept.iter().filter(|&&id| types[id] == NORMAL).map(|&id| texts[id].as_str()).collect();
    let merges: Vec<_> = merges.iter().filter(|pair| is_within(pair, &normal)).cloned().collect();
    for name in IDS {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let old = source.u64(&key)?;
        let new = kept.iter().position(|&id| id as u64 == old);
        ensure!(new.is_some(), "`{key}`: token {old} is not among the {len} that are kept");
        new.map(|new| to.insert(&key, new as u32));
    }
    to.insert("tokenizer.ggml.tokens", tokens);
    to.insert("tokenizer.ggml.token_type", token_types);
    to.insert("tokenizer.ggml.merges", merges);
    Ok(())
}

/// The old ids in their new order: the first ones, then the special ones that stood further back.
fn kept(texts: &[String], types: &[i32], len: usize) -> Result<Vec<usize>> {
    if len >= texts.len() {
        return Ok((0..texts.len()).collect());
    }
    let is_special = |id: &usize| {
        matches!(types[*id], CONTROL | USER_DEFINED) && !texts[*id].contains("place▁holder")
    };
    let specials: Vec<_> = (0..texts.len()).filter(is_special).collect();
    // Those that are among the first anyway stay where they are.
    let moved: Vec<_> = specials.iter().copied().filter(|&id| id + specials.len() >= len).collect();
    ensure!(moved.len() < len, "{len} tokens leave no room beside {} special ones", moved.len());
    let first = (0..texts.len()).filter(|id| !moved.contains(id)).take(len - moved.len());
    Ok(first.chain(moved.iter().copied()).collect())
}

/// Whether both parts of a merge, and what they make, are tokens.
fn is_within(pair: &str, tokens: &HashSet<&str>) -> bool {
    pair.split_once(' ').is_some_and(|(left, right)| {
        let whole = format!("{left}{right}");
        [left, right, &whole].iter().all(|text| tokens.contains(text))
    })
}
