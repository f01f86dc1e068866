//! Q3_K on AVX2: Q2_K with one more bit, the same bit of all groups of a half in a row.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_and_si128, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8, _mm_setr_epi32,
    _mm_slli_epi16, _mm_sub_epi8, _mm256_loadu_si256, _mm256_setzero_si256,
};

use super::BYTES;
use crate::isa::avx2::shuffle256::{
    by_16, f16, fields, join, merge, pair_codes, pairs, signed, times,
};
use crate::isa::avx2::{Codes256, Unpacked256};

/// Q3_K's codes.
pub(super) struct Q3K;

// SAFETY: reads 110 bytes; codes have 3 bits.
unsafe impl Codes256 for Q3K {
    const BYTES: usize = BYTES;
    const LARGEST: u8 = 7;
    const GROUP: usize = 16;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(at: *const u8) -> Unpacked256 {
        // SAFETY: inside the block's 110 bytes.
        let (high, [a, b], scales, d) = unsafe {
            let high = _mm256_loadu_si256(at.cast::<__m256i>());
            (high, pair_codes(at.add(32)), scales(at.add(96)), f16(at.add(108)))
        };
        let high = pairs(high, high);
        let codes = join(
            merge::<2>(a, fields(high, [0, 1, 2, 3], 1)),
            merge::<2>(b, fields(high, [4, 5, 6, 7], 1)),
        );
        let scales = times(signed(scales), d);
        Unpacked256 {
            codes,
            signs: [_mm256_setzero_si256(); 8],
            scale: by_16(scales),
            min: times(scales, -4.0),
        }
    }
}

/// `s - 32` of the sixteen groups, as bytes.
///
/// # Safety
/// 12 bytes at `at` are readable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn scales(at: *const u8) -> __m128i {
    // SAFETY: by contract.
    let (low, high) =
        unsafe { (at.cast::<i64>().read_unaligned(), at.add(8).cast::<i32>().read_unaligned()) };
    let low = _mm_set_epi64x(low >> 4, low);
    let [a, b, c, d] = [high, high >> 2, high >> 4, high >> 6];
    let low = _mm_and_si128(low, _mm_set1_epi8(15));
    let high = _mm_and_si128(_mm_setr_epi32(a, b, c, d), _mm_set1_epi8(3));
    let both = _mm_or_si128(low, _mm_slli_epi16::<4>(high));
    _mm_sub_epi8(both, _mm_set1_epi8(32))
}
