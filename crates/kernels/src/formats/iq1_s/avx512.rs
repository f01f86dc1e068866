//! IQ1_S on AVX-512.

use std::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm256_and_si256, _mm256_blendv_ps, _mm256_castsi256_ps,
    _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_loadu_si256, _mm256_mul_ps, _mm256_or_si256,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_slli_epi32, _mm256_srli_epi32, _mm512_add_epi8,
    _mm512_set1_epi8,
};

use super::BYTES;
use super::SHIFT;
use super::tables::GRID;
use crate::isa::Order;
use crate::isa::avx512::{Codes512, Unpacked512};
use crate::isa::moves512::{f16_one, look_up, twice, vectors};

/// IQ1_S's codes.
pub(super) struct Iq1S;

/// All registers share one vector of scales.
const ORDER: Order = vectors(4);

// SAFETY: reads the factor, 32 bytes of indices and 16 of heads.
unsafe impl Codes512 for Iq1S {
    const BYTES: usize = BYTES;
    const ORDER: &'static Order = &ORDER;

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
        let (byte, high) = (_mm256_set1_epi32(255), _mm256_set1_epi32(0x700));
        let one = _mm512_set1_epi8(1);
        let vector = |low: __m256i, heads: __m256i| {
            let index = _mm256_or_si256(_mm256_and_si256(low, byte), _mm256_and_si256(heads, high));
            // SAFETY: 11 bits index 2048 vectors.
            _mm512_add_epi8(unsafe { look_up(&GRID, index) }, one)
        };
        let codes = [
            vector(low, _mm256_slli_epi32::<8>(heads)),
            vector(_mm256_srli_epi32::<8>(low), _mm256_slli_epi32::<5>(heads)),
            vector(_mm256_srli_epi32::<16>(low), _mm256_slli_epi32::<2>(heads)),
            vector(_mm256_srli_epi32::<24>(low), _mm256_srli_epi32::<1>(heads)),
        ];
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
