//! What the words after `cachalot run` mean: a model, a prompt, or a mistake.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use cachalot_engine::Source;
use cachalot_plan::catalogue;

use crate::embedded;
use crate::failure::usage;
use crate::models;
use crate::settings::Environment;

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
            let name = first
                .to_str()
                .filter(|word| names_model(word) || models::here(word, environment).is_some());
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
    let words: Option<Vec<&str>> = words.iter().map(|word| word.to_str()).collect();
    let words = words.ok_or_else(|| usage("the prompt is not UTF-8"))?;
    Ok((source, (!words.is_empty()).then(|| words.join(" "))))
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
    nearest(word).is_some() || is_tagged(word) || is_repository(word)
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
    let distance = |known: &String| strsim::levenshtein(known, &name);
    // Repositories are told by their form.
    let known = catalogue::names().into_iter().filter(|known| !known.contains('/'));
    let known = known.map(|known| known.split(':').next().unwrap_or_default().to_owned());
    let found = known.min_by_key(distance)?;
    // Short words are close to too much.
    (distance(&found) <= MISSPELLING_MAX.min(name.len() / 4)).then_some(found)
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
