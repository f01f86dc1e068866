//! IQ2_XS: 256 weights in 74 bytes, 2.3125 bits a weight.
//!
//! ```text
//! byte    0        2                 66             74
//!         | d: f16 | vectors, 32 u16 | scales, 8 B  |
//! ```
//! Thirty-two vectors of 8 magnitudes from a grid of 512 ([`tables::GRID`]), two to a scale:
//! `weight = ±d·(s + 1/2)/4·v`, v 8, 25 or 43.
//! A u16 holds the index of its vector in bits 0-8 and seven signs in bits 9-15 (the eighth makes
//! the number of negative weights even). Byte `j` of the scales holds `s` of the vectors `4j`,
//! `4j + 1` in its low nibble and of `4j + 2`, `4j + 3` in its high nibble.

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod quantize;
pub(crate) mod scalar;
pub(crate) mod tables;

const LEN: usize = 256;
pub(crate) const BYTES: usize = 74;

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    avx2: Some(crate::isa::avx2::kernels::<avx2::Iq2Xs>()),
    avx512: Some(crate::isa::avx512::kernels::<avx512::Iq2Xs>()),
    ..Spec::new(Layout {
        format: Format::IQ2_XS,
        name: "IQ2_XS",
        id: 17,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
