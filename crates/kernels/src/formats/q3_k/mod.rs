//! Q3_K: 256 weights in 110 bytes, 3.4375 bits a weight.
//!
//! ```text
//! byte    0              32                                96               108      110
//!         | high, 32 B   | low codes, 64 B: 2 runs of 32 B | scales, 12 B   | d: f16 |
//! ```
//! Sixteen groups of 16 weights with a 6-bit scale `s` each: `weight = d·(s - 32)·(code - 4)`,
//! code 0..7.
//! Byte `i` of run `r` holds bits 0-1 of the weights `128r + i`, `+32`, `+64`, `+96` in its bits
//! 0-1, 2-3, 4-5, 6-7. Bit `k` of byte `i` of `high` is bit 2 of weight `32k + i`.
//!
//! The twelve bytes of scales:
//! ```text
//! byte j      (0..8)   low 4 bits of s[j] in bits 0-3, low 4 bits of s[j+8] in bits 4-7
//! byte 8 + j  (0..4)   high 2 bits of s[j], s[j+4], s[j+8], s[j+12] in bits 0-1, 2-3, 4-5, 6-7
//! ```

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod quantize;
pub(crate) mod scalar;

const LEN: usize = 256;
pub(crate) const BYTES: usize = 110;

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    avx2: Some(crate::isa::avx2::kernels::<avx2::Q3K>()),
    avx512: Some(crate::isa::avx512::kernels::<avx512::Q3K>()),
    ..Spec::new(Layout {
        format: Format::Q3_K,
        name: "Q3_K",
        id: 11,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
