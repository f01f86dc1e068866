//! IQ3_XXS: 256 weights in 98 bytes, 3.0625 bits a weight.
//!
//! ```text
//! byte    0        2                66                         98
//!         | d: f16 | indices, 64 B  | signs and scales, 8 u32  |
//! ```
//! Eight groups of 32 weights, each eight vectors of 4 magnitudes from a grid of 256
//! ([`tables::GRID`]): `weight = ±d·(s + 1/2)/2·v`, v 4, 12, ..., 52 or 62.
//! The u32 of a group holds four times seven signs, each for two vectors, in bits 0-27 (the eighth
//! makes the number of negative weights even) and the 4-bit `s` in bits 28-31.

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod quantize;
pub(crate) mod scalar;
pub(crate) mod tables;

const LEN: usize = 256;
pub(crate) const BYTES: usize = 98;

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    avx2: Some(crate::isa::avx2::kernels::<avx2::Iq3Xxs>()),
    avx512: Some(crate::isa::avx512::kernels::<avx512::Iq3Xxs>()),
    ..Spec::new(Layout {
        format: Format::IQ3_XXS,
        name: "IQ3_XXS",
        id: 18,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
