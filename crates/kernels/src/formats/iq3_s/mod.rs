//! IQ3_S: 256 weights in 110 bytes, 3.4375 bits a weight.
//!
//! ```text
//! byte    0        2                66          74             106            110
//!         | d: f16 | indices, 64 B  | high, 8 B | signs, 32 B  | scales, 4 B  |
//! ```
//! Eight groups of 32 weights, each eight vectors of 4 magnitudes from a grid of 512
//! ([`tables::GRID`]): `weight = ±d·(2s + 1)·v`, v 1, 3, ..., 15.
//! Byte `i` of the indices is bits 0-7 of the index of vector `i` and bit `i mod 8` of byte `i / 8`
//! of `high` its bit 8. Byte `i` of the signs has a bit set for each negative one of the weights
//! `8i .. 8i + 8`. Byte `j` of the scales holds the 4-bit `s` of group `2j` in its low nibble and
//! of group `2j + 1` in its high nibble.

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod quantize;
pub(crate) mod scalar;
pub(crate) mod tables;

const LEN: usize = 256;
pub(crate) const BYTES: usize = 110;

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    avx2: Some(crate::isa::avx2::kernels::<avx2::Iq3S>()),
    avx512: Some(crate::isa::avx512::kernels::<avx512::Iq3S>()),
    ..Spec::new(Layout {
        format: Format::IQ3_S,
        name: "IQ3_S",
        id: 21,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
