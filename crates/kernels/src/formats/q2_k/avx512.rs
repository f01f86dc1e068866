//! Q2_K on AVX-512.

use std::arch::x86_64::{
    __m128i, __m512, __m512i, _mm_and_si128, _mm_loadu_si128, _mm_set1_epi8, _mm_srli_epi16,
    _mm512_and_si512, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_loadu_si512, _mm512_mul_ps,
    _mm512_multishift_epi64_epi8, _mm512_permutexvar_epi64, _mm512_permutexvar_ps,
    _mm512_set1_epi8, _mm512_set1_ps, _mm512_setr_epi32, _mm512_setr_epi64,
};

use super::BYTES;
use crate::isa::Order;
use crate::isa::avx512::{Codes512, Unpacked512};
use crate::isa::moves512::f16_pair;

/// Q2_K's codes.
pub(super) struct Q2K;

/// Lane `8h + 4c + j` of register `w` holds quad `w` of the 16 weights in half `h`, code pair `j`,
/// 16-byte run `c`: all registers share one vector of scales. Also Q3_K's and TQ2_0's order.
pub(crate) const ORDER: Order = Order { quads: quads(), chain: 4 };

const fn quads() -> [u8; 64] {
    let mut quads = [0; 64];
    let mut i = 0;
    while i < 64 {
        quads[i] = (group(i % 16) * 4 + i / 16) as u8;
        i += 1;
    }
    quads
}

/// The group of 16 weights in a lane.
const fn group(lane: usize) -> usize {
    lane / 8 * 8 + lane % 4 * 2 + lane / 4 % 2
}

/// Scales by group brought to the lanes of [`ORDER`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn one_stream(scale: __m512) -> [__m512; 4] {
    let lanes = _mm512_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    [_mm512_permutexvar_ps(lanes, scale), scale, scale, scale]
}

/// The 64 bytes of 2-bit codes at `at` in [`ORDER`], each code in the lowest bits of a byte.
///
/// # Safety
/// 64 bytes at `at` are readable; the CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni")]
pub(crate) unsafe fn spread(at: *const u8) -> [__m512i; 4] {
    // SAFETY: 64 bytes by contract.
    let bytes = unsafe { _mm512_loadu_si512(at.cast()) };
    // 64-bit lane 2·run + p of a half holds quads 2p and 2p + 1 of a run: twice each, for two pairs.
    let first = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 2, 2, 4, 4, 6, 6), bytes);
    let second = _mm512_permutexvar_epi64(_mm512_setr_epi64(1, 1, 3, 3, 5, 5, 7, 7), bytes);
    // The bytes of quad 0 or 1 of the lane, from bit 2j on.
    let bits = |quad: u64| {
        let quad_at = |j: u64| (0..4).fold(0, |c, b| c | (quad * 32 + b * 8 + 2 * j) << (b * 8));
        let pairs = |j: u64| (quad_at(j) | quad_at(j + 1) << 32).cast_signed();
        _mm512_setr_epi64(
            pairs(0),
            pairs(2),
            pairs(0),
            pairs(2),
            pairs(0),
            pairs(2),
            pairs(0),
            pairs(2),
        )
    };
    let (even, odd) = (bits(0), bits(1));
    [
        _mm512_multishift_epi64_epi8(even, first),
        _mm512_multishift_epi64_epi8(odd, first),
        _mm512_multishift_epi64_epi8(even, second),
        _mm512_multishift_epi64_epi8(odd, second),
    ]
}

// SAFETY: reads 16 bytes of scales, 64 of codes and 4 of factors.
unsafe impl Codes512 for Q2K {
    const BYTES: usize = BYTES;
    const ORDER: &'static Order = &ORDER;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni")]
    unsafe fn unpack(at: *const u8) -> Unpacked512 {
        // SAFETY: inside the block's 84 bytes.
        let (bytes, codes, [d, m]) =
            unsafe { (_mm_loadu_si128(at.cast()), spread(at.add(16)), f16_pair(at.add(80))) };
        let nibble = _mm_set1_epi8(15);
        let scale = _mm_and_si128(bytes, nibble);
        let min = _mm_and_si128(_mm_srli_epi16::<4>(bytes), nibble);
        let floats = |bytes: __m128i, factor: f32| {
            _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)), _mm512_set1_ps(factor))
        };
        let pair = _mm512_set1_epi8(3);
        let codes = codes.map(|c| _mm512_and_si512(c, pair));
        Unpacked512 { codes, scale: one_stream(floats(scale, d)), min: floats(min, -m) }
    }
}
