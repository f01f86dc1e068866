//! IQ2_XXS on AVX-512.

use std::arch::x86_64::{
    _mm256_cvtepi32_ps, _mm256_fmadd_ps, _mm256_set1_ps, _mm512_cvtepi64_epi32, _mm512_loadu_si512,
    _mm512_mul_ps, _mm512_multishift_epi64_epi8, _mm512_set1_epi64, _mm512_set1_ps,
    _mm512_srli_epi64,
};

use super::BYTES;
use super::tables::CODES;
use crate::formats::grid::avx512::{indices, iq2_levels, look_up, signs_by_register, vectors};
use crate::isa::Order;
use crate::isa::avx512::{Codes512, Indices, Unpacked512};
use crate::isa::shuffle512::{f16_one, twice};

/// IQ2_XXS's codes.
pub(super) struct Iq2Xxs;

/// All registers share one vector of scales.
const ORDER: Order = vectors(4);

// SAFETY: reads the factor and 64 bytes of groups.
unsafe impl Codes512 for Iq2Xxs {
    const BYTES: usize = BYTES;
    const ORDER: &'static Order = &ORDER;
    const GROUP: usize = 32;
    const OFFSET: Option<u32> = Some(7);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8, _: &Indices) -> Unpacked512 {
        // SAFETY: inside the block's 66 bytes.
        let (d, groups) = unsafe { (f16_one(at), _mm512_loadu_si512(at.add(2).cast())) };
        let fields = _mm512_set1_epi64(0x0000_0000_352E_2720);
        // SAFETY: the tier has the instructions.
        let signs = unsafe { signs_by_register(_mm512_multishift_epi64_epi8(fields, groups)) };
        let index = indices(groups, [0, 8, 16, 24], [0, 0, 0, 0], 0xFF);
        // SAFETY: 8 bits index 256 vectors.
        let [a, b, c, e] = unsafe { look_up(&CODES, index) };
        let codes = [
            iq2_levels(a, signs[0]),
            iq2_levels(b, signs[1]),
            iq2_levels(c, signs[2]),
            iq2_levels(e, signs[3]),
        ];
        let s = _mm256_cvtepi32_ps(_mm512_cvtepi64_epi32(_mm512_srli_epi64::<60>(groups)));
        let half = _mm256_set1_ps(d * 0.125);
        let scale = twice(_mm256_fmadd_ps(s, _mm256_set1_ps(d * 0.25), half));
        Unpacked512 { codes, scale: [scale; 4], min: _mm512_mul_ps(scale, _mm512_set1_ps(-128.0)) }
    }
}
