//! How a text is split into words before byte-pair encoding: by `tokenizer.ggml.pre`.
//!
//! A GGUF holds the tables but only a name for the regular expressions. These are the expressions
//! of the models' published tokenizers. Each is applied to every piece of the previous one; both
//! its matches and the text between them become pieces.
//!
//! `deepseek-v3` (R1, V3, V3.1) is compared token for token with the published tokenizer. The
//! others follow the published expressions and are tested only for losing no text.

use crate::error::{Error, Result};
use fancy_regex::{Regex, RegexBuilder};

/// Values of `tokenizer.ggml.pre` and their expressions.
const KNOWN: [(&str, &[&str]); 38] = [
    ("deepseek-v3", V3),
    ("hunyuan-dense", V3),
    ("joyai-llm", V3),
    (
        "deepseek-llm",
        &[r"[\r\n]", DEEPSEEK_LLM_LETTERS, DEEPSEEK_LLM_SIGNS, r"\s+$", CJK, r"\p{N}"],
    ),
    ("deepseek-coder", &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, r"\p{N}"]),
    ("kimi-k2", &[KIMI_K2]),
    ("gpt-2", &[GPT2]),
    ("default", &[GPT2]),
    ("mpt", &[GPT2]),
    ("olmo", &[GPT2]),
    ("jais", &[GPT2]),
    ("phi-2", &[GPT2]),
    ("trillion", &[GPT2]),
    ("starcoder", DIGITS_GPT2),
    ("refact", DIGITS_GPT2),
    ("command-r", DIGITS_GPT2),
    ("smollm", DIGITS_GPT2),
    ("codeshell", DIGITS_GPT2),
    ("exaone", DIGITS_GPT2),
    ("minerva-7b", DIGITS_GPT2),
    ("qwen2", &[QWEN2]),
    ("deepseek-r1-qwen", &[QWEN2]),
    ("stablelm2", &[QWEN2]),
    ("hunyuan", &[QWEN2]),
    ("megrez", &[QWEN2]),
    ("qwen35", &[QWEN35]),
    ("llama-bpe", &[LLAMA3]),
    ("llama3", &[LLAMA3]),
    ("llama-v3", &[LLAMA3]),
    ("falcon3", &[LLAMA3]),
    ("pixtral", &[TEKKEN]),
    ("glm4", &[LLAMA3]),
    ("chatglm-bpe", &[LLAMA3]),
    ("dbrx", &[LLAMA3]),
    ("smaug-bpe", &[LLAMA3]),
    ("tekken", &[TEKKEN]),
    ("gpt-4o", &[O200K]),
    ("llama4", &[O200K]),
];

/// Those that take a word that is a token as a whole (`ignore_merges` in the published tokenizers).
const WHOLE_WORDS: [&str; 6] = ["llama-bpe", "llama3", "llama-v3", "falcon3", "tekken", "pixtral"];

const V3: &[&str] = &[r"\p{N}{1,3}", CJK_AND_KANA, DEEPSEEK_V3];
const DIGITS_GPT2: &[&str] = &[r"\p{N}", GPT2];

const CJK_AND_KANA: &str = r"[\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+";
const CJK: &str = r"[\x{4e00}-\x{9fa5}\x{800}-\x{4e00}\x{ac00}-\x{d7ff}]+";

const DEEPSEEK_V3: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"##,
    r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// The letters that have case, as of Unicode 11.
const DEEPSEEK_LLM_LETTERS: &str = concat!(
    r"\s?[A-Za-z\x{b5}\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{1ba}\x{1bc}-\x{1bf}\x{1c4}-\x{293}",
    r"\x{295}-\x{2af}\x{370}-\x{373}\x{376}\x{377}\x{37b}-\x{37d}\x{37f}\x{386}\x{388}-\x{38a}",
    r"\x{38c}\x{38e}-\x{3a1}\x{3a3}-\x{3f5}\x{3f7}-\x{481}\x{48a}-\x{52f}\x{531}-\x{556}",
    r"\x{10a0}-\x{10c5}\x{13a0}-\x{13f5}\x{13f8}-\x{13fd}\x{1c90}-\x{1cba}\x{1cbd}-\x{1cbf}",
    r"\x{1d00}-\x{1d2b}\x{1d6b}-\x{1d77}\x{1d79}-\x{1d9a}\x{1e00}-\x{1f15}\x{1f18}-\x{1f1d}",
    r"\x{1f20}-\x{1f45}\x{1f48}-\x{1f4d}\x{1f50}-\x{1f57}\x{1f59}\x{1f5b}\x{1f5d}",
    r"\x{1f5f}-\x{1f7d}\x{1f80}-\x{1fb4}\x{1fb6}-\x{1fbc}\x{1fbe}\x{1fc2}-\x{1fc4}",
    r"\x{1fc6}-\x{1fcc}\x{1fd0}-\x{1fd3}\x{1fd6}-\x{1fdb}\x{1fe0}-\x{1fec}\x{1ff2}-\x{1ff4}",
    r"\x{1ff6}-\x{1ffc}\x{2102}\x{2107}\x{210a}-\x{2113}\x{2115}\x{2119}-\x{211d}\x{2124}",
    r"\x{2126}\x{2128}\x{212a}-\x{212d}\x{212f}-\x{2134}\x{2139}\x{213c}-\x{213f}",
    r"\x{2145}-\x{2149}\x{214e}\x{2183}\x{2184}\x{2c00}-\x{2c7b}\x{2c7e}-\x{2ce4}",
    r"\x{2ceb}-\x{2cee}\x{2cf2}\x{2cf3}\x{a640}-\x{a66d}\x{a680}-\x{a69b}\x{a722}-\x{a76f}",
    r"\x{a771}-\x{a787}\x{a78b}-\x{a78e}\x{ab70}-\x{abbf}\x{fb00}-\x{fb06}\x{fb13}-\x{fb17}",
    r"\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a}\x{10400}-\x{1044f}\x{104b0}-\x{104d3}",
    r"\x{104d8}-\x{104fb}\x{10c80}-\x{10cb2}\x{10cc0}-\x{10cf2}\x{118a0}-\x{118df}",
    r"\x{1e900}-\x{1e943}]+",
);
const DEEPSEEK_LLM_SIGNS: &str =
    r"\s?[!-/:-~\x{ff01}-\x{ff0f}\x{ff1a}-\x{ff5e}\x{2018}-\x{201f}\x{3000}-\x{3002}]+";

const KIMI_K2: &str = concat!(
    r"[\p{Han}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*",
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+",
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// Qwen2's, where marks belong to letters.
const QWEN35: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// Mistral's: words change where capitals begin, digits stand alone.
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// OpenAI's o200k.
const O200K: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// Splits text into words; nothing is lost or changed.
pub(crate) struct PreTokenizer {
    patterns: Vec<Regex>,
    /// A word that is itself a token is not split further, whatever the merges.
    pub(crate) whole_words: bool,
}

impl PreTokenizer {
    /// The pre-tokenizer of this name.
    pub(crate) fn named(name: &str) -> Result<Self> {
        let Some((_, patterns)) = KNOWN.iter().find(|(known, _)| *known == name) else {
            let known = KNOWN.map(|(known, _)| known).join(", ");
            return Err(Error::PreTokenizer { pre: name.to_owned(), known });
        };
        // Each expression takes linear time. Its steps are not limited, since a long run of
        // characters that it does not match (control characters) would exhaust any limit.
        let compile = |pattern: &&str| -> Result<Regex> {
            let compiled = RegexBuilder::new(pattern).backtrack_limit(usize::MAX).build();
            Ok(compiled.map_err(Box::new)?)
        };
        let patterns = patterns.iter().map(compile).collect::<Result<_>>()?;
        Ok(Self { patterns, whole_words: WHOLE_WORDS.contains(&name) })
    }

    /// The words of a text, in order.
    pub(crate) fn split<'t>(&self, text: &'t str) -> Result<Vec<&'t str>> {
        let mut pieces = vec![text];
        for pattern in &self.patterns {
            let mut finer = Vec::with_capacity(pieces.len() + pieces.len() / 2);
            for piece in pieces {
                let mut from = 0;
                for found in pattern.find_iter(piece) {
                    let found = found.map_err(Box::new)?;
                    finer.extend([&piece[from..found.start()], found.as_str()]);
                    from = found.end();
                }
                finer.push(&piece[from..]);
            }
            finer.retain(|piece| !piece.is_empty());
            pieces = finer;
        }
        Ok(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    fn words<'t>(name: &str, text: &'t str) -> Vec<&'t str> {
        PreTokenizer::named(name).unwrap().split(text).unwrap()
    }

    #[test]
    fn splits_as_published() {
        let cut = words("deepseek-v3", "Hi  there, 12345 東京タワーです。\n\n  x");
        let expected = [
            "Hi",
            " ",
            " there",
            ",",
            " ",
            "123",
            "45",
            " ",
            "東京タワーです",
            "。\n\n",
            " ",
            " x",
        ];
        assert_eq!(cut, expected);
        assert_eq!(
            words("deepseek-llm", "Hi, \u{3a9}mega 42 中文"),
            ["Hi", ",", " \u{3a9}", "mega", " ", "4", "2", " ", "中文"]
        );
        assert_eq!(words("kimi-k2", "中文abc's"), ["中文", "abc's"]);
        assert_eq!(words("qwen2", "it'S 42"), ["it", "'S", " ", "4", "2"]);
        assert_eq!(words("gpt-2", "it's  42"), ["it", "'s", " ", " 42"]);
        assert_eq!(words("glm4", "it'S 1234"), ["it", "'S", " ", "123", "4"]);
        assert_eq!(words("deepseek-r1-qwen", "it'S 42"), ["it", "'S", " ", "4", "2"]);
        assert_eq!(words("tekken", "aB CDe/ 42"), ["a", "B", " CDe", "/", " ", "4", "2"]);
        assert_eq!(words("gpt-4o", "don't DON'T 1234"), ["don't", " DON'T", " ", "123", "4"]);
        assert_eq!(words("smollm", "it's 42"), ["it", "'s", " ", "4", "2"]);
    }

    #[test]
    fn an_unknown_name_is_an_error_that_lists_the_known_ones() {
        let error = PreTokenizer::named("gpt-5").err().unwrap().to_string();
        assert!(error.contains("gpt-5") && error.contains("deepseek-v3"), "{error}");
    }

    #[test]
    fn long_runs_do_not_exhaust_the_expressions() {
        for (name, _) in KNOWN {
            let pretokenizer = PreTokenizer::named(name).unwrap();
            for unit in [" ", "\n", "a", "A", "1", "!", "é", "中", " \n", "\u{1}", "'s"] {
                let text = unit.repeat(if name == "deepseek-v3" { 200_000 } else { 4_000 });
                let length = pretokenizer.split(&text).unwrap().concat().len();
                assert_eq!(length, text.len(), "{name} {unit:?}");
            }
        }
    }

    static ALL: LazyLock<Vec<PreTokenizer>> =
        LazyLock::new(|| KNOWN.map(|(name, _)| PreTokenizer::named(name).unwrap()).into());

    proptest! {
        #[test]
        fn no_text_is_lost(text in "\\PC{0,40}|[ \n\ra-z0-9'中あé!]{0,40}|.{0,40}") {
            for pretokenizer in ALL.iter() {
                prop_assert_eq!(pretokenizer.split(&text).unwrap().concat(), text.as_str());
            }
        }
    }
}
