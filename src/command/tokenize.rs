//! `cachalot tokenize` and `cachalot detokenize`: text <-> token ids.

use std::io::{self, Write};

use anyhow::bail;
use cachalot_engine::request::open_vocab;
use serde_json::{Value, json};

use crate::args::{DetokenizeArgs, TokenizeArgs};
use crate::input;

/// Prints the token ids of a text, each with its piece of text; no BOS is added.
pub(crate) fn tokenize(args: &TokenizeArgs) -> anyhow::Result<()> {
    let vocab = open_vocab(&args.model)?;
    let text = match args.text.as_str() {
        "-" => input::standard()?,
        text => text.to_owned(),
    };
    let ids = vocab.encode(&text, !args.no_special)?;
    let mut out = io::stdout().lock();
    if args.json {
        let pieces: Vec<Value> = ids.iter().map(|&id| json(vocab.token_bytes(id))).collect();
        writeln!(out, "{}", json!({ "tokens": ids, "pieces": pieces }))?;
    } else {
        for &id in &ids {
            writeln!(out, "{id:>6}  {}", quoted(vocab.token_bytes(id)))?;
        }
    }
    Ok(out.flush()?)
}

/// A piece of text, or its bytes if it is not a whole number of characters.
fn json(piece: &[u8]) -> Value {
    std::str::from_utf8(piece).map_or_else(|_| json!(piece), |text| json!(text))
}

/// The same as a Rust literal.
fn quoted(piece: &[u8]) -> String {
    std::str::from_utf8(piece)
        .map_or_else(|_| format!("b\"{}\"", piece.escape_ascii()), |text| format!("{text:?}"))
}

/// Prints the text of token ids.
pub(crate) fn detokenize(args: &DetokenizeArgs) -> anyhow::Result<()> {
    let vocab = open_vocab(&args.model)?;
    if let Some(id) = args.ids.iter().find(|&&id| id as usize >= vocab.len()) {
        bail!("unknown token id {id}: the vocabulary has {} tokens", vocab.len());
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{}", vocab.decode(&args.ids))?;
    Ok(out.flush()?)
}
