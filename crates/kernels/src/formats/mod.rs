//! One folder per format: `mod.rs` draws the layout, `scalar.rs` is the specification, `avx2.rs`
//! and `avx512.rs` say how 256 weights come out of their bytes, `quantize.rs` how they go in.

pub(crate) mod bf16;
pub(crate) mod f16;
pub(crate) mod f32;
pub(crate) mod iq1_m;
pub(crate) mod iq1_s;
pub(crate) mod iq2_s;
pub(crate) mod iq2_xs;
pub(crate) mod iq2_xxs;
pub(crate) mod iq3_s;
pub(crate) mod iq3_xxs;
pub(crate) mod iq4_nl;
pub(crate) mod iq4_xs;
pub(crate) mod mxfp4;
pub(crate) mod nvfp4;
pub(crate) mod q2_k;
pub(crate) mod q3_k;
pub(crate) mod q4_0;
pub(crate) mod q4_1;
pub(crate) mod q4_k;
pub(crate) mod q5_0;
pub(crate) mod q5_1;
pub(crate) mod q5_k;
pub(crate) mod q6_k;
pub(crate) mod q8_0;
pub(crate) mod tq1_0;
pub(crate) mod tq2_0;

mod affine;
mod bytes;
pub(crate) mod grid;
mod grid_search;
mod search;
pub(crate) mod spec;
#[cfg(test)]
mod tests;

// They live in a module of their own because here `f32` and `f16` are the formats.
pub(crate) use bytes::{f16_at, u16_at, u32_at};
