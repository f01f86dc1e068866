//! Architectures, by the name that files give them: one folder and one line each.

pub(crate) mod deepseek2;

use std::sync::Arc;

use cachalot_gguf::{Metadata, TensorInfo};
use cachalot_kernels::Cpu;
use cachalot_store::Weights;

use crate::seam::{Experts, Stage};
use crate::{Config, Error, ModelOptions};

/// A loaded model in parts.
pub(crate) struct Parts {
    pub(crate) config: Config,
    /// Tokens of the vocabulary.
    pub(crate) vocabulary: usize,
    /// In order; the first embeds, the last computes logits.
    pub(crate) stages: Vec<Box<dyn Stage>>,
}

type Loader =
    fn(&Weights, &Arc<Cpu>, &ModelOptions, Option<Box<dyn Experts>>) -> Result<Parts, Error>;

const ARCHITECTURES: [(&str, Loader); 1] = [("deepseek2", deepseek2::load)];

/// The loader for the file's architecture.
pub(crate) fn loader(weights: &Weights) -> Result<Loader, Error> {
    loader_of(weights.metadata())
}

/// Checks a header without loading anything, as loading would; returns what is ignored in it.
///
/// # Errors
/// If the model cannot be loaded: its architecture, a key, or a tensor and what is wrong with it.
pub fn check_header<'a>(
    metadata: &Metadata,
    tensors: impl IntoIterator<Item = &'a TensorInfo>,
) -> Result<Vec<String>, Error> {
    loader_of(metadata)?;
    deepseek2::header::check(metadata, tensors)
}

fn loader_of(metadata: &Metadata) -> Result<Loader, Error> {
    let arch = metadata.arch()?;
    if let Some((_, loader)) = ARCHITECTURES.iter().find(|(name, _)| *name == arch) {
        return Ok(*loader);
    }
    let supported = ARCHITECTURES.map(|(name, _)| name).join(", ");
    let name = metadata.str("general.name").unwrap_or_default();
    if matches!(arch, "qwen2" | "qwen3" | "llama") && is_r1(name) {
        return Err(Error::Distilled { name: name.to_owned(), arch: arch.to_owned(), supported });
    }
    Err(Error::Architecture { found: arch.to_owned(), supported })
}

/// `DeepSeek R1 Distill Qwen 7B`, `DeepSeek-R1-0528-Qwen3-8B` and the like.
fn is_r1(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.contains("deepseek") && name.contains("r1")
}
