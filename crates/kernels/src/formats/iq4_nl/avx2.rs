//! IQ4_NL on AVX2: codes looked up, magnitudes and signs apart.

use std::arch::x86_64::_mm256_setzero_ps;

use super::{BYTES, LEVELS};
use crate::isa::avx2::shuffle256::{by_32, eight_f16, levels, magnitudes, nibbles};
use crate::isa::avx2::{Codes256, Unpacked256};

/// IQ4_NL's codes.
pub(super) struct Iq4Nl;

// SAFETY: reads 8 blocks of 18 bytes; no level is beyond 127.
unsafe impl Codes256 for Iq4Nl {
    const BYTES: usize = 8 * BYTES;
    const LARGEST: u8 = 127;
    const GROUP: usize = 32;
    const SIGNED: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(at: *const u8) -> Unpacked256 {
        // SAFETY: inside the 8 blocks.
        let (codes, d) = unsafe { (nibbles(at.add(2), BYTES), eight_f16(at, BYTES)) };
        let signs = levels(codes, &LEVELS);
        let min = [_mm256_setzero_ps(); 2];
        Unpacked256 { codes: magnitudes(signs), signs, scale: by_32(d), min }
    }
}
