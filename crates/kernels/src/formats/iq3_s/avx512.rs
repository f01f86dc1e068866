//! IQ3_S on AVX-512.

use std::arch::x86_64::{
    _mm_loadl_epi64, _mm256_and_si256, _mm256_cvtepi32_ps, _mm256_fmadd_ps, _mm256_loadu_si256,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32, _mm256_srlv_epi32, _mm512_cvtepu8_epi64,
    _mm512_cvtepu32_epi64, _mm512_i32gather_epi32, _mm512_loadu_si512, _mm512_mask_add_epi32,
    _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_epi64, _mm512_set1_ps, _mm512_shuffle_epi32,
    _mm512_test_epi32_mask,
};

use super::BYTES;
use super::tables::GRID;
use crate::isa::Order;
use crate::isa::avx512::{Codes512, Unpacked512};
use crate::isa::moves512::{
    around_128, f16_one, pairs_of_indices, transpose_signs, twice, vectors,
};

/// IQ3_S's codes.
pub(super) struct Iq3S;

/// All registers share one vector of scales; a lane is one vector of the grid.
const ORDER: Order = vectors(4);

// SAFETY: reads the factor, 64 bytes of indices, 8 of high bits, 32 of signs and 4 of scales.
unsafe impl Codes512 for Iq3S {
    const BYTES: usize = BYTES;
    const ORDER: &'static Order = &ORDER;
    const GROUP: usize = 32;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni")]
    unsafe fn unpack(at: *const u8) -> Unpacked512 {
        // SAFETY: inside the block's 110 bytes.
        let (d, indices, high, signs, scales) = unsafe {
            (
                f16_one(at),
                _mm512_loadu_si512(at.add(2).cast()),
                _mm512_cvtepu8_epi64(_mm_loadl_epi64(at.add(66).cast())),
                _mm256_loadu_si256(at.add(74).cast()),
                at.add(106).cast::<i32>().read_unaligned(),
            )
        };
        // SAFETY: the tier has the instructions.
        let signs = unsafe { transpose_signs(_mm512_cvtepu32_epi64(signs)) };
        // The eight high bits of a group, in both lanes of its vectors.
        let high = _mm512_shuffle_epi32::<0b10_10_00_00>(high);
        let codes = std::array::from_fn(|w| {
            let bits = _mm512_set1_epi64((1 | 2 << 32) << (2 * w));
            let index = pairs_of_indices(indices, w);
            let upper = _mm512_test_epi32_mask(high, bits);
            let index = _mm512_mask_add_epi32(index, upper, index, _mm512_set1_epi32(256));
            // SAFETY: 9 bits index 512 vectors.
            let levels = unsafe { _mm512_i32gather_epi32::<4>(index, GRID.as_ptr().cast()) };
            around_128(levels, signs[w])
        });
        let steps = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
        let s = _mm256_srlv_epi32(_mm256_set1_epi32(scales), steps);
        let s = _mm256_cvtepi32_ps(_mm256_and_si256(s, _mm256_set1_epi32(15)));
        let scale = twice(_mm256_fmadd_ps(s, _mm256_set1_ps(2.0 * d), _mm256_set1_ps(d)));
        Unpacked512 { codes, scale: [scale; 4], min: _mm512_mul_ps(scale, _mm512_set1_ps(-128.0)) }
    }
}
