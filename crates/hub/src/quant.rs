//! The names of quantizations in names of files: `DeepSeek-R1-UD-Q2_K_XL-00001-of-00005.gguf`.

use cachalot_gguf::split::PartName;

/// One quantization among the files of a repository: a file, or all parts of a split one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What to ask for: `UD-Q2_K_XL`, or the stem of the file where it names none.
    pub label: String,
    /// Paths within the repository, in order, with their sizes.
    pub files: Vec<Listed>,
    /// Numbers of parts that the repository lacks.
    pub missing: Vec<u32>,
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Path within the repository.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// Its hash, if the listing has it.
    pub sha256: Option<crate::Sha256>,
}

impl Choice {
    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).fold(0, u64::saturating_add)
    }
}

/// The quantization that a name has in it, if any.
pub(crate) fn label(name: &str) -> Option<String> {
    let name = name.rsplit('/').next().unwrap_or(name);
    let name = match PartName::parse(name) {
        Some(part) => part.stem,
        None => name.trim_end_matches(".gguf").to_owned(),
    };
    let words: Vec<&str> = name.split(['-', '.', ':']).collect();
    let at = words.iter().rposition(|word| is_quant(word))?;
    let dynamic = at > 0 && words[at - 1].eq_ignore_ascii_case("UD");
    Some(if dynamic { format!("{}-{}", words[at - 1], words[at]) } else { words[at].to_owned() })
}

/// `Q4_K_M`, `IQ1_S`, `TQ1_0`, `MXFP4`, `BF16` and so on.
fn is_quant(word: &str) -> bool {
    let word = word.to_ascii_uppercase();
    if ["F16", "F32", "BF16", "FP16", "FP8", "MXFP4", "MXFP4_MOE"].contains(&word.as_str()) {
        return true;
    }
    let digits = ["IQ", "TQ", "Q"].iter().find_map(|prefix| word.strip_prefix(prefix));
    digits.is_some_and(|rest| {
        rest.starts_with(|c: char| c.is_ascii_digit()) && rest[1..].starts_with('_')
    })
}

/// Groups the GGUF files of a repository into what can be chosen, the smallest first.
pub(crate) fn choices(files: &[Listed]) -> Vec<Choice> {
    let mut choices: Vec<(String, u32, Choice)> = Vec::new(); // stem with its folder, parts
    for file in files.iter().filter(|file| is_model(&file.path)) {
        let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        let part = PartName::parse(name);
        let (stem, count) = match &part {
            Some(part) => (part.stem.clone(), part.count),
            None => (name[..name.len() - ".gguf".len()].to_owned(), 1),
        };
        let stem = if folder.is_empty() { stem } else { format!("{folder}/{stem}") };
        let found = choices.iter().position(|(s, c, _)| *s == stem && *c == count);
        let index = found.unwrap_or_else(|| {
            let last = stem.rsplit('/').next().unwrap_or(&stem);
            let label = label(last).or_else(|| label(folder)).unwrap_or_else(|| last.to_owned());
            choices.push((stem, count, Choice { label, files: Vec::new(), missing: Vec::new() }));
            choices.len() - 1
        });
        choices[index].2.files.push(file.clone());
    }
    let mut found: Vec<Choice> = Vec::new();
    for (stem, count, mut choice) in choices {
        choice.files.sort_by(|a, b| a.path.cmp(&b.path));
        choice.missing = missing(&choice, count);
        if found.iter().any(|other| other.label == choice.label) {
            choice.label = stem; // two files of one quantization: only their names tell them apart
        }
        found.push(choice);
    }
    found.sort_by_key(Choice::size);
    found
}

fn missing(choice: &Choice, count: u32) -> Vec<u32> {
    let has = |number| {
        choice.files.iter().any(|file| {
            let name = file.path.rsplit('/').next().unwrap_or(&file.path);
            PartName::parse(name).is_none_or(|part| part.number == number)
        })
    };
    // A count from a stranger: no more numbers than any set has.
    (1..=count).filter(|number| !has(*number)).take(10_000).collect()
}

/// A model rather than a projector, an importance matrix or a draft's adapter.
fn is_model(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    name.ends_with(".gguf")
        && name.len() > ".gguf".len()
        && !["mmproj", "imatrix", "lora", "vocab-only"].iter().any(|part| name.contains(part))
}

/// The choice that somebody means: by its label, the path or name of one of its files, or, if only
/// one of them has it, a part of a path. Case does not matter.
pub(crate) fn pick<'a>(choices: &'a [Choice], wanted: &str) -> Option<&'a Choice> {
    let wanted = wanted.to_lowercase();
    let exact = choices.iter().find(|choice| choice.label.to_lowercase() == wanted);
    let by_path = || {
        choices.iter().find(|choice| {
            choice.files.iter().any(|file| {
                let path = file.path.to_lowercase();
                path == wanted || path.rsplit('/').next() == Some(&*wanted)
            })
        })
    };
    let by_part = || {
        let mut having = choices.iter().filter(|choice| {
            choice.files.first().is_some_and(|file| has_words(&file.path, &wanted))
        });
        let first = having.next()?;
        having.next().is_none().then_some(first)
    };
    exact.or_else(by_path).or_else(by_part)
}

/// Whether `path` contains `wanted` between word boundaries: `Q4_K` is not found in `IQ4_K`.
fn has_words(path: &str, wanted: &str) -> bool {
    let path = path.to_lowercase();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    path.match_indices(wanted).any(|(at, _)| {
        !path[..at].ends_with(is_word) && !path[at + wanted.len()..].starts_with(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(paths: &[&str]) -> Vec<Listed> {
        let file = |path: &&str| Listed { path: (*path).to_owned(), size: 10, sha256: None };
        paths.iter().map(file).collect()
    }

    #[test]
    fn quantizations_are_read_from_names() {
        for (name, expected) in [
            ("DeepSeek-R1-UD-Q2_K_XL-00001-of-00005.gguf", Some("UD-Q2_K_XL")),
            ("Q4_K_M/DeepSeek-R1-Q4_K_M-00001-of-00009.gguf", Some("Q4_K_M")),
            ("DeepSeek-R1-0528-IQ1_S_R4-00001-of-00003.gguf", Some("IQ1_S_R4")),
            ("model.BF16.gguf", Some("BF16")),
            ("r1.gguf", None),
            ("Qwen-Q4.gguf", None),
        ] {
            assert_eq!(label(name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn files_are_grouped_and_gaps_found() {
        let files = listed(&[
            "README.md",
            "mmproj-F16.gguf",
            "Q4_K_M/R1-Q4_K_M-00002-of-00003.gguf",
            "Q4_K_M/R1-Q4_K_M-00001-of-00003.gguf",
            "R1-IQ4_K.gguf",
            "R1-UD-IQ1_S.gguf",
        ]);
        let found = choices(&files);
        let labels: Vec<_> = found.iter().map(|choice| choice.label.as_str()).collect();
        assert_eq!(labels, ["IQ4_K", "UD-IQ1_S", "Q4_K_M"]);
        assert_eq!(found[2].missing, [3]);
        assert!(found[2].files[0].path.ends_with("00001-of-00003.gguf"));
        let picked = |wanted| pick(&found, wanted).map(|choice| choice.label.as_str());
        assert_eq!(picked("q4_k_m"), Some("Q4_K_M"));
        assert_eq!(picked("iq1_s"), Some("UD-IQ1_S"));
        assert_eq!(picked("R1-IQ4_K.gguf"), Some("IQ4_K"));
        assert_eq!(picked("Q4_K"), None, "neither IQ4_K nor Q4_K_M");
        assert_eq!(picked("r1"), None, "all of them");
    }
}
