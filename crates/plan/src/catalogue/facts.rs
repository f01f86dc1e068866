//! From the size of a file and the shape of its model to the facts that planning needs.
//!
//! Which bytes are routed experts follows from the shape and from the mean bits per weight of
//! everything else, which the recipe of each quantization gives.

use cachalot_gguf::TensorType;

use crate::demand::Demand;
use crate::model::{Encoded, ModelFacts, UnpackCost};
use crate::shape::{Layout, Shape};

/// A model of this shape in a file of `size` bytes, with `dense_bits` per weight of everything but
/// the routed experts.
pub fn of_shape(shape: &Shape, name: &str, quant: &str, size: u64, dense_bits: f64) -> ModelFacts {
    let metadata = shape.metadata(Layout::Absorbed);
    // Any type whose blocks fit all rows will do: only the numbers of weights are used.
    let tensors = shape.tensors(Layout::Absorbed, |_| TensorType::F16).unwrap_or_default();
    let demand = Demand::of(&metadata, &tensors);
    let weights = ModelFacts::of(&metadata, &demand, name)
        .expect("a shape says how many layers there are, and what they cache");
    let dense = ((weights.dense as f64 / 2.0 * dense_bits / 8.0) as u64).min(size);
    let share = |bytes: u64, of: u64, all: u64| {
        (u128::from(bytes) * u128::from(of) / u128::from(all.max(1))) as u64
    };
    let dense_per_token = share(dense, weights.dense_per_token, weights.dense);
    let routed_per_token = share(size - dense, weights.experts_used, weights.experts);
    let format = |name: Option<&str>, per_token| {
        name.map(|name| Encoded { format: name.to_owned(), per_token }).into_iter().collect()
    };
    let routed_bits = (size - dense) as f64 * 8.0 / weights.routed.max(1) as f64 * 2.0;
    ModelFacts {
        size,
        dense,
        dense_per_token,
        routed: size - dense,
        routed_per_token,
        routed_formats: format(main_format(quant, routed_bits), routed_per_token),
        dense_formats: format(main_format("", dense_bits), dense_per_token),
        decoding: UnpackCost::of(quant),
        ..weights
    }
}

/// The format of most weights of a quantization: the one in its name, or else the one nearest in
/// bits.
fn main_format(quant: &str, bits: f64) -> Option<&'static str> {
    let named =
        ["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS", "IQ4_NL"];
    let by_bits =
        [("Q2_K", 3.0), ("Q3_K", 4.0), ("Q4_K", 5.3), ("Q5_K", 5.9), ("Q6_K", 7.5), ("Q8_0", 9.0)];
    let is_foreign = quant.contains("_R4") || quant.contains("_K") && quant.starts_with("IQ");
    let name = named.into_iter().find(|name| quant.ends_with(name));
    let by_bits = || by_bits.iter().find(|(_, most)| bits < *most).map(|(name, _)| *name);
    (!is_foreign).then(|| name.or_else(by_bits))?
}
