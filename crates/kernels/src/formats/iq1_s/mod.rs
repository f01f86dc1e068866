//! IQ1_S: 256 weights in 50 bytes, 1.5625 bits a weight.
//!
//! ```text
//! byte    0        2                34                    50
//!         | d: f16 | indices, 32 B  | heads, 8 u16        |
//! ```
//! Eight groups of 32 weights, each four vectors of 8 from a grid of 2048 ([`tables::GRID`]).
//! `weight = d·(2s + 1)·(v ± 1/8)`, v -1, 0 or 1.
//! Byte `i` of the indices is bits 0-7 of the index of vector `i`. The head of a group:
//! ```text
//! bits 0-2, 3-5, 6-8, 9-11   bits 8-10 of the indices of its four vectors
//! bits 12-14                 s
//! bit 15                     set: -1/8, clear: +1/8
//! ```

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
mod quantize;
pub(crate) mod scalar;
pub(crate) mod tables;

const LEN: usize = 256;
pub(crate) const BYTES: usize = 50;

/// What is added to or taken from all weights of a vector, before its scale.
pub(crate) const SHIFT: f32 = 0.125;

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    avx2: Some(crate::isa::avx2::kernels::<avx2::Iq1S>()),
    avx512: Some(crate::isa::avx512::kernels::<avx512::Iq1S>()),
    ..Spec::new(Layout {
        format: Format::IQ1_S,
        name: "IQ1_S",
        id: 19,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
