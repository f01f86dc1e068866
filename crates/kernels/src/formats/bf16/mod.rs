//! BF16: the upper half of an IEEE single, little-endian: 1 sign, 8 exponent and 7 mantissa bits.

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod quantize;
pub(crate) mod scalar;

const LEN: usize = 1;
pub(crate) const BYTES: usize = 2;

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    floats256: Some(crate::isa::avx2::float_gemv::<avx2::Bf16>),
    floats512: Some(crate::isa::avx512::float_gemv::<avx512::Bf16>),
    ..Spec::new(Layout {
        format: Format::BF16,
        name: "BF16",
        id: 30,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
