//! Q2_K on AVX-512.
//!
//! A code has 2 bits and its scale 4, so their product is a byte of at most 45: one table of 16
//! bytes for each 16 bytes of codes gives the products for all four codes of a byte, and a block
//! needs no other scale than its factor.

use std::arch::x86_64::{
    __m512i, _mm_and_si128, _mm_loadu_si128, _mm_set1_epi8, _mm_srli_epi16, _mm512_add_epi8,
    _mm512_and_si512, _mm512_broadcast_i32x4, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32,
    _mm512_loadu_si512, _mm512_mul_ps, _mm512_mullo_epi16, _mm512_set1_epi8, _mm512_set1_epi16,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_set4_epi32, _mm512_setr_epi32, _mm512_setzero_ps,
    _mm512_shuffle_epi8, _mm512_srli_epi16, _mm512_srlv_epi16, _mm512_sub_ps,
    _mm512_ternarylogic_epi64,
};

use super::BYTES;
use crate::isa::Order;
use crate::isa::avx512::panel::{Panel16, Rows16};
use crate::isa::avx512::{Codes512, Indices, Unpacked512};
use crate::isa::map_lanes;
use crate::isa::shuffle512::{byte_of, f16_high, f16_low, f16_pair};

/// Q2_K's codes.
pub(super) struct Q2K;

/// Register `j` holds bits `2j` and `2j + 1` of the bytes in their order: 32 weights of either
/// half. Also TQ2_0's order.
pub(crate) const ORDER: Order = Order { quads: quads(), chain: 4 };

const fn quads() -> [u8; 64] {
    let mut quads = [0; 64];
    let mut i = 0;
    while i < 64 {
        let (register, half, quad) = (i / 16, i / 8 % 2, i % 8);
        quads[i] = (half * 32 + register * 8 + quad) as u8;
        i += 1;
    }
    quads
}

/// Scale times code, at `4j + code` of the 128-bit lane that has the bytes of group `2j` or `2j +
/// 1` of a half, from sixteen scales repeated in every lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
fn products(scales: __m512i) -> __m512i {
    let four = |group: i32| group * 0x0101_0101;
    let lane = |first: i32| map_lanes!([0, 2, 4, 6], |group| four(first + group));
    let ([a, b, c, d], [e, f, g, h]) = (lane(0), lane(1));
    let ([i, j, k, l], [m, n, o, p]) = (lane(8), lane(9));
    let groups = _mm512_setr_epi32(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p);
    let once = _mm512_shuffle_epi8(scales, groups);
    let twice = _mm512_add_epi8(once, once);
    let odd = _mm512_and_si512(once, _mm512_set1_epi32(0xFF00_FF00_u32.cast_signed()));
    let large = _mm512_and_si512(twice, _mm512_set1_epi32(0xFFFF_0000_u32.cast_signed()));
    _mm512_add_epi8(odd, large)
}

// SAFETY: reads 16 bytes of scales, 64 of codes and 4 of factors.
unsafe impl Codes512 for Q2K {
    const BYTES: usize = BYTES;
    const ORDER: &'static Order = &ORDER;
    const GROUP: usize = 16;
    const OFFSET: Option<u32> = None;
    const IS_UNIFORM: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8, _: &Indices) -> Unpacked512 {
        // SAFETY: inside the block's 84 bytes.
        let (header, bytes, [d, m]) = unsafe {
            let codes = _mm512_loadu_si512(at.add(16).cast());
            (_mm_loadu_si128(at.cast()), codes, f16_pair(at.add(80)))
        };
        let nibble = _mm_set1_epi8(15);
        let table = products(_mm512_broadcast_i32x4(_mm_and_si128(header, nibble)));
        // (j << 2) | (bits & 3)
        let code = |bits: __m512i, j: i8| {
            let (place, pair) = (_mm512_set1_epi8(j << 2), _mm512_set1_epi8(3));
            _mm512_shuffle_epi8(table, _mm512_ternarylogic_epi64::<0xF8>(place, bits, pair))
        };
        let codes = [
            code(bytes, 0),
            code(_mm512_srli_epi16::<2>(bytes), 1),
            code(_mm512_srli_epi16::<4>(bytes), 2),
            code(_mm512_srli_epi16::<6>(bytes), 3),
        ];
        let min = _mm512_cvtepu8_epi32(_mm_and_si128(_mm_srli_epi16::<4>(header), nibble));
        let min = _mm512_mul_ps(_mm512_cvtepi32_ps(min), _mm512_set1_ps(-m));
        Unpacked512 { codes, scale: [_mm512_set1_ps(d); 4], min }
    }

    const HAS_X16: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack_x16(rows: &Rows16, _bytes: usize, to: Panel16) {
        let (three, nibble) = (_mm512_set1_epi8(3), _mm512_set1_epi8(15));
        // SAFETY: inside the blocks' 84 bytes; a block has 64 quads of codes, 16 scales and as many
        // minima.
        unsafe {
            let header = rows.quads_of_16(0);
            // The scale of a group in every 16 bits. Two codes there times it, at most 45, are two
            // bytes.
            let mut scales = [three; 16];
            for (group, scale) in scales.iter_mut().enumerate() {
                let at = |lane: i32| {
                    ((lane * 4 + group as i32 % 4) * 0x1_0001) | 0x8000_8000_u32.cast_signed()
                };
                let bytes = _mm512_set4_epi32(at(3), at(2), at(1), at(0));
                *scale = _mm512_shuffle_epi8(_mm512_and_si512(header[group / 4], nibble), bytes);
            }
            for (i, bytes) in rows.quads_of_64(16).into_iter().enumerate() {
                let (half, i) = (i / 8, i % 8);
                for j in 0..4 {
                    let codes = _mm512_srlv_epi16(bytes, _mm512_set1_epi16(2 * j as i16));
                    let codes = _mm512_and_si512(codes, three);
                    let scale = scales[half * 8 + j * 2 + i / 4];
                    to.set_codes(half * 32 + j * 8 + i, _mm512_mullo_epi16(codes, scale));
                }
            }
            let factors = rows.quads_of_16(68)[3];
            let d = f16_low(rows.present, factors);
            let m = _mm512_sub_ps(_mm512_setzero_ps(), f16_high(rows.present, factors));
            for (i, quads) in header.into_iter().enumerate() {
                let minima = _mm512_and_si512(_mm512_srli_epi16::<4>(quads), nibble);
                for j in 0..4 {
                    to.set_factors(i * 4 + j, d);
                    let min = _mm512_cvtepi32_ps(byte_of(minima, j));
                    to.set_factors(16 + i * 4 + j, _mm512_mul_ps(min, m));
                }
            }
        }
    }
}
