//! F16: IEEE half precision, little-endian: 1 sign, 5 exponent and 10 mantissa bits.
//!
//! Its largest number is 65504: activations of R1 exceed it, weights do not.

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod quantize;
pub(crate) mod scalar;

const LEN: usize = 1;
pub(crate) const BYTES: usize = 2;
/// Numbers that are converted at a time, with the processor's own instructions where it has them.
const RUN: usize = 64;

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    floats256: Some(crate::isa::avx2::float_gemv::<avx2::F16>),
    floats512: Some(crate::isa::avx512::float_gemv::<avx512::F16>),
    ..Spec::new(Layout {
        format: Format::F16,
        name: "F16",
        id: 1,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
