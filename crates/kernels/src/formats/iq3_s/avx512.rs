//! IQ3_S on AVX-512.

use std::arch::x86_64::{
    _mm256_and_si256, _mm256_cvtepi32_ps, _mm256_fmadd_ps, _mm256_loadu_si256, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_setr_epi32, _mm256_srlv_epi32, _mm512_cvtepu32_epi64,
    _mm512_loadu_si512, _mm512_mask_add_epi16, _mm512_mul_ps, _mm512_set1_epi16, _mm512_set1_ps,
    _pext_u64,
};

use super::BYTES;
use super::tables::{CODES, LEVELS};
use crate::formats::grid::avx512::{indices, look_up_iq3, transpose_signs, vectors};
use crate::isa::Order;
use crate::isa::avx512::{Codes512, Indices, Unpacked512};
use crate::isa::shuffle512::{f16_one, twice};

/// IQ3_S's codes.
pub(super) struct Iq3S;

/// All registers share one vector of scales; a lane is one vector of the grid.
const ORDER: Order = vectors(4);

// SAFETY: reads the factor, 64 bytes of indices, 8 of high bits, 32 of signs and 4 of scales.
unsafe impl Codes512 for Iq3S {
    const BYTES: usize = BYTES;
    const ORDER: &'static Order = &ORDER;
    const GROUP: usize = 32;
    const OFFSET: Option<u32> = Some(7);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8, _: &Indices) -> Unpacked512 {
        // SAFETY: inside the block's 110 bytes.
        let (d, groups, high, signs, scales) = unsafe {
            (
                f16_one(at),
                _mm512_loadu_si512(at.add(2).cast()),
                at.add(66).cast::<u64>().read_unaligned(),
                _mm256_loadu_si256(at.add(74).cast()),
                at.add(106).cast::<i32>().read_unaligned(),
            )
        };
        // SAFETY: the tier has the instructions.
        let signs = unsafe { transpose_signs(_mm512_cvtepu32_epi64(signs)) };
        // Bit `v` of a group's byte is the ninth bit of the index of its vector `v`.
        let nine = |low: [i64; 4], ninth: u64| {
            let index = indices(groups, low, [0; 4], 0xFF);
            let upper = _pext_u64(high, ninth) as u32;
            _mm512_mask_add_epi16(index, upper, index, _mm512_set1_epi16(256))
        };
        let low = nine([0, 8, 16, 24], 0x0F0F_0F0F_0F0F_0F0F);
        let high = nine([32, 40, 48, 56], 0xF0F0_F0F0_F0F0_F0F0);
        let codes = look_up_iq3(&CODES, [low, high], signs, &LEVELS);
        let steps = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
        let s = _mm256_srlv_epi32(_mm256_set1_epi32(scales), steps);
        let s = _mm256_cvtepi32_ps(_mm256_and_si256(s, _mm256_set1_epi32(15)));
        let scale = twice(_mm256_fmadd_ps(s, _mm256_set1_ps(2.0 * d), _mm256_set1_ps(d)));
        Unpacked512 { codes, scale: [scale; 4], min: _mm512_mul_ps(scale, _mm512_set1_ps(-128.0)) }
    }
}
