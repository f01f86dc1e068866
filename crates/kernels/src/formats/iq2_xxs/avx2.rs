//! IQ2_XXS on AVX2: magnitudes from the grid, signs apart.

use std::arch::x86_64::{
    _mm256_add_ps, _mm256_cvtepi32_ps, _mm256_mul_ps, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_srli_epi32,
};

use super::BYTES;
use super::tables::GRID;
use crate::isa::avx2::shuffle256::{by_32, eight_words, even, f16, sevens, signs, vectors};
use crate::isa::avx2::{Codes256, Unpacked256};

/// IQ2_XXS's codes.
pub(super) struct Iq2Xxs;

// SAFETY: reads 66 bytes; magnitudes are at most 43.
unsafe impl Codes256 for Iq2Xxs {
    const BYTES: usize = BYTES;
    const LARGEST: u8 = 43;
    const GROUP: usize = 32;
    const SIGNED: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(at: *const u8) -> Unpacked256 {
        // SAFETY: d and 8 groups of 8 bytes.
        let (d, words) = unsafe { (f16(at), eight_words(at.add(6), 8)) };
        // SAFETY: four indices start each group.
        let index = |i: usize| unsafe { *at.add(2 + i / 4 * 8 + i % 4) };
        let scale = _mm256_cvtepi32_ps(_mm256_srli_epi32::<28>(words));
        let scale = _mm256_add_ps(scale, _mm256_set1_ps(0.5));
        Unpacked256 {
            codes: vectors(|i| GRID[usize::from(index(i))]),
            signs: signs(even(sevens(words))),
            scale: by_32(_mm256_mul_ps(scale, _mm256_set1_ps(d * 0.25))),
            min: [_mm256_setzero_ps(); 2],
        }
    }
}
