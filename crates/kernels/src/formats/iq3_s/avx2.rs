//! IQ3_S on AVX2: magnitudes from the grid, signs apart.

use std::arch::x86_64::{
    __m256i, _mm256_add_ps, _mm256_and_si256, _mm256_cvtepi32_ps, _mm256_fmadd_ps,
    _mm256_loadu_si256, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32, _mm256_setzero_ps,
    _mm256_srlv_epi32,
};

use super::BYTES;
use super::tables::GRID;
use crate::isa::avx2::lanes::{by_32, f16, signs, vectors};
use crate::isa::avx2::{Codes256, Unpacked256};

/// IQ3_S's codes.
pub(super) struct Iq3S;

// SAFETY: reads 110 bytes; magnitudes are at most 15.
unsafe impl Codes256 for Iq3S {
    const BYTES: usize = BYTES;
    const LARGEST: u8 = 15;
    const SIGNED: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(at: *const u8) -> Unpacked256 {
        // SAFETY: inside the block's 110 bytes.
        let (d, high, words, scales) = unsafe {
            (
                f16(at),
                at.add(66).cast::<u64>().read_unaligned(),
                _mm256_loadu_si256(at.add(74).cast::<__m256i>()),
                at.add(106).cast::<i32>().read_unaligned(),
            )
        };
        let four = |i: usize| {
            // SAFETY: 64 indices.
            let low = usize::from(unsafe { *at.add(2 + i) });
            u64::from(GRID[low | ((high >> i & 1) as usize) << 8])
        };
        let shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
        let s = _mm256_srlv_epi32(_mm256_set1_epi32(scales), shifts);
        let s = _mm256_cvtepi32_ps(_mm256_and_si256(s, _mm256_set1_epi32(15)));
        let d = _mm256_set1_ps(d);
        Unpacked256 {
            codes: vectors(|i| four(2 * i) | four(2 * i + 1) << 32),
            signs: signs(words),
            scale: by_32(_mm256_fmadd_ps(s, _mm256_add_ps(d, d), d)),
            min: [_mm256_setzero_ps(); 2],
        }
    }
}
