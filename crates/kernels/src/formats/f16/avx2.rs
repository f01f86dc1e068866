//! F16 on AVX2.

use std::arch::x86_64::{__m256, _mm_loadu_si128, _mm256_cvtph_ps};

use super::BYTES;
use crate::isa::avx2::Floats256;

/// F16's weights.
pub(super) struct F16;

// SAFETY: reads 8 weights.
unsafe impl Floats256 for F16 {
    const BYTES: usize = BYTES;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn eight(at: *const u8) -> __m256 {
        // SAFETY: 8 weights are readable by contract.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
    }
}
