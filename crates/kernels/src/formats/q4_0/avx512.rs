//! Q4_0 on AVX-512.

use std::arch::x86_64::{_mm512_mul_ps, _mm512_set1_ps};

use super::BYTES;
use crate::isa::avx512::{Codes512, Indices, Unpacked512};
use crate::isa::map_lanes;
use crate::isa::shuffle512::{by_lane, f16_strided, nibbles, twice};
use crate::isa::{NATURAL, Order};

/// Q4_0's codes.
pub(super) struct Q40;

// SAFETY: reads eight blocks of scale and 16 bytes of codes.
unsafe impl Codes512 for Q40 {
    const BYTES: usize = 8 * BYTES;
    const ORDER: &'static Order = &NATURAL;
    const GROUP: usize = 32;
    const OFFSET: Option<u32> = Some(3);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8, _: &Indices) -> Unpacked512 {
        // SAFETY: inside the eight blocks.
        let d = twice(unsafe { f16_strided::<BYTES>(at) });
        // SAFETY: as above.
        let block = |b: usize| unsafe { at.add(b * BYTES + 2) };
        // SAFETY: as above.
        let codes = map_lanes!([0, 2, 4, 6], |b| unsafe { nibbles(block(b), block(b + 1)) });
        Unpacked512 { codes, scale: by_lane(d), min: _mm512_mul_ps(d, _mm512_set1_ps(-8.0)) }
    }
}
