//! Q4_0: 32 weights in 18 bytes, 4.5 bits a weight.
//!
//! ```text
//! byte    0        2                 18
//!         | d: f16 | codes, 16 B     |
//! ```
//! `weight = d·(code - 8)`, code 0..15.
//! Byte `i` of the codes holds weight `i` in its low nibble and weight `i + 16` in its high nibble.

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod quantize;
pub(crate) mod scalar;

const LEN: usize = 32;
pub(crate) const BYTES: usize = 18;

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    avx2: Some(crate::isa::avx2::kernels::<avx2::Q40>()),
    avx512: Some(crate::isa::avx512::kernels::<avx512::Q40>()),
    ..Spec::new(Layout {
        format: Format::Q4_0,
        name: "Q4_0",
        id: 2,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
