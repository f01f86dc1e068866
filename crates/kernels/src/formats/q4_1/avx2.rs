//! Q4_1 on AVX2: eight blocks, transposed.

use std::arch::x86_64::_mm256_setzero_si256;

use super::BYTES;
use crate::isa::avx2::shuffle256::{by_32, eight_f16, nibbles, twice};
use crate::isa::avx2::{Codes256, Unpacked256};

/// Q4_1's codes.
pub(super) struct Q41;

// SAFETY: reads 8 blocks; codes have 4 bits.
unsafe impl Codes256 for Q41 {
    const BYTES: usize = 8 * BYTES;
    const LARGEST: u8 = 15;
    const GROUP: usize = 32;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(at: *const u8) -> Unpacked256 {
        // SAFETY: inside the 8 blocks.
        let (codes, d, m) = unsafe {
            let codes = nibbles(at.add(4), BYTES);
            (codes, eight_f16(at, BYTES), eight_f16(at.add(2), BYTES))
        };
        Unpacked256 { codes, signs: [_mm256_setzero_si256(); 8], scale: by_32(d), min: twice(m) }
    }
}
