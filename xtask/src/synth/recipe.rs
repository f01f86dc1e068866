//! Recipes: which tensor gets which format, as in published files.
//!
//! Sources: the counts of types that runtimes log for published files of R1 and V3, and the rule by
//! which llama.cpp's `Q4_K_M` gives some layers more bits.

use cachalot_gguf::{TensorInfo, TensorType};
use clap::ValueEnum;

/// A recipe of quantization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Recipe {
    /// Q4_K; Q6_K for the head, and for down projections and attn_v_b of half of the layers
    #[value(name = "q4_k_m")]
    Q4KM,
    /// Experts Q2_K, their down projections Q3_K; the rest Q4_K to Q6_K
    #[value(name = "ud-q2_k_xl")]
    UdQ2KXl,
    /// Experts IQ1_S, their down projections IQ2_XXS; the rest Q4_K to Q6_K
    #[value(name = "ud-iq1_s")]
    UdIq1S,
    /// All Q8_0
    #[value(name = "q8_0")]
    Q8_0,
}

impl Recipe {
    /// The key `general.file_type`: llama.cpp's number for the mixture.
    pub(super) fn file_type(self) -> u32 {
        match self {
            Self::Q8_0 => 7,
            Self::UdQ2KXl => 10,
            Self::Q4KM => 15,
            Self::UdIq1S => 24,
        }
    }

    /// The type of a tensor in a model with this number of layers. Norms, router and bias are F32.
    pub(super) fn type_of(self, tensor: &TensorInfo, layers: u64) -> TensorType {
        let (layer, part) = place(&tensor.name);
        if tensor.shape.len() == 1 || part == "ffn_gate_inp" {
            return TensorType::F32;
        }
        // Rows of 128 weights: no format of larger blocks fits, and published files take no fewer
        // bits.
        if part == "attn_k_b" {
            return TensorType::Q8_0;
        }
        let wanted = match self {
            Self::Q8_0 => TensorType::Q8_0,
            Self::Q4KM => q4_k_m(part, more_bits(layer, layers)),
            Self::UdQ2KXl => dynamic(part, TensorType::Q2_K, TensorType::Q3_K),
            Self::UdIq1S => dynamic(part, TensorType::IQ1_S, TensorType::IQ2_XXS),
        };
        fitting(wanted, tensor.shape[0])
    }
}

/// `blk.7.ffn_down.weight` -> (7, `ffn_down`); what is in no layer counts as in the first.
fn place(name: &str) -> (u64, &str) {
    let in_layer = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let (layer, part) = in_layer.unwrap_or(("0", name));
    (layer.parse().unwrap_or(0), part.split('.').next().unwrap_or(part))
}

/// The layers that llama.cpp favours: the first and the last eighth, and a third of those between.
fn more_bits(layer: u64, layers: u64) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

fn q4_k_m(part: &str, more_bits: bool) -> TensorType {
    match part {
        "output" => TensorType::Q6_K,
        _ if more_bits && (part.starts_with("ffn_down") || part == "attn_v_b") => TensorType::Q6_K,
        _ => TensorType::Q4_K,
    }
}

/// Few bits for the routed experts, which are most of the model, and enough for all others.
fn dynamic(part: &str, experts: TensorType, experts_down: TensorType) -> TensorType {
    match part {
        "ffn_gate_exps" | "ffn_up_exps" => experts,
        "ffn_down_exps" => experts_down,
        "output" | "ffn_down" | "ffn_down_shexp" => TensorType::Q6_K,
        "attn_kv_a_mqa" | "attn_v_b" | "attn_output" => TensorType::Q5_K,
        _ => TensorType::Q4_K,
    }
}

/// What llama.cpp takes instead where rows are no whole number of blocks, as in V2-Lite.
fn fitting(wanted: TensorType, cols: u64) -> TensorType {
    if cols.is_multiple_of(wanted.block_len()) {
        return wanted;
    }
    match wanted {
        TensorType::Q4_K => TensorType::Q5_0,
        TensorType::Q5_K => TensorType::Q5_1,
        TensorType::Q6_K => TensorType::Q8_0,
        _ => TensorType::IQ4_NL,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::family::{Family, Name};
    use super::*;

    /// How many tensors of each type the whole model has, F32 aside.
    fn counts(name: Name, recipe: Recipe) -> BTreeMap<&'static str, usize> {
        let family = Family::named(name);
        let mut counts = BTreeMap::new();
        for tensor in family.tensors().unwrap() {
            let ty = recipe.type_of(&tensor, family.shape.layers);
            assert!(ty.row_bytes(tensor.shape[0]).is_some(), "{}: {ty}", tensor.name);
            *counts.entry(ty.name()).or_default() += 1;
        }
        counts.remove("F32");
        counts
    }

    #[test]
    fn q4_k_m_is_as_published() {
        // Files of R1 that hold `attn_kv_b`, Q4_K, in place of the pair have 606 Q4_K, 58 Q6_K.
        let r1 = counts(Name::R1, Recipe::Q4KM);
        assert_eq!(r1, BTreeMap::from([("Q4_K", 606 - 61 + 31), ("Q6_K", 58 + 30), ("Q8_0", 61)]));
        // Published: Q5_0 14, Q8_0 13, Q4_K 229, Q6_K 13.
        let lite = counts(Name::V2Lite, Recipe::Q4KM);
        assert_eq!(lite["Q5_0"], 14);
        assert_eq!(lite["Q8_0"], 13 + 27, "attn_k_b besides");
    }

    #[test]
    fn experts_get_the_few_bits() {
        let q2 = counts(Name::R1, Recipe::UdQ2KXl);
        assert_eq!((q2["Q2_K"], q2["Q3_K"]), (116, 58));
        let iq1 = counts(Name::KimiK2, Recipe::UdIq1S);
        assert_eq!((iq1["IQ1_S"], iq1["IQ2_XXS"]), (120, 60));
        assert_eq!(counts(Name::R1, Recipe::Q8_0), BTreeMap::from([("Q8_0", 725)]));
        counts(Name::V2Lite, Recipe::UdIq1S);
        counts(Name::V2Lite, Recipe::UdQ2KXl);
    }
}
