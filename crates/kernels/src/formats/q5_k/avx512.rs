//! Q5_K on AVX-512.
//!
//! The order of registers is Q4_K's.

use std::arch::x86_64::{
    __m512i, _mm_loadu_si128, _mm512_and_si512, _mm512_broadcast_i32x4, _mm512_loadu_si512,
    _mm512_mask_add_epi8, _mm512_rorv_epi32, _mm512_set1_epi8, _mm512_set1_epi32,
    _mm512_setr_epi64, _mm512_shuffle_i64x2, _mm512_slli_epi64, _mm512_srli_epi16,
    _mm512_ternarylogic_epi64, _mm512_test_epi8_mask,
};

use super::BYTES;
use crate::formats::q4_k::avx512::{ORDER, scales, scales_x16};
use crate::isa::Order;
use crate::isa::avx512::panel::{Panel16, Rows16};
use crate::isa::avx512::{Codes512, Indices, Unpacked512};
use crate::isa::map_lanes;

/// Q5_K's codes.
pub(super) struct Q5K;

/// Bit 0 of every byte.
const B0: i64 = 0x0101_0101_0101_0101;

// SAFETY: reads 16 bytes of header, 32 of fifth bits and 128 of codes.
unsafe impl Codes512 for Q5K {
    const BYTES: usize = BYTES;
    const ORDER: &'static Order = &ORDER;
    const GROUP: usize = 32;
    const OFFSET: Option<u32> = None;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8, _: &Indices) -> Unpacked512 {
        // SAFETY: inside the block's 176 bytes.
        let (first, second, fifth) = unsafe {
            (
                _mm512_loadu_si512(at.add(48).cast()),
                _mm512_loadu_si512(at.add(112).cast()),
                map_lanes!([16, 32], |o| _mm512_broadcast_i32x4(_mm_loadu_si128(at.add(o).cast()))),
            )
        };
        let halves = [
            _mm512_shuffle_i64x2::<0b10_00_10_00>(first, second),
            _mm512_shuffle_i64x2::<0b11_01_11_01>(first, second),
        ];
        // Run `r` is in 128-bit lane `r`: bits 2r and 2r + 1 of the fifth bits are its two
        // groups'.
        let even = _mm512_setr_epi64(B0, B0, B0 << 2, B0 << 2, B0 << 4, B0 << 4, B0 << 6, B0 << 6);
        let odd = _mm512_slli_epi64::<1>(even);
        let (nibble, sixteen) = (_mm512_set1_epi8(15), _mm512_set1_epi8(16));
        let code = |nibbles: __m512i, half: usize, bit: __m512i| {
            let low = _mm512_and_si512(nibbles, nibble);
            _mm512_mask_add_epi8(low, _mm512_test_epi8_mask(fifth[half], bit), low, sixteen)
        };
        let codes = [
            code(halves[0], 0, even),
            code(halves[1], 1, even),
            code(_mm512_srli_epi16::<4>(halves[0]), 0, odd),
            code(_mm512_srli_epi16::<4>(halves[1]), 1, odd),
        ];
        // SAFETY: as this function's.
        let (scale, min) = unsafe { scales(at) };
        Unpacked512 { codes, scale, min }
    }

    const HAS_X16: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack_x16(rows: &Rows16, _bytes: usize, to: Panel16) {
        let (nibble, sixteen) = (_mm512_set1_epi8(15), _mm512_set1_epi8(16));
        // SAFETY: inside the blocks' 176 bytes; a block of codes has 64 quads.
        unsafe {
            let fifth = [rows.quads_of_16(16), rows.quads_of_16(32)];
            // (nibbles & 15) | (bit `group` of the fifth bits << 4)
            let code = |nibbles: __m512i, group: usize, i: usize| {
                let turn = _mm512_set1_epi32((group as i32 + 28) % 32);
                let high = _mm512_rorv_epi32(fifth[i / 4][i % 4], turn);
                let low = _mm512_and_si512(nibbles, nibble);
                _mm512_ternarylogic_epi64::<0xF8>(low, high, sixteen)
            };
            for half in 0..2 {
                for (i, bytes) in rows.quads_of_64(48 + half * 64).into_iter().enumerate() {
                    let (group, i) = (half * 4 + i / 8 * 2, i % 8);
                    to.set_codes(group * 8 + i, code(bytes, group, i));
                    let high = _mm512_srli_epi16::<4>(bytes);
                    to.set_codes((group + 1) * 8 + i, code(high, group + 1, i));
                }
            }
            scales_x16(rows, to);
        }
    }
}
