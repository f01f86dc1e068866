//! What planning needs to know of a model: a dozen numbers, from a file's header or from the
//! catalogue.
//!
//! Routed experts are kept apart from all other weights, because they are told apart by everything
//! that follows: they are nearly all of the bytes but few of those that a token reads, they may lie
//! on a drive, and they are what a second graphics card takes over.

use cachalot_gguf::{KvType, Metadata, TensorType};
use serde::Serialize;

use crate::buffers::Widths;
use crate::demand::{Demand, TensorGroup, Usage};

/// What limits a kernel besides memory, by the format of the routed experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnpackCost {
    /// Unpacking keeps up with memory: K-quants, legacy and 4-bit formats.
    Plain,
    /// A codebook of one or two bits per weight, looked up for each group of eight.
    Codebook,
    /// Trellis formats, whose every weight is computed.
    Trellis,
}

impl UnpackCost {
    /// By the name of a quantization (`UD-IQ1_S`, `IQ3_KT`) or of a tensor type.
    pub fn of(name: &str) -> Self {
        let upper = name.to_uppercase();
        let first = upper.split_whitespace().next().unwrap_or_default();
        if first.ends_with("KT") {
            Self::Trellis
        } else if first.contains("IQ1_") || first.starts_with("TQ1") {
            Self::Codebook
        } else {
            Self::Plain
        }
    }
}

/// How many bytes a token reads in one format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Encoded {
    /// The format's name: `Q4_K`.
    pub format: String,
    /// Bytes that a token reads.
    pub per_token: u64,
}

/// A model as the planner sees it. Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelFacts {
    /// What people call it, with its quantization.
    pub name: String,
    /// All weights that are loaded: layers that only predict further tokens are not.
    pub size: u64,
    /// Routed experts.
    pub routed: u64,
    /// Of these, what one token reads.
    pub routed_per_token: u64,
    /// All other weights.
    pub dense: u64,
    /// Of these, what one token reads: all but the embedding.
    pub dense_per_token: u64,
    /// What a token reads of routed experts by format, as far as known.
    pub routed_formats: Vec<Encoded>,
    /// What a token reads of other weights by format, as far as known.
    pub dense_formats: Vec<Encoded>,
    /// Weights of routed experts that one token is multiplied with.
    pub routed_products: u64,
    /// Other weights that one token of a prompt is multiplied with: neither embedding nor head.
    pub dense_products: u64,
    /// Layers in all.
    pub layers: u64,
    /// Layers with experts.
    pub moe_layers: u64,
    /// Routed experts of each.
    pub experts: u64,
    /// How many of them a token uses.
    pub experts_used: u64,
    /// Heads of attention.
    pub heads: u64,
    /// Length of a hidden vector.
    pub hidden: u64,
    /// Widths of its layers.
    pub widths: Widths,
    /// Tokens that the model was made for.
    pub context: u64,
    /// What a token adds to the cache.
    pub cache_f32: u64,
    /// The same in f16.
    pub cache_f16: u64,
    /// The same in q8_0.
    pub cache_q8_0: u64,
    /// What a token would add, in f16, if keys and values of all heads were cached.
    pub cache_expanded: u64,
    /// Operations of attention that each token in the cache costs each new one.
    pub attention_flops: f64,
    /// What limits the kernels of its routed experts.
    pub decoding: UnpackCost,
}

impl ModelFacts {
    /// From the header of a file. `None` if that does not say enough: no layers, no cache.
    pub fn of(metadata: &Metadata, demand: &Demand, name: &str) -> Option<Self> {
        let (layers, cache) = (demand.layers?, demand.cache.as_ref()?);
        let routed = demand.group(TensorGroup::RoutedExperts);
        let unused = demand.group(TensorGroup::Prediction);
        let lookup = [TensorGroup::Embedding, TensorGroup::Head].map(|group| demand.group(group));
        let lookup: u64 = lookup.iter().map(|usage| usage.active_parameters).sum();
        let experts = demand.experts;
        let largest = demand.types.iter().map(|(ty, _)| *ty).find(|ty| *ty != TensorType::F32);
        let size = demand.total.bytes - unused.bytes;
        Some(Self {
            name: name.to_owned(),
            size,
            routed: routed.bytes,
            routed_per_token: routed.bytes_per_token,
            dense: size - routed.bytes,
            dense_per_token: demand.total.bytes_per_token - routed.bytes_per_token,
            routed_formats: encoded(&demand.routed_types, &[]),
            dense_formats: encoded(&demand.types, &demand.routed_types),
            routed_products: routed.active_parameters,
            dense_products: demand.total.active_parameters - routed.active_parameters - lookup,
            layers: layers.total,
            moe_layers: layers.moe,
            experts: experts.map_or(0, |experts| experts.total),
            experts_used: experts.map_or(0, |experts| experts.used),
            heads: metadata.arch_u64("attention.head_count").unwrap_or(0),
            hidden: demand.hidden?,
            widths: Widths::of(metadata, demand),
            context: demand.context?,
            cache_f32: cache.bytes_per_token(KvType::F32),
            cache_f16: cache.bytes_per_token(KvType::F16),
            cache_q8_0: cache.bytes_per_token(KvType::Q8_0),
            cache_expanded: cache_expanded(metadata, layers.total),
            attention_flops: attention_flops(metadata, layers.total),
            decoding: UnpackCost::of(largest.map_or("", TensorType::name)),
        })
    }

    /// Bytes that a token adds to the cache.
    pub fn cache_bytes_per_token(&self, ty: KvType) -> u64 {
        match ty {
            KvType::F32 => self.cache_f32,
            KvType::F16 => self.cache_f16,
            KvType::Q8_0 => self.cache_q8_0,
        }
    }

    /// The same model with another number of active experts.
    pub fn with_experts_used(&self, used: u64) -> Self {
        let share = |n: u64| {
            (u128::from(n) * u128::from(used) / u128::from(self.experts_used.max(1))) as u64
        };
        Self {
            routed_per_token: share(self.routed_per_token),
            routed_products: share(self.routed_products),
            routed_formats: of_formats(&self.routed_formats, share),
            experts_used: used,
            ..self.clone()
        }
    }
}

/// What a token reads by format, without what is counted elsewhere.
fn encoded(types: &[(TensorType, Usage)], elsewhere: &[(TensorType, Usage)]) -> Vec<Encoded> {
    let other = |ty: TensorType| {
        let found = elsewhere.iter().find(|(known, _)| *known == ty);
        found.map_or(0, |(_, usage)| usage.bytes_per_token)
    };
    let all = types.iter().map(|(ty, usage)| Encoded {
        format: ty.name().to_owned(),
        per_token: usage.bytes_per_token - other(*ty),
    });
    all.filter(|encoded| encoded.per_token > 0).collect()
}

/// The same formats with other numbers of bytes.
pub(crate) fn of_formats(formats: &[Encoded], bytes: impl Fn(u64) -> u64) -> Vec<Encoded> {
    let other = |encoded: &Encoded| Encoded {
        format: encoded.format.clone(),
        per_token: bytes(encoded.per_token),
    };
    formats.iter().map(other).collect()
}

/// Layers x heads x (key + value) x 2 bytes: what runtimes cached that did not know the latent.
fn cache_expanded(metadata: &Metadata, layers: u64) -> u64 {
    let number = |key: &str| metadata.arch_u64(key).ok();
    let either = |key: &str| number(&format!("{key}_mla")).or_else(|| number(key)).unwrap_or(0);
    let numbers = either("attention.key_length").saturating_add(either("attention.value_length"));
    let heads = number("attention.head_count").unwrap_or(0);
    layers.saturating_mul(heads).saturating_mul(numbers).saturating_mul(2)
}

/// Absorbed attention: each head multiplies its query with latent and position, and its weights
/// with the latent, a multiplication and an addition each: layers x heads x (2 x latent + rope) x
/// 2. Without a latent, keys and values of each head take its place.
fn attention_flops(metadata: &Metadata, layers: u64) -> f64 {
    let number = |key: &str| metadata.arch_u64(key).unwrap_or(0) as f64;
    let heads = number("attention.head_count");
    let latent = number("attention.kv_lora_rank");
    let both = if latent > 0.0 {
        2.0 * latent + number("rope.dimension_count")
    } else {
        number("attention.key_length") + number("attention.value_length")
    };
    layers as f64 * heads * both * 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::{Layout, Shape};

    #[test]
    fn r1_is_what_it_is() {
        let metadata = Shape::DEEPSEEK_V3.metadata(Layout::Absorbed);
        let tensors = Shape::DEEPSEEK_V3.tensors(Layout::Absorbed, |_| TensorType::Q8_0).unwrap();
        let model = ModelFacts::of(&metadata, &Demand::of(&metadata, &tensors), "R1").unwrap();
        assert_eq!((model.layers, model.moe_layers, model.experts), (61, 58, 256));
        assert_eq!(model.attention_flops, 61.0 * 128.0 * 1088.0 * 2.0);
        assert_eq!((model.cache_f16, model.cache_q8_0), (70_272, 37_332));
        assert_eq!(model.cache_expanded * 2048, 9760 << 20, "9760 MiB at 2k tokens");
        assert_eq!(model.size, model.routed + model.dense);
        // What a token reads: 21.7 GB of experts, and 17.2 GB of other weights with the F32 router.
        assert_eq!((model.routed_per_token as f64 / 1e8).round(), 217.0);
        assert_eq!((model.dense_per_token as f64 / 1e8).round(), 175.0);
        assert_eq!(model.with_experts_used(4).routed_per_token * 2, model.routed_per_token);
    }

    #[test]
    fn formats_that_cost_arithmetic_are_known_by_name() {
        for (name, decoding) in [
            ("UD-IQ1_S", UnpackCost::Codebook),
            ("IQ1_S_R4", UnpackCost::Codebook),
            ("IQ3_KT trellis", UnpackCost::Trellis),
            ("Q4_K_M", UnpackCost::Plain),
            ("IQ2_XXS", UnpackCost::Plain),
            ("", UnpackCost::Plain),
        ] {
            assert_eq!(UnpackCost::of(name), decoding, "{name}");
        }
    }
}
