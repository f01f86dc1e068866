//! IQ3_S on AVX2: magnitudes from the grid, signs apart.

use std::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm256_add_ps, _mm256_and_si256, _mm256_cmpeq_epi16,
    _mm256_cvtepi32_ps, _mm256_cvtepu8_epi16, _mm256_fmadd_ps, _mm256_loadu_si256, _mm256_or_si256,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32, _mm256_setzero_ps,
    _mm256_sllv_epi32, _mm256_srlv_epi32, _mm256_storeu_si256,
};

use super::BYTES;
use super::tables::GRID;
use crate::isa::avx2::shuffle256::{by_32, f16, short_vectors, signs};
use crate::isa::avx2::{Codes256, Unpacked256};

/// IQ3_S's codes.
pub(super) struct Iq3S;

// SAFETY: reads 110 bytes; magnitudes are at most 15.
unsafe impl Codes256 for Iq3S {
    const BYTES: usize = BYTES;
    const LARGEST: u8 = 15;
    const GROUP: usize = 32;
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
        // SAFETY: 64 indices at byte 2.
        let indices = unsafe { indices(at.add(2), high) };
        // SAFETY: they have nine bits, as many as the grid's. A volatile read keeps them in memory:
        // a load costs less than taking a number out of a register.
        let vector = |i: usize| unsafe {
            *GRID.get_unchecked(usize::from(indices.as_ptr().add(i).read_volatile()))
        };
        let shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
        let s = _mm256_srlv_epi32(_mm256_set1_epi32(scales), shifts);
        let s = _mm256_cvtepi32_ps(_mm256_and_si256(s, _mm256_set1_epi32(15)));
        let d = _mm256_set1_ps(d);
        Unpacked256 {
            codes: short_vectors(vector),
            signs: signs(words),
            scale: by_32(_mm256_fmadd_ps(s, _mm256_add_ps(d, d), d)),
            min: [_mm256_setzero_ps(); 2],
        }
    }
}

/// The 64 indices: eight bits at `at`, the ninth in `high`.
///
/// # Safety
/// 64 bytes at `at` are readable; the CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn indices(at: *const u8, high: u64) -> [u16; 64] {
    let mut indices = [0; 64];
    let bits = _mm256_sllv_epi32(
        _mm256_set1_epi32(0x0002_0001),
        _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14),
    );
    for i in 0..4 {
        let ninth = _mm256_and_si256(_mm256_set1_epi16((high >> (16 * i)) as i16), bits);
        let ninth = _mm256_and_si256(_mm256_cmpeq_epi16(ninth, bits), _mm256_set1_epi16(256));
        // SAFETY: 16 bytes by contract; room for 16 indices.
        unsafe {
            let low = _mm256_cvtepu8_epi16(_mm_loadu_si128(at.add(16 * i).cast()));
            let place = indices.as_mut_ptr().add(16 * i);
            _mm256_storeu_si256(place.cast(), _mm256_or_si256(low, ninth));
        }
    }
    indices
}
