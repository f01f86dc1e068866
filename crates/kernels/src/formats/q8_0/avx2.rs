//! Q8_0 on AVX2: signed codes as they are.

use std::arch::x86_64::{__m256i, _mm256_abs_epi8, _mm256_loadu_si256, _mm256_setzero_ps};

use super::BYTES;
use crate::isa::avx2::shuffle256::{by_32, eight_f16, join, transpose};
use crate::isa::avx2::{Codes256, Unpacked256};

/// Q8_0's codes.
pub(super) struct Q80;

// SAFETY: reads 8 blocks of 34 bytes; the magnitude of a signed byte is at most 128.
unsafe impl Codes256 for Q80 {
    const BYTES: usize = 8 * BYTES;
    const LARGEST: u8 = 128;
    const GROUP: usize = 32;
    const SIGNED: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(at: *const u8) -> Unpacked256 {
        // SAFETY: 32 bytes of codes after each of 8 scales.
        let block =
            |i: usize| unsafe { _mm256_loadu_si256(at.add(i * BYTES + 2).cast::<__m256i>()) };
        let signs = join(
            transpose([block(0), block(1), block(2), block(3)]),
            transpose([block(4), block(5), block(6), block(7)]),
        );
        let mut codes = signs;
        for code in &mut codes {
            *code = _mm256_abs_epi8(*code);
        }
        // SAFETY: a scale starts each block.
        let scale = by_32(unsafe { eight_f16(at, BYTES) });
        Unpacked256 { codes, signs, scale, min: [_mm256_setzero_ps(); 2] }
    }
}
