//! Q6_K on AVX2.
//!
//! A half of the registers is a half of the format: its four groups are in the nibbles of two runs
//! of 32 low codes and in the four bit pairs of one run of high codes.

use std::arch::x86_64::{__m256i, _mm_loadu_si128, _mm256_loadu_si256, _mm256_setzero_si256};

use super::BYTES;
use crate::isa::avx2::shuffle256::{by_16, f16, fields, join, merge, pairs, signed, times, turns};
use crate::isa::avx2::{Codes256, Unpacked256};

/// Q6_K's codes.
pub(super) struct Q6K;

// SAFETY: reads 210 bytes; codes have 6 bits.
unsafe impl Codes256 for Q6K {
    const BYTES: usize = BYTES;
    const LARGEST: u8 = 63;
    const GROUP: usize = 16;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(at: *const u8) -> Unpacked256 {
        // SAFETY: inside the block's 192 bytes of codes.
        let run = |byte: usize| unsafe { _mm256_loadu_si256(at.add(byte).cast::<__m256i>()) };
        let half = |h: usize| {
            let low = turns(run(64 * h), run(64 * h + 32));
            let high = run(128 + 32 * h);
            let high = fields(pairs(high, high), [0, 2, 4, 6], 3);
            merge::<4>(fields(low, [0, 0, 4, 4], 15), high)
        };
        let codes = join(half(0), half(1));
        // SAFETY: 16 scales and d end the block.
        let (scales, d) =
            unsafe { (signed(_mm_loadu_si128(at.add(192).cast())), f16(at.add(208))) };
        let scales = times(scales, d);
        Unpacked256 {
            codes,
            signs: [_mm256_setzero_si256(); 8],
            scale: by_16(scales),
            min: times(scales, -32.0),
        }
    }
}
