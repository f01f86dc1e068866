//! IQ1_S on AVX-512.

use std::arch::x86_64::{
    _mm_loadu_si128, _mm256_and_si256, _mm256_blendv_ps, _mm256_castsi256_ps, _mm256_cvtepi32_ps,
    _mm256_cvtepu16_epi32, _mm256_mul_ps, _mm256_or_si256, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_slli_epi32, _mm256_srli_epi32,
};

use super::BYTES;
use super::SHIFT;
use super::tables::CODES;
use crate::isa::Order;
use crate::isa::avx512::{Codes512, Unpacked512};
use crate::isa::each;
use crate::isa::moves512::{f16_one, indices_of, load_up, twice, vectors};

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
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8) -> Unpacked512 {
        // SAFETY: inside the block's 50 bytes.
        let (d, heads) =
            unsafe { (f16_one(at), _mm256_cvtepu16_epi32(_mm_loadu_si128(at.add(34).cast()))) };
        let groups = each!([0, 1, 2, 3, 4, 5, 6, 7], |g| {
            // SAFETY: inside the block.
            let (low, head) = unsafe {
                (
                    at.add(2 + 4 * g).cast::<u32>().read_unaligned(),
                    at.add(34 + 2 * g).cast::<u16>().read_unaligned(),
                )
            };
            indices_of(low, head.into(), 0x700)
        });
        // SAFETY: 11 bits index 2048 vectors.
        let codes = unsafe { load_up(&CODES, groups) };
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
