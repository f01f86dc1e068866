//! F32 on AVX2.

use std::arch::x86_64::{__m256, _mm256_loadu_ps};

use super::BYTES;
use crate::isa::avx2::Floats256;

/// F32's weights.
pub(super) struct F32;

// SAFETY: reads 8 weights.
unsafe impl Floats256 for F32 {
    const BYTES: usize = BYTES;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn eight(at: *const u8) -> __m256 {
        // SAFETY: 8 weights are readable by contract.
        unsafe { _mm256_loadu_ps(at.cast()) }
    }
}
