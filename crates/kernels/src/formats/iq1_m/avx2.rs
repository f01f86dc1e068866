//! IQ1_M on AVX2.
//!
//! Eight weights share the sign of their shift but sixteen a scale, so codes count eighths:
//! `8·(v + 1) + 1 ± 1`, of which 9 are taken away by the minima.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _mm_loadu_si128, _mm_srli_epi16, _mm_unpackhi_epi8,
    _mm_unpacklo_epi8, _mm256_add_epi8, _mm256_add_ps, _mm256_and_si256, _mm256_cvtepi32_ps,
    _mm256_fmadd_ps, _mm256_set_m128i, _mm256_set1_epi8, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_setr_epi32, _mm256_setzero_si256, _mm256_slli_epi16, _mm256_srli_epi16,
    _mm256_srlv_epi32, _mm256_sub_epi8,
};

use super::BYTES;
use crate::formats::iq1_s::tables::GRID;
use crate::isa::avx2::shuffle256::{bias, by_16, eighths, half_f16, times, vectors};
use crate::isa::avx2::{Codes256, Unpacked256};

/// IQ1_M's codes.
pub(super) struct Iq1M;

// SAFETY: reads 56 bytes; codes are at most 18.
unsafe impl Codes256 for Iq1M {
    const BYTES: usize = BYTES;
    const LARGEST: u8 = 18;
    const GROUP: usize = 16;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(at: *const u8) -> Unpacked256 {
        // SAFETY: inside the block's 56 bytes.
        let (high, words) = unsafe {
            (
                _mm_loadu_si128(at.add(32).cast::<__m128i>()),
                at.add(48).cast::<u64>().read_unaligned(),
            )
        };
        let vector = |i: usize| {
            // SAFETY: 32 indices, 16 bytes of high nibbles.
            let (low, high) = unsafe { (*at.add(i), *at.add(32 + i / 2)) };
            GRID[usize::from(low) | usize::from(high >> (i % 2 * 4) & 7) << 8]
        };
        let mut codes = bias(vectors(vector));
        let shifts = eighths(shifts(high));
        for (r, code) in codes.iter_mut().enumerate() {
            *code = _mm256_add_epi8(_mm256_slli_epi16::<3>(*code), shifts[r / 2]);
        }
        let scales = scales(words);
        Unpacked256 {
            codes,
            signs: [_mm256_setzero_si256(); 8],
            scale: by_16(scales),
            min: times(scales, -9.0),
        }
    }
}

/// `1 ± 1` of the 32 vectors, from bit 3 of their nibbles.
#[inline]
#[target_feature(enable = "avx2")]
fn shifts(high: __m128i) -> __m256i {
    let odd = _mm_srli_epi16::<4>(high);
    let nibbles = _mm256_set_m128i(_mm_unpackhi_epi8(high, odd), _mm_unpacklo_epi8(high, odd));
    let negative = _mm256_and_si256(nibbles, _mm256_set1_epi8(8));
    _mm256_sub_epi8(_mm256_set1_epi8(2), _mm256_srli_epi16::<2>(negative))
}

/// `d·(2s + 1)/8` of the sixteen groups, from the four words of scales.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scales(words: u64) -> [__m256; 2] {
    let d = words >> 12 & 0xf | words >> 24 & 0xf0 | words >> 36 & 0xf00 | words >> 48 & 0xf000;
    let d = _mm256_set1_ps(half_f16(d as u16) * 0.125);
    // Two words hold three bits each for eight groups.
    let shifts = _mm256_setr_epi32(0, 3, 6, 9, 16, 19, 22, 25);
    let eight = |words: u64| {
        let s = _mm256_srlv_epi32(_mm256_set1_epi32(words as i32), shifts);
        let s = _mm256_cvtepi32_ps(_mm256_and_si256(s, _mm256_set1_epi32(7)));
        _mm256_fmadd_ps(s, _mm256_add_ps(d, d), d)
    };
    [eight(words), eight(words >> 32)]
}
