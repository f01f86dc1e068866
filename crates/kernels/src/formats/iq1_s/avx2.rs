//! IQ1_S on AVX2: the grid biased by one, what is left in the minima.

use std::arch::x86_64::{
    __m128i, _mm_loadu_si128, _mm256_add_ps, _mm256_and_si256, _mm256_castsi256_ps,
    _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_fmadd_ps, _mm256_mul_ps, _mm256_or_ps,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256, _mm256_slli_epi32, _mm256_srli_epi32,
    _mm256_sub_ps,
};

use super::tables::GRID;
use super::{BYTES, SHIFT};
use crate::isa::avx2::shuffle256::{bias, by_32, f16, twice, vectors};
use crate::isa::avx2::{Codes256, Unpacked256};

/// IQ1_S's codes.
pub(super) struct Iq1S;

// SAFETY: reads 50 bytes; biased, the grid ends at 2.
unsafe impl Codes256 for Iq1S {
    const BYTES: usize = BYTES;
    const LARGEST: u8 = 2;
    const GROUP: usize = 32;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(at: *const u8) -> Unpacked256 {
        // SAFETY: inside the block's 50 bytes.
        let (d, heads) = unsafe { (f16(at), _mm_loadu_si128(at.add(34).cast::<__m128i>())) };
        let vector = |i: usize| {
            // SAFETY: 32 indices, 8 heads.
            let (low, head) =
                unsafe { (*at.add(2 + i), at.add(34 + i / 4 * 2).cast::<u16>().read_unaligned()) };
            GRID[usize::from(low) | usize::from(head >> (i % 4 * 3) & 7) << 8]
        };
        // d·(2s + 1), and the bit of the shift as the sign of 1/8.
        let heads = _mm256_cvtepu16_epi32(heads);
        let s = _mm256_and_si256(_mm256_srli_epi32::<12>(heads), _mm256_set1_epi32(7));
        let d = _mm256_set1_ps(d);
        let scale = _mm256_fmadd_ps(_mm256_cvtepi32_ps(s), _mm256_add_ps(d, d), d);
        let sign = _mm256_slli_epi32::<31>(_mm256_srli_epi32::<15>(heads));
        let shift = _mm256_or_ps(_mm256_castsi256_ps(sign), _mm256_set1_ps(SHIFT));
        let min = _mm256_mul_ps(scale, _mm256_sub_ps(shift, _mm256_set1_ps(1.0)));
        Unpacked256 {
            codes: bias(vectors(vector)),
            signs: [_mm256_setzero_si256(); 8],
            scale: by_32(scale),
            min: twice(min),
        }
    }
}
