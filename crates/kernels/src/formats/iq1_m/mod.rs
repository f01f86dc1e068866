//! IQ1_M: 256 weights in 56 bytes, 1.75 bits a weight.
//!
//! ```text
//! byte    0                32                     48               56
//!         | indices, 32 B  | high nibbles, 16 B   | scales, 4 u16  |
//! ```
//! Thirty-two vectors of 8 from the grid of IQ1_S, two to a scale: `weight = d·(2s + 1)·(v ± 1/8)`,
//! v -1, 0 or 1.
//! Byte `i` of the indices is bits 0-7 of the index of vector `i`. Its high nibble is the low (even
//! `i`) or high (odd `i`) half of byte `i / 2`: bits 8-10 of the index, then a bit that is set for
//! -1/8.
//! Word `j` of the scales holds the 3-bit `s` of the groups `4j .. 4j + 4` in bits 0-2, 3-5, 6-8,
//! 9-11; the four upper nibbles, from word 0 to word 3, are bits 0-3, 4-7, 8-11, 12-15 of `d`, an
//! f16.

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod quantize;
pub(crate) mod scalar;

const LEN: usize = 256;
pub(crate) const BYTES: usize = 56;

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    avx2: Some(crate::isa::avx2::kernels::<avx2::Iq1M>()),
    avx512: Some(crate::isa::avx512::kernels::<avx512::Iq1M>()),
    ..Spec::new(Layout {
        format: Format::IQ1_M,
        name: "IQ1_M",
        id: 29,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
