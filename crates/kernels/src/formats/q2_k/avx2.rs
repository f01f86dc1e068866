//! Q2_K on AVX2: a half is a run of 32 bytes, its groups the bit pairs.

use std::arch::x86_64::{
    __m128i, _mm_and_si128, _mm_loadu_si128, _mm_set1_epi8, _mm_srli_epi16, _mm256_setzero_si256,
};

use super::BYTES;
use crate::isa::avx2::shuffle256::{by_16, f16, join, pair_codes, times, unsigned};
use crate::isa::avx2::{Codes256, Unpacked256};

/// Q2_K's codes.
pub(super) struct Q2K;

// SAFETY: reads 84 bytes; codes have 2 bits.
unsafe impl Codes256 for Q2K {
    const BYTES: usize = BYTES;
    const LARGEST: u8 = 3;
    const GROUP: usize = 16;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(at: *const u8) -> Unpacked256 {
        // SAFETY: inside the block's 84 bytes.
        let (scales, [a, b], d, m) = unsafe {
            let scales = _mm_loadu_si128(at.cast::<__m128i>());
            (scales, pair_codes(at.add(16)), f16(at.add(80)), f16(at.add(82)))
        };
        let nibble = _mm_set1_epi8(15);
        let minima = _mm_and_si128(_mm_srli_epi16::<4>(scales), nibble);
        Unpacked256 {
            codes: join(a, b),
            signs: [_mm256_setzero_si256(); 8],
            scale: by_16(times(unsigned(_mm_and_si128(scales, nibble)), d)),
            min: times(unsigned(minima), -m),
        }
    }
}
