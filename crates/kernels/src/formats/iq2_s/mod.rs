//! IQ2_S: 256 weights in 82 bytes, 2.5625 bits a weight.
//!
//! ```text
//! byte    0        2                34              66          74             82
//!         | d: f16 | indices, 32 B  | signs, 32 B   | high, 8 B | scales, 8 B  |
//! ```
//! Thirty-two vectors of 8 magnitudes from a grid of 1024 ([`tables::GRID`]), two to a scale:
//! `weight = ±d·(s + 1/2)/4·v`, v 8, 25 or 43.
//! Byte `i` of the indices is bits 0-7 of the index of vector `i`, bits `2·(i mod 4)` and the next
//! of byte `i / 4` of `high` are its bits 8-9, and byte `i` of the signs has a bit set for each
//! negative weight. Byte `j` of the scales holds `s` of the vectors `4j`, `4j + 1` in its low
//! nibble and of `4j + 2`, `4j + 3` in its high nibble.

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod quantize;
pub(crate) mod scalar;
pub(crate) mod tables;

const LEN: usize = 256;
pub(crate) const BYTES: usize = 82;

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    avx2: Some(crate::isa::avx2::kernels::<avx2::Iq2S>()),
    avx512: Some(crate::isa::avx512::kernels::<avx512::Iq2S>()),
    ..Spec::new(Layout {
        format: Format::IQ2_S,
        name: "IQ2_S",
        id: 22,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
