//! TQ2_0 on AVX2: a half is a run of 32 bytes, its groups the bit pairs.

use std::arch::x86_64::{_mm256_set1_ps, _mm256_setzero_si256};

use super::BYTES;
use crate::isa::avx2::shuffle256::{f16, join, pair_codes};
use crate::isa::avx2::{Codes256, Unpacked256};

/// TQ2_0's codes.
pub(super) struct Tq20;

// SAFETY: reads 66 bytes; codes have 2 bits.
unsafe impl Codes256 for Tq20 {
    const BYTES: usize = BYTES;
    const LARGEST: u8 = 3;
    const GROUP: usize = 32;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(at: *const u8) -> Unpacked256 {
        // SAFETY: inside the block's 66 bytes.
        let ([a, b], d) = unsafe { (pair_codes(at), f16(at.add(64))) };
        Unpacked256 {
            codes: join(a, b),
            signs: [_mm256_setzero_si256(); 8],
            scale: [_mm256_set1_ps(d); 2],
            min: [_mm256_set1_ps(-d); 2],
        }
    }
}
