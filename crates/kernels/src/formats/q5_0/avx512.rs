//! Q5_0 on AVX-512.

use std::arch::x86_64::{_mm512_mask_add_epi8, _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_ps};

use super::BYTES;
use crate::isa::avx512::{Codes512, Indices, Unpacked512};
use crate::isa::map_lanes;
use crate::isa::shuffle512::{by_lane, f16_strided, nibbles, twice};
use crate::isa::{NATURAL, Order};

/// Q5_0's codes.
pub(super) struct Q50;

// SAFETY: reads eight blocks of scale, 4 bytes of fifth bits and 16 bytes of codes.
unsafe impl Codes512 for Q50 {
    const BYTES: usize = 8 * BYTES;
    const ORDER: &'static Order = &NATURAL;
    const GROUP: usize = 32;
    const OFFSET: Option<u32> = Some(4);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8, _: &Indices) -> Unpacked512 {
        // SAFETY: inside the eight blocks.
        let d = unsafe { f16_strided::<BYTES>(at) };
        let codes = map_lanes!([0, 2, 4, 6], |b| {
            // SAFETY: as above.
            unsafe {
                let (first, second) = (at.add(b * BYTES + 2), at.add((b + 1) * BYTES + 2));
                let fifth = |block: *const u8| u64::from(block.cast::<u32>().read_unaligned());
                let low = nibbles(first.add(4), second.add(4));
                let bits = fifth(first) | fifth(second) << 32;
                _mm512_mask_add_epi8(low, bits, low, _mm512_set1_epi8(16))
            }
        });
        let d = twice(d);
        Unpacked512 { codes, scale: by_lane(d), min: _mm512_mul_ps(d, _mm512_set1_ps(-16.0)) }
    }
}
