//! Q4_1 on AVX-512.

use super::BYTES;
use crate::isa::avx512::{Codes512, Indices, Unpacked512};
use crate::isa::map_lanes;
use crate::isa::shuffle512::{by_lane, f16_strided, nibbles, twice};
use crate::isa::{NATURAL, Order};

/// Q4_1's codes.
pub(super) struct Q41;

// SAFETY: reads eight blocks of scale, minimum and 16 bytes of codes.
unsafe impl Codes512 for Q41 {
    const BYTES: usize = 8 * BYTES;
    const ORDER: &'static Order = &NATURAL;
    const GROUP: usize = 32;
    const OFFSET: Option<u32> = None;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8, _: &Indices) -> Unpacked512 {
        // SAFETY: inside the eight blocks.
        let (d, m) = unsafe { (f16_strided::<BYTES>(at), f16_strided::<BYTES>(at.add(2))) };
        // SAFETY: as above.
        let block = |b: usize| unsafe { at.add(b * BYTES + 4) };
        // SAFETY: as above.
        let codes = map_lanes!([0, 2, 4, 6], |b| unsafe { nibbles(block(b), block(b + 1)) });
        Unpacked512 { codes, scale: by_lane(twice(d)), min: twice(m) }
    }
}
