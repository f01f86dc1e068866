//! Q5_1 on AVX2: eight blocks, a bit of each code from the words of high bits.

use std::arch::x86_64::{
    _mm256_and_si256, _mm256_or_si256, _mm256_set1_epi8, _mm256_setzero_si256,
};

use super::BYTES;
use crate::isa::avx2::shuffle256::{bits, by_32, eight_f16, eight_words, nibbles, twice};
use crate::isa::avx2::{Codes256, Unpacked256};

/// Q5_1's codes.
pub(super) struct Q51;

// SAFETY: reads 8 blocks; codes have 5 bits.
unsafe impl Codes256 for Q51 {
    const BYTES: usize = 8 * BYTES;
    const LARGEST: u8 = 31;
    const GROUP: usize = 32;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(at: *const u8) -> Unpacked256 {
        // SAFETY: inside the 8 blocks.
        let (mut codes, d, m, high) = unsafe {
            let codes = nibbles(at.add(8), BYTES);
            (
                codes,
                eight_f16(at, BYTES),
                eight_f16(at.add(2), BYTES),
                eight_words(at.add(4), BYTES),
            )
        };
        for (code, bit) in codes.iter_mut().zip(bits(high)) {
            *code = _mm256_or_si256(*code, _mm256_and_si256(bit, _mm256_set1_epi8(16)));
        }
        Unpacked256 { codes, signs: [_mm256_setzero_si256(); 8], scale: by_32(d), min: twice(m) }
    }
}
