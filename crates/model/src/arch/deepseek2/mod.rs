//! DeepSeek-V2 and its successors V3, R1, V3.1 and Kimi-K2 (GGUF architecture `deepseek2`).

pub(crate) mod config;
pub(crate) mod header;
mod mla;
mod moe;
#[cfg(feature = "oracle")]
pub mod reference;
mod router;
mod stage;
mod weights;

use std::sync::Arc;

use cachalot_kernels::Cpu;
use cachalot_store::Weights;

use self::config::Config;
use self::stage::{CpuStage, Head};
use crate::bind::Binder;
use crate::experts::resident::Resident;
use crate::seam::{Experts, Stage, StageSpec};
use crate::{Error, ModelOptions};

/// Binds some layers to this machine's processor.
pub(crate) fn cpu_stage(
    weights: &Weights,
    cpu: &Arc<Cpu>,
    options: &ModelOptions,
    spec: &StageSpec,
    experts: Option<Box<dyn Experts>>,
) -> Result<Box<dyn Stage>, Error> {
    let config = Config::new(weights, options.expert_groups, options.experts)?;
    header::check(weights.metadata(), weights.tensors().iter().map(|tensor| &tensor.info))?;
    let binder = Binder::new(weights);
    let experts = match experts {
        Some(experts) => experts,
        None => Box::new(Resident::bind(weights, cpu, &config.expert_shape_of(&spec.layers))?),
    };
    let mut stage = CpuStage::bind(binder, cpu, &config, spec.layers.clone(), experts, options)?;
    let (_, vocabulary) = binder.shape("token_embd.weight")?;
    if spec.embeds {
        stage.embed_with(binder.matrix("token_embd.weight", vocabulary, config.hidden)?);
    }
    if spec.has_head {
        let head = if binder.has("output.weight") { "output.weight" } else { "token_embd.weight" };
        stage.compute_logits_with(Head {
            norm: binder.vector("output_norm.weight", config.hidden)?,
            weight: binder.matrix(head, vocabulary, config.hidden)?,
        });
    }
    Ok(Box::new(stage))
}
