//! MXFP4: 32 weights in 17 bytes, 4.25 bits a weight.
//!
//! ```text
//! byte    0        1                 17
//!         | e: u8  | codes, 16 B     |
//! ```
//! The format of the OCP Microscaling specification: `weight = 2^(e - 127)·E2M1(code)`, code 0..15
//! with the sign in bit 3 and the magnitudes 0, 0.5, 1, 1.5, 2, 3, 4, 6. [`DOUBLED`] holds them
//! times two, so that they are integers, and [`half_scale`] is half the scale.
//! Byte `i` of the codes holds weight `i` in its low nibble and weight `i + 16` in its high nibble.

use crate::formats::spec::{Format, Layout, Spec};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod quantize;
pub(crate) mod scalar;

const LEN: usize = 32;
pub(crate) const BYTES: usize = 17;

/// Twice what the sixteen codes stand for, here and in NVFP4.
pub(crate) const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// `2^(e - 128)`; subnormal for the two smallest exponents.
pub(crate) const fn half_scale(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (e as u32 - 1) << 23 })
}

pub(crate) static SPEC: Spec = Spec {
    encode: Some(quantize::encode),
    avx2: Some(crate::isa::avx2::kernels::<avx2::Mxfp4>()),
    avx512: Some(crate::isa::avx512::kernels::<avx512::Mxfp4>()),
    ..Spec::new(Layout {
        format: Format::MXFP4,
        name: "MXFP4",
        id: 39,
        block_len: LEN,
        block_bytes: BYTES,
        decode: scalar::decode,
    })
};
