//! The model that is asked about: a file by its header, or a published one by name.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use cachalot_gguf::split::Set;
use cachalot_gguf::{Error as GgufError, Gguf, Metadata, TensorInfo};
use cachalot_plan::catalogue::{self, Published, Resolved};
use cachalot_plan::{Demand, ModelFacts, RoutingSkew, describe, identity};

/// More than any header has.
const HEADER_MAX: u64 = 256 << 20;

/// A model, and what else is known of it.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) model: ModelFacts,
    /// Other quantizations of the same weights.
    pub(super) others: Vec<ModelFacts>,
    /// The file, if there is one.
    pub(super) file: Option<PathBuf>,
    /// Why cachalot does not run it, or what to know of it.
    pub(super) note: Option<String>,
    pub(super) skew: RoutingSkew,
}

impl Subject {
    /// A path of something that exists, or that ends in `.gguf`, is a file; anything else is a
    /// name.
    pub(super) fn find(name: impl AsRef<OsStr>, quant: Option<&str>) -> anyhow::Result<Self> {
        let path = Path::new(&name);
        let is_gguf = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
        if is_gguf || path.exists() || path.to_str().is_none() {
            if quant.is_some() {
                return Err(crate::failure::usage(
                    "--quant chooses among published files: a file has one already",
                ));
            }
            return Self::file(path);
        }
        Self::published(&path.to_string_lossy(), quant)
    }

    /// What `--kv` compares: R1, if nothing is named.
    pub(super) fn of_kv(name: Option<&OsStr>, quant: Option<&str>) -> anyhow::Result<Self> {
        Self::find(name.unwrap_or("deepseek-r1:671b".as_ref()), quant)
    }

    fn published(name: &str, quant: Option<&str>) -> anyhow::Result<Self> {
        let files = match catalogue::resolve(name, quant) {
            Resolved::Files(files) => files,
            Resolved::Distill(distill) => bail!("{}.", distill.verdict()),
            Resolved::NoSuchQuant { of, quant, known } => {
                bail!("{of} is not published as {quant}, but as {}", known.join(", "))
            }
            Resolved::Unknown { nearest } => {
                let near = if describe::machine(name).is_ok() {
                    format!("To describe a machine, write `cachalot plan --on \"{name}\"`.")
                } else if nearest.is_empty() {
                    "Names look like deepseek-r1:671b, kimi-k2 or unsloth/DeepSeek-R1-GGUF:UD-IQ1_S."
                        .to_owned()
                } else {
                    format!("Did you mean {}?", nearest.join(", "))
                };
                bail!(
                    "`{name}` is neither a file nor a published model that cachalot knows. {near}"
                )
            }
        };
        match files[..] {
            [one] => Ok(Self::of_published(one)),
            // `deepseek-r1` alone is what Ollama calls so, as far as it is R1.
            ref several if is_r1(name) => {
                let of_ollama = several.iter().find(|file| file.repository == "deepseek-r1:671b");
                Ok(Self::of_published(of_ollama.unwrap_or(&several[0])))
            }
            ref several => {
                let mut quants: Vec<&str> =
                    several.iter().map(|published| published.quant).collect();
                quants.dedup();
                bail!(
                    "{name} comes in several quantizations: choose one with --quant: {}",
                    quants.join(", ")
                )
            }
        }
    }

    fn of_published(published: &Published) -> Self {
        let others = catalogue::CATALOGUE
            .iter()
            .filter(|other| other.repository == published.repository || alike(other, published))
            .filter(|other| other.quant != published.quant && other.runs && !other.is_ollama())
            .map(Published::model)
            .collect();
        let note = match published.note {
            Some(note) => Some(format!("{note}.")),
            None => (!published.runs).then(|| {
                format!(
                    "cachalot has no kernels for {}: its maker's runtime runs it.",
                    published.quant
                )
            }),
        };
        Self { model: published.model(), others, file: None, note, skew: RoutingSkew::Measured }
    }

    fn file(path: &Path) -> anyhow::Result<Self> {
        let (metadata, tensors, note) = match Set::open(path) {
            Ok(set) => {
                let tensors = set.tensors.into_iter().map(|tensor| tensor.info).collect();
                (set.metadata, tensors, None)
            }
            Err(error) => cut_short(path).ok_or(error)?,
        };
        let demand = Demand::of(&metadata, &tensors);
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        let identity = identity::identify(&metadata, &demand, &file_name);
        let model = ModelFacts::of(&metadata, &demand, &file_name).ok_or_else(|| {
            anyhow!(
                "{}: its header does not say enough to plan with. {}",
                path.display(),
                identity.verdict
            )
        });
        let model = model?;
        let note = note.or_else(|| {
            if !identity.runs {
                return Some(format!("cachalot does not run it. {}", identity.verdict));
            }
            let refused = cachalot_engine::layout::verdict(&metadata, &tensors).err()?;
            Some(format!("cachalot does not run this file: {:#}.", anyhow::Error::from(refused)))
        });
        let skew = RoutingSkew::of(&metadata);
        Ok(Self { model, others: Vec::new(), file: Some(path.to_owned()), note, skew })
    }
}

/// The quantizations of a published model whose name does not say which.
pub(super) fn several(name: &OsStr) -> Option<Vec<&'static Published>> {
    let name = name.to_str().filter(|name| !is_r1(name) && !Path::new(name).exists())?;
    match catalogue::resolve(name, None) {
        Resolved::Files(files) if files.len() > 1 => Some(files),
        _ => None,
    }
}

/// Whether this is R1's name without a quantization.
fn is_r1(name: &str) -> bool {
    matches!(name.trim().to_lowercase().as_str(), "r1" | "deepseek-r1" | "deepseek-ai/deepseek-r1")
}

/// Of R1's first release Ollama has one quantization, and Unsloth the others.
fn alike(one: &Published, other: &Published) -> bool {
    one.base == other.base
}

type Header = (Metadata, Vec<TensorInfo>, Option<String>);

/// The header of a file that ends before its tensors do, as downloads do that are still under way.
fn cut_short(path: &Path) -> Option<Header> {
    cachalot_gguf::check_regular(path).ok()?;
    let file = File::open(path).ok()?;
    let len = file.metadata().ok()?.len();
    let mut bytes = Vec::new();
    file.take(HEADER_MAX).read_to_end(&mut bytes).ok()?;
    let missing = |error: &GgufError| {
        matches!(error, GgufError::TruncatedTensor { .. } | GgufError::OffsetPastEnd { .. })
    };
    // The header is whole, and all it counts is within the file, or it would be another error.
    Gguf::parse(&bytes, len).err().filter(missing)?;
    let gguf = Gguf::parse(&bytes, u64::MAX / 2).ok()?;
    let note =
        format!("{} ends before its last tensor: the download is not complete.", path.display());
    Some((gguf.metadata, gguf.tensors, Some(note)))
}

/// Reads a whole file's facts for tests of pages.
/// What to write instead of a model and more words, which are a machine's if they can be.
pub(super) fn several_words(model: Option<&OsStr>, words: &[String]) -> String {
    let (model, words) = (model.unwrap_or_default().to_string_lossy(), words.join(" "));
    let all = format!("{model} {words}");
    let example = if describe::machine(&all).is_ok() {
        format!("`cachalot plan --on \"{all}\"`")
    } else {
        format!("`cachalot plan {model} --on \"{words}\"`")
    };
    format!("`plan` takes one model; a machine is described in quotes after --on: {example}")
}

#[cfg(test)]
pub(super) fn published(name: &str) -> Subject {
    Subject::published(name, None).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_files_are_told_apart() {
        assert_eq!(Subject::find("UD-Q2_K_XL", None).unwrap().file, None);
        let calf = Subject::find("models/calf.gguf", None).unwrap();
        assert!(calf.file.is_some() && calf.model.layers > 0 && calf.note.is_none());
        let error = |name, quant| Subject::find(name, quant).unwrap_err().to_string();
        assert!(error("deepseek-r1:672b", None).contains("deepseek-r1:671b"));
        assert!(error("unsloth/DeepSeek-R1-GGUF", None).contains("UD-IQ1_S, UD-IQ1_M"));
        assert!(error("models/calf.gguf", Some("Q8_0")).contains("--quant"));
        assert!(error("missing.gguf", None).contains("missing.gguf"));
        let one = Subject::find("unsloth/DeepSeek-R1-GGUF", Some("UD-IQ1_S")).unwrap();
        assert!(one.model.name.ends_with("UD-IQ1_S") && !one.others.is_empty());
    }

    #[test]
    fn the_header_of_a_file_cut_short_suffices() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("half.gguf");
        let whole = std::fs::read("models/calf.gguf").unwrap();
        std::fs::write(&path, &whole[..whole.len() * 3 / 4]).unwrap();
        let half = Subject::find(path.to_str().unwrap(), None).unwrap();
        assert!(half.note.as_deref().unwrap().contains("not complete"));
        let calf = Subject::find("models/calf.gguf", None).unwrap();
        assert_eq!(half.model.size, calf.model.size);
        std::fs::write(&path, &whole[..2000]).unwrap();
        assert!(Subject::find(path.to_str().unwrap(), None).is_err(), "not even a header");
    }
}
