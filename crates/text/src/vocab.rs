//! The vocabulary of a model: text to tokens and tokens to bytes, from the tables in its GGUF.
//!
//! Merging is done by Hugging Face's `tokenizers`, whose results define what is right. Splitting is
//! done here: that avoids the alignment bookkeeping needed only for training and highlighting,
//! reports a failing regular expression instead of skipping the rest of the text, and lets the
//! caller choose whether special tokens in the text are parsed.

use crate::byte_level;
use crate::error::{Error, Result};
use crate::pretokenizer::PreTokenizer;
use crate::specials::Specials;
use cachalot_gguf::{Array, Metadata, Optional as _, Value};
use tokenizers::Model as _;
use tokenizers::models::bpe::{BPE, Merges, Vocab as TextToId};

/// The keys of a GGUF from which a vocabulary is built: `tokenizer.ggml.*` and the chat template.
#[derive(Debug, Clone, Default)]
pub struct VocabParts<'a> {
    /// `model`: must be `gpt2`.
    pub model: &'a str,
    /// `pre`: the name of the pre-tokenizer.
    pub pre: &'a str,
    /// `tokens`: by id, normal ones in the byte-level alphabet.
    pub tokens: &'a [String],
    /// `token_type`: by id, or empty if all are normal.
    pub token_types: &'a [i32],
    /// `merges`: pairs separated by a space, by descending priority.
    pub merges: &'a [String],
    /// `bos_token_id`: the first token of every prompt.
    pub bos: Option<u32>,
    /// `eos_token_id`: ends an answer.
    pub eos: Option<u32>,
    /// `eot_token_id`: ends a turn, in models that distinguish it from `eos`.
    pub eot: Option<u32>,
    /// `eom_token_id`: ends a message that expects a tool's result.
    pub eom: Option<u32>,
    /// Further tokens that end an answer: `eos_token_ids`, and any other list under a key of an
    /// end.
    pub end_ids: Vec<u32>,
    /// `padding_token_id`.
    pub pad: Option<u32>,
    /// `add_bos_token`: whether prompts begin with the token `bos` (default: no).
    pub add_bos: bool,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<&'a str>,
}

impl<'a> VocabParts<'a> {
    /// Finds the parts in a file's metadata.
    ///
    /// # Errors
    /// [`Error::Metadata`] if a table is missing or of the wrong type.
    pub fn from_metadata(metadata: &'a Metadata) -> Result<Self> {
        let id = |key| -> Result<Option<u32>> {
            // Converters write -1, in several types, for a token that does not exist.
            if metadata.get(key).is_some_and(is_none) {
                return Ok(None);
            }
            if matches!(metadata.get(key), Some(Value::Array(_))) {
                return Ok(ids(metadata, key).first().copied());
            }
            let id = metadata.u64(key).optional()?;
            // `Vocab::new` reports ids outside the vocabulary.
            Ok(id.map(|id| u32::try_from(id).unwrap_or(u32::MAX)))
        };
        Ok(Self {
            model: metadata.str("tokenizer.ggml.model")?,
            pre: metadata.str("tokenizer.ggml.pre").optional()?.unwrap_or("default"),
            tokens: metadata.strings("tokenizer.ggml.tokens")?,
            token_types: metadata.i32s("tokenizer.ggml.token_type").optional()?.unwrap_or(&[]),
            merges: metadata.strings("tokenizer.ggml.merges")?,
            bos: id("tokenizer.ggml.bos_token_id")?,
            eos: id("tokenizer.ggml.eos_token_id")?,
            eot: id("tokenizer.ggml.eot_token_id")?,
            eom: id("tokenizer.ggml.eom_token_id")?,
            end_ids: END_KEYS.iter().flat_map(|key| ids(metadata, key)).collect(),
            // Nothing here pads, so a value that is not an id is reported as one.
            pad: id("tokenizer.ggml.padding_token_id").unwrap_or(Some(u32::MAX)),
            add_bos: metadata.bool("tokenizer.ggml.add_bos_token").optional()?.unwrap_or(false),
            chat_template: metadata.str("tokenizer.chat_template").optional()?,
        })
    }
}

/// Keys whose lists name tokens that end an answer.
const END_KEYS: [&str; 6] = [
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.eos_token_ids",
    "tokenizer.ggml.eot_token_ids",
    "tokenizer.ggml.eom_token_ids",
];

/// Whether a key's value says that there is no such token.
fn is_none(value: &Value) -> bool {
    match *value {
        Value::I8(id) => id < 0,
        Value::I16(id) => id < 0,
        Value::I32(id) => id < 0,
        Value::I64(id) => id < 0,
        Value::U32(id) => id == u32::MAX,
        _ => false,
    }
}

/// The ids of an array of any integer type, or of a single number; others are ignored.
fn ids(metadata: &Metadata, key: &str) -> Vec<u32> {
    match metadata.get(key) {
        Some(Value::Array(Array::U32(ids))) => ids.clone(),
        Some(Value::Array(Array::I32(ids))) => {
            ids.iter().filter_map(|id| u32::try_from(*id).ok()).collect()
        }
        Some(Value::Array(Array::U64(ids))) => {
            ids.iter().filter_map(|id| u32::try_from(*id).ok()).collect()
        }
        Some(Value::Array(Array::I64(ids))) => {
            ids.iter().filter_map(|id| u32::try_from(*id).ok()).collect()
        }
        _ => {
            let id = metadata.u64(key).ok().and_then(|id| u32::try_from(id).ok());
            id.filter(|id| *id != u32::MAX).into_iter().collect()
        }
    }
}

/// The kind of a token by its `token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Text, reached by merging.
    Normal,
    /// Matched as a whole in text where special tokens are parsed: types 2, 3 and 4.
    Special,
    /// Padding of the table, without text.
    Unused,
}

impl Kind {
    fn of(token_type: i32, text: &str) -> Self {
        match token_type {
            2..=4 => Self::Special, // unknown, control, user-defined
            // Some converters mark control tokens as text, or as unused.
            _ if is_control_text(text) => Self::Special,
            5 => Self::Unused,
            _ => Self::Normal,
        }
    }
}

/// Texts of tokens that end an answer in models of the `deepseek2` family and those related to it.
/// Files do not always name all of them in their keys.
const ENDS: [&str; 12] = [
    "<｜end▁of▁sentence｜>",
    "<|EOT|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "<|observation|>",
    "<|user|>",
    "[EOS]",
    "[EOT]",
];

/// Texts that are control tokens whatever a file says: DeepSeek's, and those that end a turn.
fn is_control_text(text: &str) -> bool {
    (text.starts_with("<｜") && text.ends_with("｜>"))
        || (text.starts_with('<') && ENDS.contains(&text))
}

/// Text <-> tokens.
pub struct Vocab {
    pretokenizer: PreTokenizer,
    bpe: BPE,
    specials: Specials,
    /// The bytes of all tokens, concatenated.
    bytes: Vec<u8>,
    /// End of each token's bytes in `bytes`.
    byte_ends: Vec<usize>, // [len]
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
    /// Every token that ends an answer, ascending.
    end_ids: Vec<u32>,
    warnings: Vec<String>,
    add_bos: bool,
    chat_template: Option<String>,
}

impl Vocab {
    /// Builds the vocabulary.
    ///
    /// # Errors
    /// [`Error::Model`] or [`Error::PreTokenizer`] for unsupported kinds, [`Error::Table`] for
    /// tables that contradict each other or cannot encode every text.
    pub fn new(parts: &VocabParts<'_>) -> Result<Self> {
        if parts.model != "gpt2" {
            return Err(Error::Model { model: parts.model.to_owned() });
        }
        let pretokenizer = PreTokenizer::named(parts.pre)?;
        let kinds = kinds(parts)?;
        let of_kind = |wanted| {
            let tokens = (0..).zip(parts.tokens).zip(&kinds);
            tokens.filter(move |(_, kind)| **kind == wanted).map(|(token, _)| token)
        };

        let specials = of_kind(Kind::Special).filter(|(_, text)| !text.is_empty());
        let (special_ids, texts): (Vec<u32>, Vec<&String>) = specials.unzip();
        let named =
            special_ids.iter().zip(&texts).filter(|(_, text)| ENDS.contains(&text.as_str()));
        let mut end_ids: Vec<u32> =
            named.map(|(id, _)| *id).chain(parts.eos).chain(parts.eot).chain(parts.eom).collect();
        let known = |id: &u32| (*id as usize) < parts.tokens.len();
        end_ids.extend(parts.end_ids.iter().copied().filter(known));
        end_ids.sort_unstable();
        end_ids.dedup();

        let (bytes, byte_ends) = bytes(parts.tokens, &kinds);
        Ok(Self {
            bpe: bpe(of_kind(Kind::Normal), parts.merges, pretokenizer.whole_words)?,
            pretokenizer,
            specials: Specials::new(
                texts.into_iter().cloned().zip(special_ids.into_iter().map(Some)),
            )?,
            bytes,
            byte_ends,
            bos: parts.bos,
            eos: parts.eos,
            pad: parts.pad.filter(known),
            warnings: warnings(parts),
            end_ids,
            add_bos: parts.add_bos && parts.bos.is_some(),
            chat_template: parts.chat_template.map(str::to_owned),
        })
    }

    /// The tokens of a text, without adding a BOS. With `parse_special`, the text of a special
    /// token (`<｜User｜>`, `<think>`) becomes that token; without, it is ordinary text, also for
    /// tokens that a file calls user-defined: text from users cannot then open a turn.
    ///
    /// # Errors
    /// [`Error::Split`] if a regular expression fails, for which no text is known.
    pub fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        let mut from = 0;
        if parse_special {
            for (found, id) in self.specials.find_ids(text) {
                self.encode_ordinary(&text[from..found.start], &mut ids)?;
                ids.push(id);
                from = found.end;
            }
        }
        self.encode_ordinary(&text[from..], &mut ids)?;
        Ok(ids)
    }

    /// The tokens of a rendered prompt with special tokens parsed, and exactly one BOS if the file
    /// asks for it, even if the template wrote none or two.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.encode(text, true)?;
        self.with_one_bos(&mut ids);
        Ok(ids)
    }

    /// Makes a prompt begin with one BOS: never two, and not none if the file asks for one.
    pub(crate) fn with_one_bos(&self, ids: &mut Vec<u32>) {
        if let Some(bos) = self.bos {
            let written = ids.iter().take_while(|id| **id == bos).count();
            if written > 1 {
                ids.drain(1..written);
            } else if written == 0 && self.add_bos {
                ids.insert(0, bos);
            }
        }
    }

    fn encode_ordinary(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let mut word = String::new();
        for piece in self.pretokenizer.split(text)? {
            word.clear();
            word.extend(piece.bytes().map(byte_level::char_of));
            let tokens =
                self.bpe.tokenize(&word).map_err(|error| Error::Encode(error.to_string()))?;
            ids.extend(tokens.into_iter().map(|token| token.id));
        }
        Ok(())
    }

    /// The text of tokens; invalid UTF-8 becomes U+FFFD. For a stream of tokens use
    /// [`token_bytes`](Self::token_bytes) and [`Utf8Stream`](crate::Utf8Stream).
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| self.token_bytes(*id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The exact bytes of one token, often not whole characters. Special tokens give their own
    /// text; unused tokens and ids outside the table give nothing.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(end) = self.byte_ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.byte_ends[id - 1] };
        &self.bytes[start..*end]
    }

    /// The token with this text: that of a special token, or the decoded one of a normal token.
    pub fn id_of(&self, text: &str) -> Option<u32> {
        self.special_id(text).or_else(|| {
            self.bpe.token_to_id(&text.bytes().map(byte_level::char_of).collect::<String>())
        })
    }

    /// The special token with this text.
    pub fn special_id(&self, text: &str) -> Option<u32> {
        self.specials.id(text)
    }

    /// All special tokens.
    pub(crate) fn specials(&self) -> &Specials {
        &self.specials
    }

    /// Number of tokens, used or not: the number of logits.
    pub fn len(&self) -> usize {
        self.byte_ends.len()
    }

    /// Whether there are no tokens (never, once built).
    pub fn is_empty(&self) -> bool {
        self.byte_ends.is_empty()
    }

    /// The token that begins a prompt.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token of `eos_token_id`; see also [`is_end`](Self::is_end).
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The tokens that stand for themselves, and are never the result of merging text.
    pub fn special_ids(&self) -> impl Iterator<Item = u32> {
        self.specials.iter().filter_map(|(_, id)| id)
    }

    /// What is wrong with the tables and does not matter.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The padding token.
    pub fn pad(&self) -> Option<u32> {
        self.pad
    }

    /// Whether this token ends an answer, by a key of the file or by a known text.
    pub fn is_end(&self, id: u32) -> bool {
        self.end_ids.contains(&id)
    }

    /// Whether [`encode_prompt`](Self::encode_prompt) adds the token `bos`.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// The file's chat template, for [`ChatTemplate::new`](crate::ChatTemplate::new).
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// The text of one token, lossily, as chat templates need it for `bos` and `eos`.
    pub fn token_text(&self, id: Option<u32>) -> String {
        id.map(|id| self.decode(&[id])).unwrap_or_default()
    }
}

impl std::fmt::Debug for Vocab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vocab").field("len", &self.len()).finish_non_exhaustive()
    }
}

fn fault(key: &'static str, fault: String) -> Error {
    Error::Table { key, fault }
}

/// Ids that name no token and that nothing depends on.
fn warnings(parts: &VocabParts<'_>) -> Vec<String> {
    let len = parts.tokens.len();
    let outside = |id: &u32| *id as usize >= len;
    let mut warnings = Vec::new();
    if parts.pad.as_ref().is_some_and(outside) {
        warnings.push("tokenizer.ggml.padding_token_id is not a token: it is ignored".to_owned());
    }
    if parts.end_ids.iter().any(outside) {
        warnings.push("an id in a list of tokens that end an answer is not a token".to_owned());
    }
    warnings
}

/// The kind of each token; checks the sizes of the tables and the special ids.
fn kinds(parts: &VocabParts<'_>) -> Result<Vec<Kind>> {
    let len = parts.tokens.len();
    if u32::try_from(len).is_err() || len == 0 {
        return Err(fault("tokens", format!("{len} tokens")));
    }
    let mut kinds = match parts.token_types.len() {
        0 => vec![Kind::Normal; len],
        types if types == len => {
            let types = parts.token_types.iter().zip(parts.tokens);
            types.map(|(ty, text)| Kind::of(*ty, text)).collect()
        }
        types => return Err(fault("token_type", format!("{types} types for {len} tokens"))),
    };
    for (kind, text) in kinds.iter_mut().zip(parts.tokens) {
        let is_end = *kind != Kind::Special && ENDS.contains(&text.as_str());
        // In brackets it may be a word of code, but only if merging leads to it.
        if is_end && !parts.merges.iter().any(|merge| merge.replacen(' ', "", 1) == *text) {
            *kind = Kind::Special;
        }
    }
    for id in &parts.end_ids {
        if let Some(kind) = kinds.get_mut(*id as usize) {
            *kind = Kind::Special;
        }
    }
    for (key, id) in [
        ("bos_token_id", parts.bos),
        ("eos_token_id", parts.eos),
        ("eot_token_id", parts.eot),
        ("eom_token_id", parts.eom),
    ] {
        let Some(id) = id else { continue };
        match kinds.get_mut(id as usize) {
            None => return Err(fault(key, format!("{id}, but there are {len} tokens"))),
            Some(kind) => *kind = Kind::Special,
        }
    }
    Ok(kinds)
}

/// The bytes of all tokens, and the end of each one's.
fn bytes(tokens: &[String], kinds: &[Kind]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::with_capacity(tokens.iter().map(String::len).sum());
    let mut ends = Vec::with_capacity(tokens.len());
    for (token, kind) in tokens.iter().zip(kinds) {
        match kind {
            Kind::Unused => {}
            Kind::Special => bytes.extend_from_slice(token.as_bytes()),
            Kind::Normal => {
                let start = bytes.len();
                let mut foreign = false;
                bytes.extend(token.chars().map_while(|char| {
                    let byte = byte_level::byte_of(char);
                    foreign |= byte.is_none();
                    byte
                }));
                if foreign {
                    // Not in the alphabet, so never a result of merging: it is its own text.
                    bytes.truncate(start);
                    bytes.extend_from_slice(token.as_bytes());
                }
            }
        }
        ends.push(bytes.len());
    }
    (bytes, ends)
}

/// The merging model; checks first what the library does not check.
fn bpe<'a>(
    tokens: impl Iterator<Item = (u32, &'a String)>,
    merges: &[String],
    whole_words: bool,
) -> Result<BPE> {
    let mut vocab = TextToId::with_capacity(tokens.size_hint().1.unwrap_or(0));
    let mut longest = 0;
    for (id, text) in tokens {
        longest = longest.max(text.len());
        vocab.entry(text.clone()).or_insert(id);
    }
    // The bytes that occur in UTF-8: a byte without a token would be dropped without an error.
    let mut occurring = (0..=0xBF).chain(0xC2..=0xF4).map(|byte| (byte, byte_level::char_of(byte)));
    if let Some((byte, _)) = occurring.find(|(_, char)| !vocab.contains_key(&char.to_string())) {
        return Err(fault("tokens", format!("there is no token for the byte {byte:#04x}")));
    }
    let pair = |(rank, merge): (usize, &String)| {
        let pair =
            merge.split_once(' ').filter(|(left, right)| left.len() + right.len() <= longest);
        let (left, right) = pair.ok_or_else(|| {
            fault("merges", format!("merge {rank}, `{merge}`, does not join two tokens to a third"))
        })?;
        Ok((left.to_owned(), right.to_owned()))
    };
    let merges = merges.iter().enumerate().map(pair).collect::<Result<Merges>>()?;
    BPE::builder()
        .vocab_and_merges(vocab, merges)
        .ignore_merges(whole_words)
        .build()
        .map_err(|error| fault("merges", error.to_string()))
}
