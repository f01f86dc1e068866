//! Q6_K on AVX-512.

use std::arch::x86_64::{
    __m512i, _mm_loadu_si128, _mm256_loadu_si256, _mm512_and_si512, _mm512_broadcast_i64x4,
    _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi8,
    _mm512_set1_ps, _mm512_setr_epi64, _mm512_sllv_epi16, _mm512_srli_epi16, _mm512_srlv_epi16,
    _mm512_ternarylogic_epi64,
};

use super::BYTES;
use crate::isa::avx512::{Codes512, Indices, Unpacked512};
use crate::isa::map_lanes;
use crate::isa::shuffle512::{by_lane, f16_one};
use crate::isa::{NATURAL, Order};

/// Q6_K's codes.
pub(super) struct Q6K;

// SAFETY: reads 192 bytes of codes, 16 of scales and the factor.
unsafe impl Codes512 for Q6K {
    const BYTES: usize = BYTES;
    const ORDER: &'static Order = &NATURAL;
    const GROUP: usize = 16;
    const OFFSET: Option<u32> = Some(5);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8, _: &Indices) -> Unpacked512 {
        // SAFETY: inside the block's 210 bytes.
        let (low, high, scales, d) = unsafe {
            (
                map_lanes!([0, 64], |o| _mm512_loadu_si512(at.add(o).cast())),
                map_lanes!([128, 160], |o| _mm512_broadcast_i64x4(_mm256_loadu_si256(
                    at.add(o).cast()
                ))),
                _mm_loadu_si128(at.add(192).cast()),
                f16_one(at.add(208)),
            )
        };
        let (four, two) = (0x0004_0004_0004_0004, 0x0002_0002_0002_0002);
        let left = _mm512_setr_epi64(four, four, four, four, two, two, two, two);
        let right = _mm512_setr_epi64(0, 0, 0, 0, two, two, two, two);
        let (nibble, pair) = (_mm512_set1_epi8(15), _mm512_set1_epi8(0x30));
        // (low & nibble) | (high & pair): bits 4-5 of each code stand beside bits 0-3.
        let merge = |low: __m512i, high: __m512i| {
            _mm512_ternarylogic_epi64::<0xF8>(_mm512_and_si512(low, nibble), high, pair)
        };
        let half = |h: usize| {
            [
                merge(low[h], _mm512_sllv_epi16(high[h], left)),
                merge(_mm512_srli_epi16::<4>(low[h]), _mm512_srlv_epi16(high[h], right)),
            ]
        };
        let ([a, b], [c, e]) = (half(0), half(1));
        let scales = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(scales));
        let scale = _mm512_mul_ps(scales, _mm512_set1_ps(d));
        let min = _mm512_mul_ps(scale, _mm512_set1_ps(-32.0));
        Unpacked512 { codes: [a, b, c, e], scale: by_lane(scale), min }
    }
}
