//! IQ2_XXS: 256 weights in 66 bytes, 2.0625 bits a weight.
//!
//! ```text
//! byte    0        2                                                    66
//!         | d: f16 | 8 groups of 8 B: 4 indices, u32 of signs and scale |
//! ```
//! Eight groups of 32 weights, each four vectors of 8 magnitudes from a grid of 256
//! ([`tables::GRID`]), one byte of index each: `weight = ±d·(s + 1/2)/4·v`, v 8, 25 or 43.
//! The u32 holds four times seven signs in bits 0-27 (the eighth makes the number of negative
//! weights even) and the 4-bit `s` in bits 28-31.

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod quantize;
pub(crate) mod scalar;
pub(crate) mod tables;

const LEN: usize = 256;
pub(crate) const BYTES: usize = 66;

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    avx2: Some(crate::isa::avx2::kernels::<avx2::Iq2Xxs>()),
    avx512: Some(crate::isa::avx512::kernels::<avx512::Iq2Xxs>()),
    ..Spec::new(Layout {
        format: Format::IQ2_XXS,
        name: "IQ2_XXS",
        id: 16,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
