//! What the words after `cachalot run` mean: a model, a prompt, or a mistake.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use cachalot_engine::layout::Source;
use cachalot_plan::catalogue::{self, Resolved};

use crate::embedded;
use crate::failure::usage;
use crate::models;
use crate::settings::Environment;

/// Families of models: with a version, such a name is not a word of a prompt.
const FAMILIES: [&str; 9] =
    ["deepseek", "gemma", "glm", "gpt-oss", "kimi", "llama", "mistral", "mixtral", "qwen"];
/// What files of weights end in.
const EXTENSIONS: [&str; 4] = ["bin", "ggml", "gguf", "safetensors"];
/// Edits that turn a misspelt name into a known one.
const MISSPELLING_MAX: usize = 2;

/// Splits the words into a model, if the first one names a model, and the prompt.
///
/// A model in the library goes by its name. A word that ends in `.gguf` or is an existing path
/// names one, so that a mistyped or unreadable path is reported instead of becoming part of a
/// prompt. Text with spaces is always a prompt.
///
/// # Errors
/// A usage error if the first word looks like a model that does not exist here, or a word of the
/// prompt is not UTF-8.
pub(crate) fn model_and_prompt(
    mut words: Vec<OsString>,
    environment: &Environment,
) -> anyhow::Result<(Source, Option<String>)> {
    let source = match words.first() {
        Some(first) if names_file(first) => Source::File(PathBuf::from(words.remove(0))),
        Some(first) => {
            let name =
                first.to_str().filter(|word| names_model(word) || models::knows(word, environment));
            match name.map(str::to_owned) {
                None => embedded::SOURCE,
                Some(name) => {
                    words.remove(0);
                    let path = models::for_run(&name, environment)?;
                    Source::File(path.ok_or_else(|| unknown_model(&name))?)
                }
            }
        }
        None => embedded::SOURCE,
    };
    Ok((source, prompt_of(&words)?))
}

/// The prompt that words are; `None` if there are none.
///
/// # Errors
/// A usage error if a word is not UTF-8.
pub(crate) fn prompt_of(words: &[OsString]) -> anyhow::Result<Option<String>> {
    let words: Option<Vec<&str>> = words.iter().map(|word| word.to_str()).collect();
    let words = words.ok_or_else(|| usage("the prompt is not UTF-8"))?;
    Ok((!words.is_empty()).then(|| words.join(" ")))
}

/// Whether a word is the path of something that exists, or a file name of a model.
fn names_file(word: &OsString) -> bool {
    let path = Path::new(word);
    let is_gguf = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
    let one_word = word.to_str().is_none_or(|word| !word.contains(char::is_whitespace));
    (is_gguf && one_word) || word.to_str().is_none() || path.exists()
}

/// Whether a word looks like the name of a model, a reference to a repository, or a path.
fn names_model(word: &str) -> bool {
    let in_name = |c: char| c.is_ascii_alphanumeric() || "._-:/@".contains(c);
    if !word.chars().all(in_name) {
        return word.starts_with("./") || word.starts_with("../") || word.starts_with("~/");
    }
    if word.starts_with('.') && word.contains('/') || word.starts_with('/') && word.len() > 1 {
        return !word[1..].starts_with(|c: char| c.is_ascii_digit()); // "/2 of 4" is a fraction
    }
    !matches!(catalogue::resolve(word, None), Resolved::Unknown { .. })
        || nearest(word).is_some()
        || is_of_family(word)
        || is_tagged(word)
        || is_repository(word)
        || is_weights(word)
}

/// `glm-4.7-flash`, `Qwen2.5`; and `deepseek`, which is nothing else.
fn is_of_family(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    let versioned = |rest: &str| rest.contains(|c: char| c.is_ascii_digit());
    word == FAMILIES[0]
        || FAMILIES.iter().any(|family| word.strip_prefix(family).is_some_and(versioned))
}

/// The name of a file of weights, or of a piece of one, perhaps misspelt: `R1-Q4_K_M`, `x.ggu`.
fn is_weights(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    let is_quantization = |part: &str| {
        let rest = part.trim_start_matches('i').strip_prefix('q').unwrap_or_default();
        rest.starts_with(|c: char| c.is_ascii_digit()) && rest.get(1..2) == Some("_")
    };
    let is_extension = |end: &str| {
        EXTENSIONS.contains(&end) || end.len() > 2 && strsim::levenshtein(end, "gguf") == 1
    };
    word.contains(".gguf.")
        || word.split(['-', '.']).any(is_quantization)
        || word.rsplit_once('.').is_some_and(|(stem, end)| !stem.is_empty() && is_extension(end))
}

/// `name:tag`; a digit or a hyphen tells it from `Question:` and `yes:no`, a letter from a time.
fn is_tagged(word: &str) -> bool {
    word.split_once(':').is_some_and(|(name, tag)| {
        let is_named = name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.contains(|c: char| c.is_ascii_alphabetic());
        let is_model = word.contains(|c: char| c.is_ascii_digit() || c == '-') || tag == "latest";
        is_named && !tag.is_empty() && is_model
    })
}

/// `host.tld/user/name` or `user/name-with-digits`, rather than "and/or" or a fraction.
fn is_repository(word: &str) -> bool {
    let mut parts = word.split('/');
    let (Some(first), Some(second)) = (parts.next(), parts.next()) else { return false };
    let is_word = |part: &str| part.contains(|c: char| c.is_ascii_alphabetic());
    let is_host = first.contains('.');
    let is_name = second.contains('-') && second.contains(|c: char| c.is_ascii_digit());
    is_word(first) && is_word(second) && (is_host || is_name)
}

/// The known name that a word, less its tag, is or was meant to be.
fn nearest(word: &str) -> Option<String> {
    let name = word.split(':').next().unwrap_or(word).to_ascii_lowercase();
    let models = catalogue::names().into_iter().filter(|known| !known.contains('/'));
    let models = models.map(|known| known.split(':').next().unwrap_or(&known).to_owned());
    let (distance, found) =
        models.map(|known| (strsim::levenshtein(&known, &name), known)).min()?;
    // Short words are close to too much.
    (distance <= MISSPELLING_MAX.min(name.len() / 4)).then_some(found)
}

fn unknown_model(name: &str) -> anyhow::Error {
    let suggestion = match nearest(name) {
        Some(known) if !name.to_ascii_lowercase().starts_with(&known) => {
            format!(" Did you mean {known}?")
        }
        _ => String::new(),
    };
    usage(format!(
        "`{name}`: no such model or file.{suggestion} `cachalot list` shows the models that are here, \
         `cachalot pull NAME` downloads one. If it is part of a prompt, put the whole prompt in quotes."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(words: &[&str]) -> anyhow::Result<(Source, Option<String>)> {
        model_and_prompt(words.iter().map(OsString::from).collect(), &Environment::default())
    }

    #[test]
    fn the_first_word_may_name_a_file() {
        let file = |path: &str| Source::File(path.into());
        for (words, path, prompt) in [
            (&["missing.gguf", "Why", "not?"][..], "missing.gguf", Some("Why not?")),
            (&["Cargo.toml"], "Cargo.toml", None),
            (&["src"], "src", None), // a folder is reported, not used as a prompt
            (&["no/such.GGUF", "hi"], "no/such.GGUF", Some("hi")),
        ] {
            let (source, said) = split(words).unwrap();
            assert_eq!((source, said.as_deref()), (file(path), prompt));
        }
    }

    #[test]
    fn a_prompt_is_for_the_embedded_model() {
        for prompt in [
            &["What is a file.gguf"][..],
            &["How many r's are in strawberry?"],
            &["How", "many", "r's", "are", "in", "strawberry?"],
            &["deepseek-r1:671b is what?"],
            &[""],
            &["hi"],
            &["Translate:", "whale"],
            &["12:30", "plus", "an", "hour"],
            &["1/2", "+", "1/3"],
            &["and/or"],
            &["9.11/9.9"],
            &["Wal-Mart"],
            &["Why?"],
            &["/2"],
            &["kimono"],
            &["glmrt"],
            &["llamas", "spit"],
            &["e.g.", "this"],
            &["v2.0", "of", "it"],
            &["Hello.", "You?"],
        ] {
            let (source, said) = split(prompt).unwrap();
            assert!(matches!(source, Source::Embedded(_)), "{prompt:?}");
            assert_eq!(said.unwrap(), prompt.join(" "));
        }
        assert_eq!(split(&[]).unwrap().1, None);
    }

    #[test]
    fn what_looks_like_a_model_is_not_part_of_a_prompt() {
        for name in [
            "deepseek-r1:671b",
            "deepseeek-r1:8b",
            "deepseek-r1",
            "DeepSeek-V3",
            "kimi-k2",
            "llama3.3:70b",
            "qwen:latest",
            "hf.co/someone/Some-GGUF:Q4_K_M",
            "hf.co/a/b:Q4",
            "unsloth/DeepSeek-R1-GGUF",
            "./no-such-file",
            "./x",
            "../models/r1",
            "/models/r1",
            "~/models/r1",
            "./mo dels",
            "r1",
            "R1:671b",
            "deepseek",
            "deepseek-r1-distill-qwen-7b",
            "DeepSeek-R1-Q4_K_M",
            "my-model-IQ1_S",
            "glm-4.7-flash",
            "Qwen2.5",
            "kimi-k2.5",
            "model.gguf.part1",
            "model.gguff",
            "model.safetensors",
        ] {
            let error = split(&[name, "hi"]).unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}`: no such model or file")), "{error}");
        }
        let error = split(&["deepseeek-r1:8b", "hi"]).unwrap_err().to_string();
        assert!(error.contains("Did you mean deepseek-r1?"), "{error}");
    }

    #[test]
    fn names_of_files_need_not_be_utf_8() {
        use std::os::unix::ffi::OsStringExt;
        let word = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let (source, _) =
            model_and_prompt(vec![word(b"\xff.gguf"), word(b"hi")], &Environment::default())
                .unwrap();
        assert_eq!(source, Source::File(word(b"\xff.gguf").into()));
        let words = vec![word(b"hi"), word(b"\xff")];
        assert!(model_and_prompt(words, &Environment::default()).is_err());
    }
}
