//! Q5_1: 32 weights in 24 bytes, 6 bits a weight.
//!
//! ```text
//! byte    0        2        4              8                   24
//!         | d: f16 | m: f16 | high: u32    | low codes, 16 B   |
//! ```
//! `weight = d·code + m`, code 0..31.
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
pub(crate) const BYTES: usize = 24;

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    avx2: Some(crate::isa::avx2::kernels::<avx2::Q51>()),
    avx512: Some(crate::isa::avx512::kernels::<avx512::Q51>()),
    ..Spec::new(Layout {
        format: Format::Q5_1,
        name: "Q5_1",
        id: 7,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
