//! IQ4_NL: 32 weights in 18 bytes, 4.5 bits a weight.
//!
//! ```text
//! byte    0        2                 18
//!         | d: f16 | codes, 16 B     |
//! ```
//! `weight = d·LEVELS[code]`, code 0..15: the levels are closer together near zero, as weights are.
//! Byte `i` of the codes holds weight `i` in its low nibble and weight `i + 16` in its high nibble.

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod quantize;
pub(crate) mod scalar;

const LEN: usize = 32;
pub(crate) const BYTES: usize = 18;

/// What the sixteen codes stand for, here and in IQ4_XS; fixed by the format.
pub(crate) const LEVELS: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    avx2: Some(crate::isa::avx2::kernels::<avx2::Iq4Nl>()),
    avx512: Some(crate::isa::avx512::kernels::<avx512::Iq4Nl>()),
    ..Spec::new(Layout {
        format: Format::IQ4_NL,
        name: "IQ4_NL",
        id: 20,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
