//! IQ1_S on AVX-512.

use std::arch::x86_64::{
    __m512i, _mm_loadu_si128, _mm256_and_si256, _mm256_castsi256_ps, _mm256_cvtepi32_ps,
    _mm256_loadu_si256, _mm256_mul_ps, _mm256_or_si256, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_slli_epi32, _mm256_srli_epi32, _mm256_sub_ps, _mm256_xor_ps, _mm512_cvtepi64_epi32,
    _mm512_cvtepu16_epi64, _mm512_mask_blend_epi64, _mm512_mask_mov_epi64, _mm512_mul_ps,
    _mm512_or_si512, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_epi64, _mm512_set1_ps,
    _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_testn_epi64_mask,
};

use super::BYTES;
use super::SHIFT;
use super::tables::CODES;
use crate::formats::grid::avx512::{indices_of, load_up, vectors};
use crate::isa::Order;
use crate::isa::avx512::{Codes512, Indices, Unpacked512};
use crate::isa::map_lanes;
use crate::isa::shuffle512::{f16_one, twice};

/// IQ1_S's codes.
pub(super) struct Iq1S;

/// All registers share one vector of scales.
const ORDER: Order = vectors(4);

// SAFETY: reads the factor, 32 bytes of indices and 16 of heads.
unsafe impl Codes512 for Iq1S {
    const BYTES: usize = BYTES;
    const ORDER: &'static Order = &ORDER;
    const GROUP: usize = 32;
    const OFFSET: Option<u32> = Some(4);
    const LOOKS_UP: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn indices(at: *const u8) -> Indices {
        // SAFETY: inside the block's 50 bytes.
        let (low, heads) = unsafe { (_mm256_loadu_si256(at.add(2).cast()), heads(at)) };
        indices_of(low, heads, 3, 0x700)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8, indices: &Indices) -> Unpacked512 {
        // SAFETY: inside the block's 50 bytes; 11 bits index 2048 vectors.
        let (d, heads, codes) = unsafe { (f16_one(at), heads(at), load_up(&CODES, indices)) };
        let heads = _mm512_cvtepi64_epi32(heads);
        let s = _mm256_srli_epi32::<11>(heads);
        let s = _mm256_or_si256(_mm256_and_si256(s, _mm256_set1_epi32(14)), _mm256_set1_epi32(1));
        let scale = _mm256_mul_ps(_mm256_cvtepi32_ps(s), _mm256_set1_ps(d));
        // Bit 15 is the sign of what is added to all weights; codes begin at 0 instead of -1.
        let sign = _mm256_and_si256(_mm256_slli_epi32::<16>(heads), _mm256_set1_epi32(i32::MIN));
        let shift = _mm256_xor_ps(_mm256_castsi256_ps(sign), _mm256_set1_ps(SHIFT));
        let min = _mm256_mul_ps(scale, _mm256_sub_ps(shift, _mm256_set1_ps(1.0)));
        Unpacked512 { codes, scale: [twice(scale); 4], min: twice(min) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn with_offset(at: *const u8, weights: Unpacked512) -> Unpacked512 {
        // SAFETY: as this function's. Minus where bit 15 of the head is set.
        let plus = _mm512_testn_epi64_mask(unsafe { heads(at) }, _mm512_set1_epi64(1 << 15));
        let [a, b, c, d] = weights.codes;
        let codes = map_lanes!([a, b, c, d], |code| shifted(code, plus));
        let scale = _mm512_mul_ps(weights.scale[0], _mm512_set1_ps(SHIFT));
        Unpacked512 { codes, scale: [scale; 4], ..weights }
    }
}

/// The heads of eight groups.
///
/// # Safety
/// `at` is a block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn heads(at: *const u8) -> __m512i {
    // SAFETY: the last 16 of a block's 50 bytes.
    unsafe { _mm512_cvtepu16_epi64(_mm_loadu_si128(at.add(34).cast())) }
}

/// `8·(code + 1) ± 1` for the codes `v + 1`, plus where a bit is set for the 64 bits that they are
/// in; shared with IQ1_M.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn shifted(codes: __m512i, plus: u8) -> __m512i {
    const PLUS: i32 = i32::from_le_bytes([9, 17, 25, 0]);
    const MINUS: i32 = i32::from_le_bytes([7, 15, 23, 0]);
    // The second half of 128 bits has the second half of a table.
    let odd = _mm512_mask_blend_epi64(0xAA, _mm512_setzero_si512(), _mm512_set1_epi8(8));
    let table = _mm512_mask_mov_epi64(_mm512_set1_epi32(MINUS), plus, _mm512_set1_epi32(PLUS));
    _mm512_shuffle_epi8(table, _mm512_or_si512(codes, odd))
}
