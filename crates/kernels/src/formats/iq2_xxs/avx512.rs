//! IQ2_XXS on AVX-512.

use std::arch::x86_64::{
    __m256i, _mm256_and_si256, _mm256_cvtepi32_ps, _mm256_fmadd_ps, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_srli_epi32, _mm512_cvtepi64_epi32, _mm512_loadu_si512, _mm512_mul_ps,
    _mm512_multishift_epi64_epi8, _mm512_set1_epi64, _mm512_set1_ps, _mm512_srli_epi64,
};

use super::BYTES;
use super::tables::GRID;
use crate::isa::Order;
use crate::isa::avx512::{Codes512, Unpacked512};
use crate::isa::moves512::{around_128, f16_one, look_up, signs_by_register, twice, vectors};

/// IQ2_XXS's codes.
pub(super) struct Iq2Xxs;

/// All registers share one vector of scales.
const ORDER: Order = vectors(4);

// SAFETY: reads the factor and 64 bytes of groups.
unsafe impl Codes512 for Iq2Xxs {
    const BYTES: usize = BYTES;
    const ORDER: &'static Order = &ORDER;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni")]
    unsafe fn unpack(at: *const u8) -> Unpacked512 {
        // SAFETY: inside the block's 66 bytes.
        let (d, groups) = unsafe { (f16_one(at), _mm512_loadu_si512(at.add(2).cast())) };
        let indices = _mm512_cvtepi64_epi32(groups);
        let fields = _mm512_set1_epi64(0x0000_0000_352E_2720);
        // SAFETY: the tier has the instructions.
        let signs = unsafe { signs_by_register(_mm512_multishift_epi64_epi8(fields, groups)) };
        let byte = _mm256_set1_epi32(255);
        let vector = |index: __m256i, w: usize| {
            // SAFETY: 8 bits index 256 vectors.
            around_128(unsafe { look_up(&GRID, _mm256_and_si256(index, byte)) }, signs[w])
        };
        let codes = [
            vector(indices, 0),
            vector(_mm256_srli_epi32::<8>(indices), 1),
            vector(_mm256_srli_epi32::<16>(indices), 2),
            vector(_mm256_srli_epi32::<24>(indices), 3),
        ];
        let s = _mm256_cvtepi32_ps(_mm512_cvtepi64_epi32(_mm512_srli_epi64::<60>(groups)));
        let half = _mm256_set1_ps(d * 0.125);
        let scale = twice(_mm256_fmadd_ps(s, _mm256_set1_ps(d * 0.25), half));
        Unpacked512 { codes, scale: [scale; 4], min: _mm512_mul_ps(scale, _mm512_set1_ps(-128.0)) }
    }
}
