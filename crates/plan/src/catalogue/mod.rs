//! Published files of R1 and related models, and what the names that people use refer to.
//!
//! [`resolve`] is the entry: a name as people type it (`deepseek-r1:671b`, `r1-0528`,
//! `unsloth/Kimi-K2-Instruct-GGUF:Q4_K_M`, `hf.co/...`, a bare quantization) becomes the published
//! files that it means, or a distill, or an error with similar names. A name that is not known
//! never becomes something else. Sizes are those that loaders and download pages report; `source`
//! says which.

mod distills;
mod facts;
mod table;

use std::sync::LazyLock;

pub use self::distills::{DISTILLS, Distill};
pub use self::facts::of_shape;
use self::table::BASES;
use crate::model::ModelFacts;
use crate::shape::Shape;

/// A model with published weights of the `deepseek2` architecture.
#[derive(Debug, PartialEq)]
pub struct Base {
    /// Its name: `DeepSeek-R1-0528`.
    pub name: &'static str,
    /// Other names, in small letters, without `deepseek-`, owner and `-instruct`.
    aliases: &'static [&'static str],
    /// Names at Ollama of the full model, each with its quantization.
    ollama: &'static [(&'static str, &'static str)],
    /// Its dimensions.
    pub shape: &'static Shape,
}

impl Base {
    /// Its name and size: `DeepSeek-R1 671B`.
    pub fn title(&self) -> String {
        format!("{} {}B", self.name, (self.shape.parameters() as f64 / 1e9).round())
    }
}

/// A published file, or a set of split ones.
#[derive(Debug, Clone, Copy)]
pub struct Published {
    /// The model.
    pub base: &'static Base,
    /// Where it is: owner and name at Hugging Face, or name and tag at Ollama.
    pub repository: &'static str,
    /// Its quantization.
    pub quant: &'static str,
    /// Bytes.
    size: u64,
    /// Mean bits of all weights but routed experts.
    dense_bits: f64,
    /// Where its size is reported.
    pub source: &'static str,
    /// Whether cachalot has kernels for its formats.
    pub runs: bool,
    /// What else to know about it.
    pub note: Option<&'static str>,
}

/// All of them, by model, the smallest first.
pub static CATALOGUE: LazyLock<Vec<Published>> = LazyLock::new(table::all);

impl Published {
    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether it is in Ollama's library; otherwise it is at Hugging Face.
    pub fn is_ollama(&self) -> bool {
        self.repository.contains(':')
    }

    /// The name to type.
    pub fn name(&self) -> String {
        if self.is_ollama() {
            return self.repository.to_owned();
        }
        format!("{}:{}", self.repository, self.quant)
    }

    /// The model as the planner sees it.
    pub fn model(&self) -> ModelFacts {
        let name = format!("{} {}", self.base.title(), self.quant);
        of_shape(self.base.shape, &name, self.quant, self.size, self.dense_bits)
    }
}

/// What a name refers to.
#[derive(Debug)]
pub enum Resolved {
    /// These files: one, or all quantizations of a model or of a repository.
    Files(Vec<&'static Published>),
    /// A distill: a smaller model of another architecture, trained on answers of R1.
    Distill(&'static Distill),
    /// A known model or repository that is not published in this quantization.
    NoSuchQuant {
        /// The model or repository.
        of: String,
        /// The quantization that was asked for.
        quant: String,
        /// Those that there are.
        known: Vec<&'static str>,
    },
    /// An unknown name.
    Unknown {
        /// Known names that look like it, best first; at most three.
        nearest: Vec<String>,
    },
}

/// What `name` refers to, in the quantization `quant` if that is given. Upper and lower case, a
/// leading `hf.co/`, `huggingface.co/` or `ollama.com/library/`, and `_` for `-` do not matter.
///
/// ```
/// use cachalot_plan::catalogue::{Resolved, resolve};
/// let Resolved::Files(files) = resolve("deepseek-r1:671b", None) else { panic!() };
/// assert_eq!(files[0].base.name, "DeepSeek-R1");
/// assert!(matches!(resolve("deepseek-r1:8b", None), Resolved::Distill(_)));
/// assert!(matches!(resolve("deepseek-r2", None), Resolved::Unknown { .. }));
/// ```
pub fn resolve(name: &str, quant: Option<&str>) -> Resolved {
    let name = plain(name);
    let quant = quant.map(|quant| quant.trim().to_lowercase());
    if let Some(distill) = distills::find(&name) {
        return Resolved::Distill(distill);
    }
    let (stem, tag) = match name.rsplit_once(':') {
        Some((stem, tag)) => (stem, Some(tag)),
        None => (name.as_str(), None),
    };
    if let Some(files) = exact(&name).filter(|_| quant.is_none()) {
        return Resolved::Files(files);
    }
    // `deepseek-r1:671b --quant Q8_0`: any quantization of the model that the tag names.
    let files = of_tag(stem, tag).or_else(|| of_model(stem)).or_else(|| of_repository(stem));
    let tag_is_quant = tag.filter(|_| of_tag(stem, tag).is_none());
    if let Some(files) = files {
        let Some(wanted) = quant.or_else(|| tag_is_quant.map(str::to_owned)) else {
            return Resolved::Files(files);
        };
        return match with_quant(&files, &wanted) {
            Some(file) => Resolved::Files(vec![file]),
            // `deepseek-r1:672b` is a mistyped tag.
            None if tag_is_quant == Some(&*wanted) && !stem.contains('/') => {
                Resolved::Unknown { nearest: nearest(&name) }
            }
            None => none_of(stem, &wanted, &files),
        };
    }
    match bare_quant(&name).filter(|_| quant.is_none()) {
        Some(file) => Resolved::Files(vec![file]),
        None => Resolved::Unknown { nearest: nearest(&name) },
    }
}

fn none_of(of: &str, quant: &str, files: &[&'static Published]) -> Resolved {
    let mut known: Vec<&str> = files.iter().map(|file| file.quant).collect();
    known.dedup();
    Resolved::NoSuchQuant { of: of.to_owned(), quant: quant.to_owned(), known }
}

/// The file whose whole name this is.
fn exact(name: &str) -> Option<Vec<&'static Published>> {
    CATALOGUE.iter().find(|file| file.name().to_lowercase() == name).map(|file| vec![file])
}

/// All files of the model that an Ollama tag of the full model names.
fn of_tag(stem: &str, tag: Option<&str>) -> Option<Vec<&'static Published>> {
    let whole = format!("{stem}:{}", tag?);
    let base = BASES.iter().find(|base| base.ollama.iter().any(|(name, _)| *name == whole))?;
    Some(of_base(base))
}

/// All files of a model: the name alone, or with its maker.
fn of_model(name: &str) -> Option<Vec<&'static Published>> {
    let name = name.replace(['_', ' '], "-");
    let name = ["deepseek-ai/", "moonshotai/", "ollama/"]
        .iter()
        .fold(&*name, |name, owner| name.strip_prefix(owner).unwrap_or(name));
    let name = name.strip_prefix("deepseek-").unwrap_or(name);
    let name = name.strip_suffix("-gguf").unwrap_or(name);
    let name = name.strip_suffix("-instruct").unwrap_or(name);
    BASES.iter().find(|base| base.aliases.contains(&name)).map(of_base)
}

fn of_base(base: &'static Base) -> Vec<&'static Published> {
    CATALOGUE.iter().filter(|file| file.base == base).collect()
}

fn of_repository(name: &str) -> Option<Vec<&'static Published>> {
    let files = CATALOGUE.iter().filter(|file| file.repository.to_lowercase() == name);
    Some(files.collect::<Vec<_>>()).filter(|files| !files.is_empty())
}

/// Of several files with this quantization, one at Hugging Face, since those can be of any program.
fn with_quant(files: &[&'static Published], quant: &str) -> Option<&'static Published> {
    let same = |file: &&&'static Published| {
        let known = file.quant.to_lowercase();
        known == quant || known.strip_prefix("ud-") == Some(quant)
    };
    let found = || files.iter().filter(same);
    let hugging_face = found().find(|file| !file.is_ollama());
    hugging_face.or_else(|| found().next()).copied()
}

/// A quantization alone means R1 of January 2025 if there is such a file, else the next model that
/// has it.
fn bare_quant(name: &str) -> Option<&'static Published> {
    with_quant(&CATALOGUE.iter().collect::<Vec<_>>(), name)
}

/// The files of this name; none if it is a distill or unknown.
pub fn find(name: &str) -> Vec<&'static Published> {
    match resolve(name, None) {
        Resolved::Files(files) => files,
        _ => Vec::new(),
    }
}

/// Small letters, without the site.
fn plain(name: &str) -> String {
    let name = name.trim().to_lowercase();
    let sites = ["https://", "http://", "hf.co/", "huggingface.co/", "ollama.com/", "library/"];
    sites.iter().fold(&*name, |name, site| name.strip_prefix(site).unwrap_or(name)).to_owned()
}

/// All names, for suggestions.
pub fn names() -> Vec<String> {
    let models = BASES.iter().map(|base| base.name.to_lowercase());
    let tags = BASES.iter().flat_map(|base| base.ollama.iter().map(|(tag, _)| (*tag).to_owned()));
    models.chain(tags).chain(CATALOGUE.iter().map(Published::name)).collect()
}

fn nearest(name: &str) -> Vec<String> {
    let names = names();
    crate::describe::nearest(name, names.iter().map(String::as_str))
}

#[cfg(test)]
mod tests;
