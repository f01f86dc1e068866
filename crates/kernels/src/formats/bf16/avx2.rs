//! BF16 on AVX2.

use std::arch::x86_64::{
    __m256, _mm_loadu_si128, _mm256_castsi256_ps, _mm256_cvtepu16_epi32, _mm256_slli_epi32,
};

use super::BYTES;
use crate::isa::avx2::Floats256;

/// BF16's weights.
pub(super) struct Bf16;

// SAFETY: reads 8 weights.
unsafe impl Floats256 for Bf16 {
    const BYTES: usize = BYTES;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn eight(at: *const u8) -> __m256 {
        // SAFETY: 8 weights are readable by contract.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }
}
