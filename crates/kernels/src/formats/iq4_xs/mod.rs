//! IQ4_XS: 256 weights in 136 bytes, 4.25 bits a weight.
//!
//! ```text
//! byte    0        2           4               8                           136
//!         | d: f16 | high: u16 | low, 4 B      | codes, 128 B: 8 runs of 16 |
//! ```
//! Eight groups of 32 weights with a 6-bit scale `s` each and the levels of IQ4_NL:
//! `weight = d·(s - 32)·LEVELS[code]`, code 0..15.
//! Byte `j` of `low` holds bits 0-3 of `s[2j]` in its low nibble and of `s[2j + 1]` in its high
//! nibble; bits `2g`, `2g + 1` of `high` are bits 4-5 of `s[g]`.
//! Byte `i` of run `g` holds weight `i` of the group in its low nibble and weight `i + 16` in its
//! high nibble.

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod quantize;
pub(crate) mod scalar;

const LEN: usize = 256;
pub(crate) const BYTES: usize = 136;

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    avx2: Some(crate::isa::avx2::kernels::<avx2::Iq4Xs>()),
    avx512: Some(crate::isa::avx512::kernels::<avx512::Iq4Xs>()),
    ..Spec::new(Layout {
        format: Format::IQ4_XS,
        name: "IQ4_XS",
        id: 23,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
