//! F16 on AVX-512.

use std::arch::x86_64::{__m512, _mm256_loadu_si256, _mm512_cvtph_ps};

use super::BYTES;
use crate::isa::avx512::Floats512;

/// F16's weights.
pub(super) struct F16;

// SAFETY: reads 16 weights.
unsafe impl Floats512 for F16 {
    const BYTES: usize = BYTES;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn sixteen(at: *const u8) -> __m512 {
        // SAFETY: 16 weights are readable by contract.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) }
    }
}
