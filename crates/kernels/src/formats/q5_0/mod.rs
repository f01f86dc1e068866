//! Q5_0: 32 weights in 22 bytes, 5.5 bits a weight.
//!
//! ```text
//! byte    0        2              6                   22
//!         | d: f16 | high: u32    | low codes, 16 B   |
//! ```
//! `weight = d·(code - 16)`, code 0..31.
//! Byte `i` of the low codes holds bits 0-3 of weight `i` in its low nibble and those of weight
//! `i + 16` in its high nibble; bit `i` of `high` is bit 4 of weight `i`.

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod quantize;
pub(crate) mod scalar;

const LEN: usize = 32;
pub(crate) const BYTES: usize = 22;

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    avx2: Some(crate::isa::avx2::kernels::<avx2::Q50>()),
    avx512: Some(crate::isa::avx512::kernels::<avx512::Q50>()),
    ..Spec::new(Layout {
        format: Format::Q5_0,
        name: "Q5_0",
        id: 6,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
