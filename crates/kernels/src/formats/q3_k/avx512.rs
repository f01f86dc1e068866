//! Q3_K on AVX-512.
//!
//! The order of registers is Q2_K's.

use std::arch::x86_64::{
    __m512i, _mm_set1_epi8, _mm_setr_epi32, _mm_sub_epi8, _mm256_loadu_si256, _mm512_and_si512,
    _mm512_castsi256_si512, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_mul_ps,
    _mm512_multishift_epi64_epi8, _mm512_permutexvar_epi64, _mm512_set1_epi8, _mm512_set1_ps,
    _mm512_setr_epi64, _mm512_ternarylogic_epi64,
};

use super::BYTES;
use crate::formats::q2_k::avx512::{ORDER, one_stream, spread};
use crate::isa::Order;
use crate::isa::avx512::{Codes512, Unpacked512};
use crate::isa::moves512::f16_one;

/// Q3_K's codes.
pub(super) struct Q3K;

/// Where the third bit of each code stands, so that it comes to bit 2 of its byte: bit `4h + j` of a
/// byte for half `h` and code pair `j`, in quad 0 or 1 of a 64-bit lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn high_bits(quad: u64) -> __m512i {
    let quad_at =
        |k: u64| (0..4).fold(0u64, |c, b| c | ((quad * 32 + b * 8 + k + 62) % 64) << (b * 8));
    let pairs = |k: u64| (quad_at(k) | quad_at(k + 1) << 32).cast_signed();
    _mm512_setr_epi64(
        pairs(0),
        pairs(2),
        pairs(0),
        pairs(2),
        pairs(4),
        pairs(6),
        pairs(4),
        pairs(6),
    )
}

// SAFETY: reads 32 bytes of high bits, 64 of codes, 12 of scales and the factor.
unsafe impl Codes512 for Q3K {
    const BYTES: usize = BYTES;
    const ORDER: &'static Order = &ORDER;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni")]
    unsafe fn unpack(at: *const u8) -> Unpacked512 {
        // SAFETY: inside the block's 110 bytes.
        let (high, low, [a, b, c], d) = unsafe {
            (
                _mm512_castsi256_si512(_mm256_loadu_si256(at.cast())),
                spread(at.add(32)),
                at.add(96).cast::<[u32; 3]>().read_unaligned(),
                f16_one(at.add(108)),
            )
        };
        let first = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 2, 2, 0, 0, 2, 2), high);
        let second = _mm512_permutexvar_epi64(_mm512_setr_epi64(1, 1, 3, 3, 1, 1, 3, 3), high);
        let (even, odd) = (high_bits(0), high_bits(1));
        let (pair, four) = (_mm512_set1_epi8(3), _mm512_set1_epi8(4));
        let code = |low: __m512i, bits: __m512i, high: __m512i| {
            let high = _mm512_multishift_epi64_epi8(bits, high);
            _mm512_ternarylogic_epi64::<0xF8>(_mm512_and_si512(low, pair), high, four)
        };
        let codes = [
            code(low[0], even, first),
            code(low[1], odd, first),
            code(low[2], even, second),
            code(low[3], odd, second),
        ];
        let word =
            |low: u32, pairs: u32| (low & 0x0F0F_0F0F | (pairs & 0x0303_0303) << 4).cast_signed();
        let s =
            _mm_setr_epi32(word(a, c), word(b, c >> 2), word(a >> 4, c >> 4), word(b >> 4, c >> 6));
        let s = _mm512_cvtepi8_epi32(_mm_sub_epi8(s, _mm_set1_epi8(32)));
        let scale = _mm512_mul_ps(_mm512_cvtepi32_ps(s), _mm512_set1_ps(d));
        let min = _mm512_mul_ps(scale, _mm512_set1_ps(-4.0));
        Unpacked512 { codes, scale: one_stream(scale), min }
    }
}
