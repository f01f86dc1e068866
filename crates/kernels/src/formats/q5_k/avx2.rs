//! Q5_K on AVX2: Q4_K with one more bit, the same bit of all groups of a half in a row.

use std::arch::x86_64::{__m256i, _mm256_loadu_si256, _mm256_setzero_si256};

use super::BYTES;
use crate::formats::q4_k::avx2::{nibbles, scales};
use crate::isa::avx2::shuffle256::{fields, join, merge, pairs};
use crate::isa::avx2::{Codes256, Unpacked256};

/// Q5_K's codes.
pub(super) struct Q5K;

// SAFETY: reads 176 bytes; codes have 5 bits.
unsafe impl Codes256 for Q5K {
    const BYTES: usize = BYTES;
    const LARGEST: u8 = 31;
    const GROUP: usize = 32;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(at: *const u8) -> Unpacked256 {
        // SAFETY: inside the block's 176 bytes.
        let (high, [a, b], (scale, min)) = unsafe {
            let high = _mm256_loadu_si256(at.add(16).cast::<__m256i>());
            (high, nibbles(at.add(48)), scales(at))
        };
        let high = pairs(high, high);
        let codes = join(
            merge::<4>(a, fields(high, [0, 1, 2, 3], 1)),
            merge::<4>(b, fields(high, [4, 5, 6, 7], 1)),
        );
        Unpacked256 { codes, signs: [_mm256_setzero_si256(); 8], scale, min }
    }
}
