//! The model that is asked about: a file by its header, or a published one by name.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use cachalot_gguf::split::Set;
use cachalot_gguf::{Error as GgufError, Gguf, Metadata, TensorInfo};
use cachalot_plan::catalogue::{self, Published};
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
    /// A path of something that exists, or that ends in `.gguf`, is a file; anything else is a name.
    pub(super) fn find(name: &str, quant: Option<&str>) -> anyhow::Result<Self> {
        let path = Path::new(name);
        let is_gguf = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
        if is_gguf || path.exists() {
            if quant.is_some() {
                return Err(crate::failure::usage(
                    "--quant chooses among published files: a file has one already",
                ));
            }
            return Self::file(path);
        }
        Self::published(name, quant)
    }

    /// What `--kv` compares: R1, if nothing is named.
    pub(super) fn of_kv(name: Option<&str>, quant: Option<&str>) -> anyhow::Result<Self> {
        Self::find(name.unwrap_or("deepseek-r1:671b"), quant)
    }

    fn published(name: &str, quant: Option<&str>) -> anyhow::Result<Self> {
        let found = match quant {
            Some(quant) => {
                // `deepseek-r1 --quant UD-IQ1_S`: the repository's name, or nothing but the model's.
                let all = catalogue::find(&format!("{name}:{quant}"));
                if all.is_empty() { catalogue::find(quant) } else { all }
            }
            None => catalogue::find(name),
        };
        match found[..] {
            [one] => Ok(Self::of_published(one)),
            [] => {
                let wanted =
                    quant.map_or_else(|| name.to_owned(), |quant| format!("{name}:{quant}"));
                let names = catalogue::names();
                let near = describe::nearest(&wanted, names.iter().map(String::as_str));
                let near = if near.is_empty() {
                    " Names look like deepseek-r1:671b or unsloth/DeepSeek-R1-GGUF:UD-IQ1_S; `cachalot plan` \
                     lists R1's."
                        .to_owned()
                } else {
                    format!(" Did you mean {}?", near.join(", "))
                };
                bail!(
                    "`{wanted}` is neither a file nor a published model that cachalot knows.{near}"
                )
            }
            ref several => {
                let quants: Vec<&str> = several.iter().map(|published| published.quant).collect();
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
            .filter(|other| other.quant != published.quant && other.runs)
            .map(Published::model)
            .collect();
        let note = (!published.runs).then(|| {
            format!("cachalot has no kernels for {}: its maker's runtime runs it.", published.quant)
        });
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
            (!identity.runs).then(|| format!("cachalot does not run it. {}", identity.verdict))
        });
        let skew = RoutingSkew::of(&metadata);
        Ok(Self { model, others: Vec::new(), file: Some(path.to_owned()), note, skew })
    }
}

/// Of R1's first release Ollama has one quantization, and Unsloth the others.
fn alike(one: &Published, other: &Published) -> bool {
    one.model == other.model
}

type Header = (Metadata, Vec<TensorInfo>, Option<String>);

/// The header of a file that ends before its tensors do, as downloads do that are still under way.
fn cut_short(path: &Path) -> Option<Header> {
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
