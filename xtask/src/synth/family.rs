//! The models that can be imitated: shapes from the planner, and the keys that say how to compute.
//!
//! Sources: the `config.json` published with each model, and the keys that converters make of it.

use anyhow::Result;
use cachalot_gguf::{Metadata, TensorInfo, TensorType, Value};
use cachalot_plan::Shape;
use cachalot_plan::shape::Layout;
use clap::ValueEnum;

use super::recipe::Recipe;

/// What a person calls them.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Name {
    /// DeepSeek-R1, V3, V3.1: 61 layers, 3 of them dense
    R1,
    /// DeepSeek-V2-Lite: 27 layers, 1 of them dense
    V2Lite,
    /// Kimi-K2: 61 layers, 1 of them dense
    KimiK2,
}

/// A model's numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family {
    name: &'static str,
    pub(super) shape: Shape,
    rope_base: f32,
    /// YaRN: how far the context is stretched, and 0.1 times `mscale_all_dim`.
    yarn_factor: f32,
    yarn_log_multiplier: f32,
    router: Router,
}

/// How experts are picked and weighed.
#[derive(Debug, Clone, Copy)]
struct Router {
    /// `expert_gating_func`: 1 softmax, 2 sigmoid.
    gate: u32,
    normalize: bool,
    scale: f32,
    groups: u32,
    groups_used: u32,
}

const R1: Family = Family {
    name: "DeepSeek-R1",
    shape: Shape::DEEPSEEK_V3,
    rope_base: 10_000.0,
    yarn_factor: 40.0,
    yarn_log_multiplier: 0.1,
    router: Router { gate: 2, normalize: true, scale: 2.5, groups: 8, groups_used: 4 },
};

const KIMI_K2: Family = Family {
    name: "Kimi-K2",
    shape: Shape::KIMI_K2,
    rope_base: 50_000.0,
    yarn_factor: 32.0,
    router: Router { scale: 2.827, groups: 1, groups_used: 1, ..R1.router },
    ..R1
};

const V2_LITE: Family = Family {
    name: "DeepSeek-V2-Lite",
    shape: Shape::DEEPSEEK_V2_LITE,
    yarn_log_multiplier: 0.0707,
    router: Router { gate: 1, normalize: false, scale: 1.0, groups: 1, groups_used: 1 },
    ..R1
};

impl Family {
    pub(super) fn named(name: Name) -> Self {
        match name {
            Name::R1 => R1,
            Name::V2Lite => V2_LITE,
            Name::KimiK2 => KIMI_K2,
        }
    }

    /// Every tensor, as the converters of today split them, all as F32.
    pub(super) fn tensors(&self) -> Result<Vec<TensorInfo>> {
        Ok(self.shape.tensors(Layout::Absorbed, |_| TensorType::F32)?)
    }

    /// All keys but the tokenizer's.
    pub(super) fn metadata(&self, recipe: Recipe) -> Metadata {
        let mut metadata = self.shape.metadata(Layout::Absorbed);
        metadata.insert("general.type", "model");
        let layers = self.shape.layers;
        metadata.insert("general.name", format!("{}, {layers} random layers", self.name));
        metadata.insert("general.file_type", recipe.file_type());
        metadata.insert("general.quantization_version", 2_u32);
        let mut add = |key: &str, value: Value| {
            metadata.insert(&format!("deepseek2.{key}"), value);
        };
        add("attention.layer_norm_rms_epsilon", 1e-6_f32.into());
        // Zero says "not compressed". Without the key, llama.cpp expects compressed queries unless
        // a model has exactly V2-Lite's number of layers.
        add("attention.q_lora_rank", (self.shape.q_lora as u32).into());
        add("rope.freq_base", self.rope_base.into());
        add("rope.scaling.type", "yarn".into());
        add("rope.scaling.factor", self.yarn_factor.into());
        add("rope.scaling.original_context_length", 4096_u32.into());
        add("rope.scaling.yarn_log_multiplier", self.yarn_log_multiplier.into());
        add("expert_gating_func", self.router.gate.into());
        add("expert_weights_norm", self.router.normalize.into());
        add("expert_weights_scale", self.router.scale.into());
        add("expert_group_count", self.router.groups.into());
        add("expert_group_used_count", self.router.groups_used.into());
        metadata
    }

    /// The same model in miniature, for tests: every width a few blocks, all the experts.
    #[cfg(test)]
    pub(super) fn shrunk(name: Name) -> Self {
        let mut family = Self::named(name);
        let shape = &mut family.shape;
        (shape.layers, shape.dense_layers, shape.vocab) = (2, 1, 1024);
        (shape.hidden, shape.heads, shape.kv_lora) = (256, 2, 256);
        shape.q_lora = shape.q_lora.min(256);
        // No whole number of blocks where the model's are none.
        let width = |ff: u64| if ff.is_multiple_of(256) { 256 } else { 96 };
        (shape.dense_ff, shape.expert_ff) = (width(shape.dense_ff), width(shape.expert_ff));
        family
    }
}
