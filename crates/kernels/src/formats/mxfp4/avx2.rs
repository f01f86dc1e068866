//! MXFP4 on AVX2: codes looked up, doubled and with an offset that makes them positive.

use std::arch::x86_64::{_mm256_loadu_ps, _mm256_mul_ps, _mm256_set1_ps, _mm256_setzero_si256};

use super::{BYTES, DOUBLED, half_scale};
use crate::isa::avx2::shuffle256::{by_32, levels, nibbles, twice};
use crate::isa::avx2::{Codes256, Unpacked256};

/// MXFP4's codes.
pub(super) struct Mxfp4;

// SAFETY: reads 8 blocks of 17 bytes; [`BIASED`] ends at 24.
unsafe impl Codes256 for Mxfp4 {
    const BYTES: usize = 8 * BYTES;
    const LARGEST: u8 = 24;
    const GROUP: usize = 32;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(at: *const u8) -> Unpacked256 {
        let mut scales = [0.0; 8];
        for (i, scale) in scales.iter_mut().enumerate() {
            // SAFETY: a scale starts each of the 8 blocks.
            *scale = half_scale(unsafe { *at.add(i * BYTES) });
        }
        // SAFETY: 8 floats; 16 bytes of codes after each scale.
        let (scale, codes) =
            unsafe { (_mm256_loadu_ps(scales.as_ptr()), nibbles(at.add(1), BYTES)) };
        Unpacked256 {
            codes: levels(codes, &BIASED),
            signs: [_mm256_setzero_si256(); 8],
            scale: by_32(scale),
            min: twice(_mm256_mul_ps(scale, _mm256_set1_ps(-12.0))),
        }
    }
}

/// [`DOUBLED`] and 12; shared with NVFP4.
pub(crate) const BIASED: [i8; 16] = biased();

const fn biased() -> [i8; 16] {
    let mut levels = DOUBLED;
    let mut i = 0;
    while i < 16 {
        levels[i] += 12;
        i += 1;
    }
    levels
}
