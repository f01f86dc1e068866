//! Q8_0: 32 weights in 34 bytes, 8.5 bits a weight.
//!
//! ```text
//! byte    0        2                          34
//!         | d: f16 | codes, 32 signed bytes   |
//! ```
//! `weight = d·code`.

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod quantize;
pub(crate) mod scalar;

const LEN: usize = 32;
pub(crate) const BYTES: usize = 34;

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    avx2: Some(crate::isa::avx2::kernels::<avx2::Q80>()),
    avx512: Some(crate::isa::avx512::kernels::<avx512::Q80>()),
    ..Spec::new(Layout {
        format: Format::Q8_0,
        name: "Q8_0",
        id: 8,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
