//! Q8_0 on AVX-512.

use std::arch::x86_64::{
    _mm256_loadu_si256, _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_ps, _mm512_xor_si512,
};

use super::{BYTES, LEN};
use crate::isa::avx512::panel::{Panel16, Rows16};
use crate::isa::avx512::{Codes512, Indices, Unpacked512};
use crate::isa::map_lanes;
use crate::isa::shuffle512::{by_lane, f16_strided, join, twice};
use crate::isa::{NATURAL, Order};

/// Q8_0's codes.
pub(super) struct Q80;

// SAFETY: reads eight blocks of scale and 32 codes.
unsafe impl Codes512 for Q80 {
    const BYTES: usize = 8 * BYTES;
    const ORDER: &'static Order = &NATURAL;
    const GROUP: usize = 32;
    const OFFSET: Option<u32> = Some(7);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8, _: &Indices) -> Unpacked512 {
        // SAFETY: inside the eight blocks.
        let (d, halves) = unsafe {
            (f16_strided::<BYTES>(at), |b: usize| _mm256_loadu_si256(at.add(b * BYTES + 2).cast()))
        };
        let d = twice(d);
        let offset = _mm512_set1_epi8(-128);
        // SAFETY: as above.
        let codes =
            map_lanes!([0, 2, 4, 6], |b| _mm512_xor_si512(join(halves(b), halves(b + 1)), offset));
        let min = _mm512_mul_ps(d, _mm512_set1_ps(-128.0));
        Unpacked512 { codes, scale: by_lane(d), min }
    }

    const HAS_X16: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack_x16(rows: &Rows16, bytes: usize, to: Panel16) {
        let offset = _mm512_set1_epi8(-128);
        for block in 0..bytes / BYTES {
            // SAFETY: inside the blocks that the rows have; there are scales for eight.
            unsafe {
                let codes = rows.quads_of_32(block * BYTES + 2);
                for (quad, codes) in codes.into_iter().enumerate() {
                    to.set_codes(block * LEN / 4 + quad, _mm512_xor_si512(codes, offset));
                }
                to.set_factors(block, rows.f16(block * BYTES));
            }
        }
    }
}
