//! Architectures, by the name that files give them: one folder and one line each.

pub(crate) mod deepseek2;

use std::sync::Arc;

use cachalot_gguf::{Metadata, TensorInfo};
use cachalot_kernels::Cpu;
use cachalot_store::Weights;

use crate::seam::{Experts, Stage, StageSpec};
use crate::{Error, ModelOptions};

type MakeStage = fn(
    &Weights,
    &Arc<Cpu>,
    &ModelOptions,
    &StageSpec,
    Option<Box<dyn Experts>>,
) -> Result<Box<dyn Stage>, Error>;

const ARCHITECTURES: [(&str, MakeStage); 1] = [("deepseek2", deepseek2::cpu_stage)];

/// Checks that the file's architecture is supported.
pub(crate) fn check(weights: &Weights) -> Result<(), Error> {
    of(weights.metadata()).map(|_| ())
}

/// Binds the layers of `spec` to this machine's processor; with `experts`, the tensors of routed
/// experts are not used.
///
/// # Errors
/// If the architecture is not supported, or a key or tensor is missing, impossible or of another
/// shape.
pub fn cpu_stage(
    weights: &Weights,
    cpu: &Arc<Cpu>,
    options: &ModelOptions,
    spec: &StageSpec,
    experts: Option<Box<dyn Experts>>,
) -> Result<Box<dyn Stage>, Error> {
    of(weights.metadata())?(weights, cpu, options, spec, experts)
}

/// Checks a header without loading anything, as loading would; returns what is ignored in it.
///
/// # Errors
/// If the model cannot be loaded: its architecture, a key, or a tensor and what is wrong with it.
pub fn check_header<'a>(
    metadata: &Metadata,
    tensors: impl IntoIterator<Item = &'a TensorInfo>,
) -> Result<Vec<String>, Error> {
    of(metadata)?;
    deepseek2::header::check(metadata, tensors)
}

fn of(metadata: &Metadata) -> Result<MakeStage, Error> {
    let arch = metadata.arch()?;
    if let Some((_, make)) = ARCHITECTURES.iter().find(|(name, _)| *name == arch) {
        return Ok(*make);
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
