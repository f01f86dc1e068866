//! IQ3_XXS on AVX2: magnitudes from the grid, signs apart.

use std::arch::x86_64::{
    __m256i, _mm256_add_ps, _mm256_cvtepi32_ps, _mm256_loadu_si256, _mm256_mul_ps, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_srli_epi32,
};

use super::BYTES;
use super::tables::GRID;
use crate::isa::avx2::shuffle256::{by_32, even, f16, sevens, short_vectors, signs};
use crate::isa::avx2::{Codes256, Unpacked256};

/// IQ3_XXS's codes.
pub(super) struct Iq3Xxs;

// SAFETY: reads 98 bytes; magnitudes are at most 62.
unsafe impl Codes256 for Iq3Xxs {
    const BYTES: usize = BYTES;
    const LARGEST: u8 = 62;
    const GROUP: usize = 32;
    const SIGNED: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(at: *const u8) -> Unpacked256 {
        // SAFETY: inside the block's 98 bytes.
        let (d, words) = unsafe { (f16(at), _mm256_loadu_si256(at.add(66).cast::<__m256i>())) };
        // SAFETY: 64 indices.
        let vector = |i: usize| GRID[usize::from(unsafe { *at.add(2 + i) })];
        let scale = _mm256_cvtepi32_ps(_mm256_srli_epi32::<28>(words));
        let scale = _mm256_add_ps(scale, _mm256_set1_ps(0.5));
        Unpacked256 {
            codes: short_vectors(vector),
            signs: signs(even(sevens(words))),
            scale: by_32(_mm256_mul_ps(scale, _mm256_set1_ps(d * 0.5))),
            min: [_mm256_setzero_ps(); 2],
        }
    }
}
