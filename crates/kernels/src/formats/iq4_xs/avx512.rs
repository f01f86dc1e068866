//! IQ4_XS on AVX-512.

use std::arch::x86_64::{
    _mm256_and_si256, _mm256_cvtepi32_ps, _mm256_mul_ps, _mm256_or_si256, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_setr_epi32, _mm256_slli_epi32, _mm256_srlv_epi32, _mm256_sub_epi32,
    _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_ps, _mm512_shuffle_epi8,
};

use super::BYTES;
use crate::formats::iq4_nl::avx512::TABLE;
use crate::isa::avx512::{Codes512, Indices, Unpacked512};
use crate::isa::map_lanes;
use crate::isa::shuffle512::{by_lane, f16_one, nibbles, twice};
use crate::isa::{NATURAL, Order};

/// IQ4_XS's codes.
pub(super) struct Iq4Xs;

// SAFETY: reads 8 bytes of header and 128 bytes of codes.
unsafe impl Codes512 for Iq4Xs {
    const BYTES: usize = BYTES;
    const ORDER: &'static Order = &NATURAL;
    const GROUP: usize = 32;
    const OFFSET: Option<u32> = Some(7);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8, _: &Indices) -> Unpacked512 {
        // SAFETY: inside the block's 136 bytes; the table has 64.
        let (d, high, low, levels) = unsafe {
            (
                f16_one(at),
                i32::from(at.add(2).cast::<u16>().read_unaligned()),
                at.add(4).cast::<i32>().read_unaligned(),
                _mm512_loadu_si512(TABLE.as_ptr().cast()),
            )
        };
        let steps = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let low = _mm256_srlv_epi32(_mm256_set1_epi32(low), _mm256_slli_epi32::<2>(steps));
        let high = _mm256_srlv_epi32(_mm256_set1_epi32(high), _mm256_slli_epi32::<1>(steps));
        let low = _mm256_and_si256(low, _mm256_set1_epi32(15));
        let high = _mm256_slli_epi32::<4>(_mm256_and_si256(high, _mm256_set1_epi32(3)));
        let s = _mm256_sub_epi32(_mm256_or_si256(low, high), _mm256_set1_epi32(32));
        let scale = twice(_mm256_mul_ps(_mm256_cvtepi32_ps(s), _mm256_set1_ps(d)));
        // SAFETY: as above.
        let run = |g: usize| unsafe { at.add(8 + g * 16) };
        let codes = map_lanes!([0, 2, 4, 6], |g| {
            // SAFETY: as above.
            _mm512_shuffle_epi8(levels, unsafe { nibbles(run(g), run(g + 1)) })
        });
        let min = _mm512_mul_ps(scale, _mm512_set1_ps(-128.0));
        Unpacked512 { codes, scale: by_lane(scale), min }
    }
}
