//! Q6_K: 256 weights in 210 bytes, 6.5625 bits a weight.
//!
//! ```text
//! byte    0                  128                192                     208      210
//!         | low codes, 128 B | high codes, 64 B | scales, 16 signed B   | d: f16 |
//! ```
//! Sixteen groups of 16 weights with a signed scale `s` each: `weight = d·s·(code - 32)`, code
//! 0..63.
//! Each half of 128 weights has 64 bytes of low codes and 32 of high codes. In half `h`, weight
//! `32k + i` (k 0..4, i 0..32) has bits 0-3 in byte `64h + 32·(k mod 2) + i` of the low codes, low
//! nibbles for k < 2 and high nibbles else, and bits 4-5 in bits `2k`, `2k + 1` of byte `32h + i`
//! of the high codes.

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod quantize;
pub(crate) mod scalar;

const LEN: usize = 256;
pub(crate) const BYTES: usize = 210;

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    avx2: Some(crate::isa::avx2::kernels::<avx2::Q6K>()),
    avx512: Some(crate::isa::avx512::kernels::<avx512::Q6K>()),
    ..Spec::new(Layout {
        format: Format::Q6_K,
        name: "Q6_K",
        id: 14,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
