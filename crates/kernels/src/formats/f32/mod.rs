//! F32: IEEE single precision, little-endian, not quantized. Norms and the router are written so.

use crate::format::{Format, Spec};

mod quantize;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod scalar;

const LEN: usize = 1;
pub(crate) const BYTES: usize = 4;

pub(crate) static SPEC: Spec = Spec {
    format: Format::F32,
    name: "F32",
    id: 0,
    block_len: LEN,
    block_bytes: BYTES,
    decode: scalar::decode,
    encode: Some(quantize::encode),
    floats512: Some(crate::isa::avx512::float_gemv::<avx512::F32>),
    ..Spec::BASE
};
