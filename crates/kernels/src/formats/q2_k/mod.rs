//! Q2_K: 256 weights in 84 bytes, 2.625 bits a weight.
//!
//! ```text
//! byte    0                16                            80       82       84
//!         | scales, 16 B   | codes, 64 B: 2 runs of 32 B | d: f16 | m: f16 |
//! ```
//! Sixteen groups of 16 weights. Byte `g` of the scales holds the group's 4-bit scale `s` in its
//! low nibble and its 4-bit minimum `n` in its high nibble: `weight = d·s·code - m·n`, code 0..3.
//! Byte `i` of run `r` holds the weights `128r + i`, `+32`, `+64`, `+96` in bits 0-1, 2-3, 4-5,
//! 6-7.

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
mod quantize;
pub(crate) mod scalar;

const LEN: usize = 256;
pub(crate) const BYTES: usize = 84;

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    avx2: Some(crate::isa::avx2::kernels::<avx2::Q2K>()),
    avx512: Some(crate::isa::avx512::kernels::<avx512::Q2K>()),
    ..Spec::new(Layout {
        format: Format::Q2_K,
        name: "Q2_K",
        id: 10,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
