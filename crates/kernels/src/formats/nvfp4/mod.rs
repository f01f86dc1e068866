//! NVFP4: 64 weights in 36 bytes, 4.5 bits a weight.
//!
//! ```text
//! byte    0              4                             36
//!         | scales, 4 B  | codes, 32 B: 4 runs of 8 B  |
//! ```
//! Four groups of 16 weights: `weight = UE4M3(scale)·E2M1(code)`. A scale is an unsigned float of 4
//! exponent bits (bias 7) and 3 mantissa bits, so at most 448; files that need a wider range have
//! one more factor for the whole tensor beside it. Codes are those of MXFP4.
//! Byte `i` of run `g` holds weight `i` of the group in its low nibble and weight `i + 8` in its
//! high nibble.

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod quantize;
pub(crate) mod scalar;

const LEN: usize = 64;
pub(crate) const BYTES: usize = 36;

/// Half the value of a UE4M3, as codes are doubled; the code for NaN counts as zero.
///
/// Exponent and mantissa, subnormal or not, go where an f32 has them; the factor is the difference
/// of the biases, 127 - 7, and the half.
pub(crate) fn half_scale(scale: u8) -> f32 {
    const BIAS: f32 = f32::from_bits((127 + 119) << 23);
    if scale == 0x7f { 0.0 } else { f32::from_bits(u32::from(scale & 0x7f) << 20) * BIAS }
}

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    avx2: Some(crate::isa::avx2::kernels::<avx2::Nvfp4>()),
    avx512: Some(crate::isa::avx512::kernels::<avx512::Nvfp4>()),
    ..Spec::new(Layout {
        format: Format::NVFP4,
        name: "NVFP4",
        id: 40,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
