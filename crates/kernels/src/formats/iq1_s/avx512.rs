//! IQ1_S on AVX-512.

use std::arch::x86_64::{
    _mm_loadu_si128, _mm256_and_si256, _mm256_blendv_ps, _mm256_castsi256_ps, _mm256_cvtepi32_ps,
    _mm256_cvtepu16_epi32, _mm256_loadu_si256, _mm256_mul_ps, _mm256_or_si256, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_slli_epi32, _mm256_srli_epi32, _mm512_cvtepu32_epi64, _mm512_or_si512,
    _mm512_slli_epi64,
};

use super::BYTES;
use super::SHIFT;
use super::tables::CODES;
use crate::isa::Order;
use crate::isa::avx512::{Codes512, Unpacked512};
use crate::isa::moves512::{f16_one, look_up, twice, two_indices, vectors};

/// IQ1_S's codes.
pub(super) struct Iq1S;

/// All registers share one vector of scales.
const ORDER: Order = vectors(4);

// SAFETY: reads the factor, 32 bytes of indices and 16 of heads.
unsafe impl Codes512 for Iq1S {
    const BYTES: usize = BYTES;
    const ORDER: &'static Order = &ORDER;
    const GROUP: usize = 32;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni")]
    unsafe fn unpack(at: *const u8) -> Unpacked512 {
        // SAFETY: inside the block's 50 bytes.
        let (d, low, heads) = unsafe {
            (
                f16_one(at),
                _mm256_loadu_si256(at.add(2).cast()),
                _mm256_cvtepu16_epi32(_mm_loadu_si128(at.add(34).cast())),
            )
        };
        let bytes = _mm512_cvtepu32_epi64(low);
        let groups = _mm512_or_si512(bytes, _mm512_slli_epi64::<32>(_mm512_cvtepu32_epi64(heads)));
        let first = two_indices(groups, (0, 32), (8, 3), 0x7FF);
        let second = two_indices(groups, (16, 38), (8, 3), 0x7FF);
        // SAFETY: 11 bits index 2048 vectors.
        let ([a, b], [c, e]) = unsafe { (look_up(&CODES, first), look_up(&CODES, second)) };
        let codes = [a, b, c, e];
        let s = _mm256_and_si256(_mm256_srli_epi32::<11>(heads), _mm256_set1_epi32(14));
        let s = _mm256_cvtepi32_ps(_mm256_or_si256(s, _mm256_set1_epi32(1)));
        let scale = _mm256_mul_ps(s, _mm256_set1_ps(d));
        // Codes are v + 1: the minimum is -1 ± 1/8 times the scale, by bit 15 of the head.
        let sign = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(heads));
        let shift =
            _mm256_blendv_ps(_mm256_set1_ps(SHIFT - 1.0), _mm256_set1_ps(-SHIFT - 1.0), sign);
        let min = twice(_mm256_mul_ps(scale, shift));
        Unpacked512 { codes, scale: [twice(scale); 4], min }
    }
}
