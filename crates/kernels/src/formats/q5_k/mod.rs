//! Q5_K: 256 weights in 176 bytes, 5.5 bits a weight.
//!
//! ```text
//! byte    0        2        4              16           48                               176
//!         | d: f16 | m: f16 | scales, 12 B | high, 32 B | low codes, 128 B: 4 runs of 32 |
//! ```
//! Eight groups of 32 weights with 6-bit scales and minimums packed as in Q4_K:
//! `weight = d·s[g]·code - m·n[g]`, code 0..31.
//! Run `r` holds bits 0-3 of group `2r` in its low nibbles and of group `2r + 1` in its high
//! nibbles.
//! Bit `g` of byte `i` of `high` is bit 4 of weight `i` of group `g`.

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod quantize;
pub(crate) mod scalar;

const LEN: usize = 256;
pub(crate) const BYTES: usize = 176;

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    avx2: Some(crate::isa::avx2::kernels::<avx2::Q5K>()),
    avx512: Some(crate::isa::avx512::kernels::<avx512::Q5K>()),
    ..Spec::new(Layout {
        format: Format::Q5_K,
        name: "Q5_K",
        id: 13,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
