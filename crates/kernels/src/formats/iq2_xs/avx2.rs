//! IQ2_XS on AVX2: magnitudes from the grid, signs apart.

use std::arch::x86_64::{
    __m256i, _mm256_loadu_si256, _mm256_packus_epi16, _mm256_permute4x64_epi64, _mm256_setzero_ps,
    _mm256_srli_epi16,
};

use super::BYTES;
use super::tables::GRID;
use crate::isa::avx2::shuffle256::{by_16, even, f16, half_steps, nibbles_in_turn, signs, vectors};
use crate::isa::avx2::{Codes256, Unpacked256};

/// IQ2_XS's codes.
pub(super) struct Iq2Xs;

// SAFETY: reads 74 bytes; magnitudes are at most 43.
unsafe impl Codes256 for Iq2Xs {
    const BYTES: usize = BYTES;
    const LARGEST: u8 = 43;
    const GROUP: usize = 16;
    const SIGNED: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(at: *const u8) -> Unpacked256 {
        // SAFETY: inside the block's 74 bytes.
        let (d, first, last, scales) = unsafe {
            (
                f16(at),
                _mm256_loadu_si256(at.add(2).cast::<__m256i>()),
                _mm256_loadu_si256(at.add(34).cast::<__m256i>()),
                at.add(66).cast::<u64>().read_unaligned(),
            )
        };
        // SAFETY: 32 vectors.
        let vector = |i: usize| unsafe { at.add(2 + 2 * i).cast::<u16>().read_unaligned() };
        let sevens =
            _mm256_packus_epi16(_mm256_srli_epi16::<9>(first), _mm256_srli_epi16::<9>(last));
        // Packing goes half by half: quarters 0, 2, 1, 3.
        let sevens = _mm256_permute4x64_epi64::<0b11_01_10_00>(sevens);
        Unpacked256 {
            codes: vectors(|i| GRID[usize::from(vector(i) & 511)]),
            signs: signs(even(sevens)),
            scale: by_16(half_steps(nibbles_in_turn(scales), d * 0.25)),
            min: [_mm256_setzero_ps(); 2],
        }
    }
}
