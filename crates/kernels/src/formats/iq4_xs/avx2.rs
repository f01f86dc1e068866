//! IQ4_XS on AVX2: codes looked up, magnitudes and signs apart.

use std::arch::x86_64::{
    __m256, _mm256_and_si256, _mm256_cvtepi32_ps, _mm256_mul_ps, _mm256_or_si256,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32, _mm256_setzero_ps, _mm256_slli_epi32,
    _mm256_srlv_epi32, _mm256_sub_epi32,
};

use super::BYTES;
use crate::formats::iq4_nl::LEVELS;
use crate::isa::avx2::shuffle256::{by_32, f16, levels, magnitudes, nibbles};
use crate::isa::avx2::{Codes256, Unpacked256};

/// IQ4_XS's codes.
pub(super) struct Iq4Xs;

// SAFETY: reads 136 bytes; no level is beyond 127.
unsafe impl Codes256 for Iq4Xs {
    const BYTES: usize = BYTES;
    const LARGEST: u8 = 127;
    const GROUP: usize = 32;
    const SIGNED: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(at: *const u8) -> Unpacked256 {
        // SAFETY: inside the block's 136 bytes.
        let (codes, scale) = unsafe { (nibbles(at.add(8), 16), scales(at)) };
        let signs = levels(codes, &LEVELS);
        let min = [_mm256_setzero_ps(); 2];
        Unpacked256 { codes: magnitudes(signs), signs, scale: by_32(scale), min }
    }
}

/// `d·(s - 32)` of the eight groups.
///
/// # Safety
/// 8 bytes at `at` are readable; the CPU has F16C.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn scales(at: *const u8) -> __m256 {
    // SAFETY: by contract.
    let (d, high, low) = unsafe {
        let high = at.add(2).cast::<u16>().read_unaligned();
        (f16(at), high, at.add(4).cast::<i32>().read_unaligned())
    };
    let low =
        _mm256_srlv_epi32(_mm256_set1_epi32(low), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    let high = _mm256_srlv_epi32(
        _mm256_set1_epi32(i32::from(high)),
        _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14),
    );
    let low = _mm256_and_si256(low, _mm256_set1_epi32(15));
    let high = _mm256_and_si256(high, _mm256_set1_epi32(3));
    let scale = _mm256_or_si256(low, _mm256_slli_epi32::<4>(high));
    let scale = _mm256_sub_epi32(scale, _mm256_set1_epi32(32));
    _mm256_mul_ps(_mm256_cvtepi32_ps(scale), _mm256_set1_ps(d))
}
