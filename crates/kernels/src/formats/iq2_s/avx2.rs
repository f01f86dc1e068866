//! IQ2_S on AVX2: magnitudes from the grid, signs apart.

use std::arch::x86_64::{__m256i, _mm256_loadu_si256, _mm256_setzero_ps};

use super::BYTES;
use super::tables::GRID;
use crate::isa::avx2::shuffle256::{by_16, f16, half_steps, nibbles_in_turn, signs, vectors};
use crate::isa::avx2::{Codes256, Unpacked256};

/// IQ2_S's codes.
pub(super) struct Iq2S;

// SAFETY: reads 82 bytes; magnitudes are at most 43.
unsafe impl Codes256 for Iq2S {
    const BYTES: usize = BYTES;
    const LARGEST: u8 = 43;
    const GROUP: usize = 16;
    const SIGNED: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(at: *const u8) -> Unpacked256 {
        // SAFETY: inside the block's 82 bytes.
        let (d, words, high, scales) = unsafe {
            (
                f16(at),
                _mm256_loadu_si256(at.add(34).cast::<__m256i>()),
                at.add(66).cast::<u64>().read_unaligned(),
                at.add(74).cast::<u64>().read_unaligned(),
            )
        };
        let vector = |i: usize| {
            // SAFETY: 32 indices.
            let low = usize::from(unsafe { *at.add(2 + i) });
            GRID[low | ((high >> (2 * i) & 3) as usize) << 8]
        };
        Unpacked256 {
            codes: vectors(vector),
            signs: signs(words),
            scale: by_16(half_steps(nibbles_in_turn(scales), d * 0.25)),
            min: [_mm256_setzero_ps(); 2],
        }
    }
}
