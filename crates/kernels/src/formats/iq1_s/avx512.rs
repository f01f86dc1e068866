//! IQ1_S on AVX-512.

use std::arch::x86_64::{
    __m512i, _mm_loadu_si128, _mm256_and_si256, _mm256_cvtepi32_ps, _mm256_or_si256,
    _mm256_set1_epi32, _mm256_srli_epi32, _mm512_cvtepi64_epi32, _mm512_cvtepu16_epi64,
    _mm512_mask_blend_epi64, _mm512_mask_mov_epi64, _mm512_mul_ps, _mm512_or_si512,
    _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_epi64, _mm512_set1_ps, _mm512_setzero_si512,
    _mm512_shuffle_epi8, _mm512_testn_epi64_mask,
};

use super::BYTES;
use super::SHIFT;
use super::tables::CODES;
use crate::isa::Order;
use crate::isa::avx512::{Codes512, Unpacked512};
use crate::isa::each;
use crate::isa::moves512::{f16_one, indices_of, load_up, twice, vectors};

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

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8) -> Unpacked512 {
        // SAFETY: inside the block's 50 bytes.
        let (d, heads) =
            unsafe { (f16_one(at), _mm512_cvtepu16_epi64(_mm_loadu_si128(at.add(34).cast()))) };
        let groups = each!([0, 1, 2, 3, 4, 5, 6, 7], |g| {
            // SAFETY: inside the block.
            let (low, head) = unsafe {
                (
                    at.add(2 + 4 * g).cast::<u32>().read_unaligned(),
                    at.add(34 + 2 * g).cast::<u16>().read_unaligned(),
                )
            };
            indices_of(low, head.into(), 0x700)
        });
        // SAFETY: 11 bits index 2048 vectors.
        let codes = unsafe { load_up(&CODES, groups) };
        // Minus where bit 15 of the head is set.
        let plus = _mm512_testn_epi64_mask(heads, _mm512_set1_epi64(1 << 15));
        let codes = each!([codes[0], codes[1], codes[2], codes[3]], |code| shifted(code, plus));
        let s = _mm256_srli_epi32::<11>(_mm512_cvtepi64_epi32(heads));
        let s = _mm256_or_si256(_mm256_and_si256(s, _mm256_set1_epi32(14)), _mm256_set1_epi32(1));
        let s = twice(_mm256_cvtepi32_ps(s));
        let scale = _mm512_mul_ps(s, _mm512_set1_ps(d * SHIFT));
        let min = _mm512_mul_ps(scale, _mm512_set1_ps(-16.0));
        Unpacked512 { codes, scale: [scale; 4], min }
    }
}

/// `8·(code + 1) ± 1` for the codes `v + 1`, plus where a bit is set for the 64 bits that they are in; shared with
/// IQ1_M.
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
