//! TQ2_0: 256 weights in 66 bytes, 2.0625 bits a weight.
//!
//! ```text
//! byte    0                              64       66
//!         | codes, 64 B: 2 runs of 32 B  | d: f16 |
//! ```
//! `weight = d·(code - 1)`, code 0..3; ternary models use 0..2.
//! Byte `i` of run `r` holds the weights `128r + i`, `+32`, `+64`, `+96` in bits 0-1, 2-3, 4-5,
//! 6-7.

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod quantize;
pub(crate) mod scalar;

const LEN: usize = 256;
pub(crate) const BYTES: usize = 66;

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    avx2: Some(crate::isa::avx2::kernels::<avx2::Tq20>()),
    avx512: Some(crate::isa::avx512::kernels::<avx512::Tq20>()),
    ..Spec::new(Layout {
        format: Format::TQ2_0,
        name: "TQ2_0",
        id: 35,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
