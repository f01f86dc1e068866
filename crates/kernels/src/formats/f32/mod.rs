//! F32: IEEE single precision, little-endian, not quantized. Norms and the router are written so.

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod quantize;
pub(crate) mod scalar;

const LEN: usize = 1;
pub(crate) const BYTES: usize = 4;

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    floats256: Some(crate::isa::avx2::float_gemv::<avx2::F32>),
    floats512: Some(crate::isa::avx512::float_gemv::<avx512::F32>),
    ..Spec::new(Layout {
        format: Format::F32,
        name: "F32",
        id: 0,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
