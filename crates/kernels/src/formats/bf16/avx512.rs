//! BF16 on AVX-512.

use std::arch::x86_64::{
    __m512, _mm256_loadu_si256, _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_slli_epi32,
};

use super::BYTES;
use crate::isa::avx512::Floats512;

/// BF16's weights.
pub(super) struct Bf16;

// SAFETY: reads 16 weights.
unsafe impl Floats512 for Bf16 {
    const BYTES: usize = BYTES;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn sixteen(at: *const u8) -> __m512 {
        // SAFETY: 16 weights are readable by contract.
        unsafe {
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(
                at.cast(),
            ))))
        }
    }
}
