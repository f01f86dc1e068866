//! IQ3_XXS on AVX-512.

use std::arch::x86_64::{
    _mm256_cvtepi32_ps, _mm256_fmadd_ps, _mm256_loadu_si256, _mm256_set1_ps, _mm256_srli_epi32,
    _mm512_cvtepu32_epi64, _mm512_loadu_si512, _mm512_mul_ps, _mm512_multishift_epi64_epi8,
    _mm512_set1_epi64, _mm512_set1_ps,
};

use super::BYTES;
use super::tables::{CODES, LEVELS};
use crate::formats::grid::avx512::{indices, look_up_iq3, signs_by_register, vectors};
use crate::isa::Order;
use crate::isa::avx512::{Codes512, Indices, Unpacked512};
use crate::isa::shuffle512::{f16_one, twice};

/// IQ3_XXS's codes.
pub(super) struct Iq3Xxs;

/// All registers share one vector of scales; a lane is one vector of the grid.
const ORDER: Order = vectors(4);

// SAFETY: reads the factor, 64 bytes of indices and 32 of signs and scales.
unsafe impl Codes512 for Iq3Xxs {
    const BYTES: usize = BYTES;
    const ORDER: &'static Order = &ORDER;
    const GROUP: usize = 32;
    const OFFSET: Option<u32> = Some(7);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8, _: &Indices) -> Unpacked512 {
        // SAFETY: inside the block's 98 bytes.
        let (d, groups, tails) = unsafe {
            (
                f16_one(at),
                _mm512_loadu_si512(at.add(2).cast()),
                _mm256_loadu_si256(at.add(66).cast()),
            )
        };
        let fields = _mm512_set1_epi64(0x0000_0000_150E_0700);
        let wide = _mm512_cvtepu32_epi64(tails);
        // SAFETY: the tier has the instructions.
        let signs = unsafe { signs_by_register(_mm512_multishift_epi64_epi8(fields, wide)) };
        let low = indices(groups, [0, 8, 16, 24], [0; 4], 0xFF);
        let high = indices(groups, [32, 40, 48, 56], [0; 4], 0xFF);
        let codes = look_up_iq3(&CODES, [low, high], signs, &LEVELS);
        let s = _mm256_cvtepi32_ps(_mm256_srli_epi32::<28>(tails));
        let scale = twice(_mm256_fmadd_ps(s, _mm256_set1_ps(d * 0.5), _mm256_set1_ps(d * 0.25)));
        Unpacked512 { codes, scale: [scale; 4], min: _mm512_mul_ps(scale, _mm512_set1_ps(-128.0)) }
    }
}
