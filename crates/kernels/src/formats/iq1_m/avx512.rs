//! IQ1_M on AVX-512.

use std::arch::x86_64::{
    __m512i, _mm_cvtph_ps, _mm_cvtsi32_si128, _mm_cvtsi64_si128, _mm_cvtss_f32, _mm_loadu_si128,
    _mm256_cvtepu16_epi32, _mm256_loadu_si256, _mm512_add_epi32, _mm512_and_si512,
    _mm512_castsi128_si512, _mm512_cvtepi32_ps, _mm512_cvtepu16_epi64, _mm512_cvtepu32_epi64,
    _mm512_mul_ps, _mm512_permutexvar_epi16, _mm512_set1_epi32, _mm512_set1_epi64, _mm512_set1_ps,
    _mm512_setr_epi32, _mm512_srlv_epi32, _mm512_testn_epi64_mask,
};

use super::BYTES;
use crate::formats::grid::avx512::{indices_of, load_up, two_streams, vectors};
use crate::formats::iq1_s::{SHIFT, avx512::shifted, tables::CODES};
use crate::isa::Order;
use crate::isa::avx512::{Codes512, Indices, Unpacked512};

/// IQ1_M's codes.
pub(super) struct Iq1M;

/// Registers 0 and 1 hold the first 16 weights of each group of 32, 2 and 3 the others.
const ORDER: Order = vectors(2);

// SAFETY: reads 32 bytes of indices, 16 of high nibbles and 8 of scales.
unsafe impl Codes512 for Iq1M {
    const BYTES: usize = BYTES;
    const ORDER: &'static Order = &ORDER;
    const GROUP: usize = 16;
    const OFFSET: Option<u32> = Some(4);
    const LOOKS_UP: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn indices(at: *const u8) -> Indices {
        // SAFETY: inside the block's 56 bytes.
        let (low, high) =
            unsafe { (_mm256_loadu_si256(at.cast()), _mm_loadu_si128(at.add(32).cast())) };
        indices_of(low, _mm512_cvtepu16_epi64(high), 4, 0x700)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8, indices: &Indices) -> Unpacked512 {
        // SAFETY: inside the block's 56 bytes.
        let (high, scales) = unsafe {
            (
                _mm256_cvtepu16_epi32(_mm_loadu_si128(at.add(32).cast())),
                at.add(48).cast::<u64>().read_unaligned(),
            )
        };
        let d =
            scales >> 12 & 0xF | scales >> 24 & 0xF0 | scales >> 36 & 0xF00 | scales >> 48 & 0xF000;
        let d = _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(d as i32)));
        let groups = _mm512_cvtepu32_epi64(high);
        // SAFETY: 11 bits index 2048 vectors.
        let [a, b, c, e] = unsafe { load_up(&CODES, indices) };
        // Minus where bit 3 of the nibble is set.
        let code = |code: __m512i, w: i64| {
            shifted(code, _mm512_testn_epi64_mask(groups, _mm512_set1_epi64(8 << (4 * w))))
        };
        let codes = [code(a, 0), code(b, 1), code(c, 2), code(e, 3)];
        // Three bits for each group of 16, four to a word of 16.
        let words = _mm512_permutexvar_epi16(
            _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3),
            _mm512_castsi128_si512(_mm_cvtsi64_si128(scales.cast_signed())),
        );
        let shifts = _mm512_setr_epi32(0, 3, 6, 9, 0, 3, 6, 9, 0, 3, 6, 9, 0, 3, 6, 9);
        let s = _mm512_and_si512(_mm512_srlv_epi32(words, shifts), _mm512_set1_epi32(7));
        let s = _mm512_add_epi32(_mm512_add_epi32(s, s), _mm512_set1_epi32(1));
        let scale = _mm512_mul_ps(_mm512_cvtepi32_ps(s), _mm512_set1_ps(d * SHIFT));
        let min = _mm512_mul_ps(scale, _mm512_set1_ps(-16.0));
        Unpacked512 { codes, scale: two_streams(scale), min }
    }
}
