//! Q4_K: 256 weights in 144 bytes, 4.5 bits a weight.
//!
//! ```text
//! byte    0        2        4                 16                                  144
//!         | d: f16 | m: f16 | scales, 12 B    | codes, 128 B: 4 runs of 32 bytes   |
//! ```
//! Eight groups of 32 weights. Group `g` has a 6-bit scale `s[g]` and a 6-bit minimum `n[g]`:
//! `weight = d·s[g]·code - m·n[g]`, code 0..15.
//! Run `r` holds group `2r` in its low nibbles and group `2r + 1` in its high nibbles.
//!
//! The twelve bytes of scales:
//! ```text
//! byte j      (0..4)   s[j] in bits 0-5,  high 2 bits of s[j+4] in bits 6-7
//! byte 4 + j  (0..4)   n[j] in bits 0-5,  high 2 bits of n[j+4] in bits 6-7
//! byte 8 + j  (0..4)   low 4 bits of s[j+4] in bits 0-3, low 4 bits of n[j+4] in bits 4-7
//! ```

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod quantize;
pub(crate) mod scalar;

const LEN: usize = 256;
pub(crate) const BYTES: usize = 144;

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    avx2: Some(crate::isa::avx2::kernels::<avx2::Q4K>()),
    avx512: Some(crate::isa::avx512::kernels::<avx512::Q4K>()),
    ..Spec::new(Layout {
        format: Format::Q4_K,
        name: "Q4_K",
        id: 12,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
