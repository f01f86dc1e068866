//! MXFP4 on AVX-512.

use std::arch::x86_64::{
    _mm256_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_ps, _mm512_shuffle_epi8,
};

use super::BYTES;
use super::{DOUBLED, half_scale};
use crate::formats::grid::avx512::levels_512;
use crate::isa::avx512::{Codes512, Indices, Unpacked512};
use crate::isa::map_lanes;
use crate::isa::shuffle512::{by_lane, nibbles, twice};
use crate::isa::{NATURAL, Order};

/// MXFP4's codes.
pub(super) struct Mxfp4;

/// The doubled levels, offset by 128; shared with NVFP4.
pub(crate) static TABLE: [u8; 64] = levels_512(&DOUBLED);

// SAFETY: reads eight blocks of exponent and 16 bytes of codes.
unsafe impl Codes512 for Mxfp4 {
    const BYTES: usize = 8 * BYTES;
    const ORDER: &'static Order = &NATURAL;
    const GROUP: usize = 32;
    const OFFSET: Option<u32> = Some(7);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8, _: &Indices) -> Unpacked512 {
        // SAFETY: inside the eight blocks.
        let block = |b: usize| unsafe { at.add(b * BYTES) };
        // SAFETY: as above.
        let d: [f32; 8] = std::array::from_fn(|b| half_scale(unsafe { *block(b) }));
        // SAFETY: 8 numbers; the table has 64 bytes.
        let (d, levels) =
            unsafe { (_mm256_loadu_ps(d.as_ptr()), _mm512_loadu_si512(TABLE.as_ptr().cast())) };
        let d = twice(d);
        let codes = map_lanes!([0, 2, 4, 6], |b| {
            // SAFETY: as above.
            _mm512_shuffle_epi8(levels, unsafe { nibbles(block(b).add(1), block(b + 1).add(1)) })
        });
        Unpacked512 { codes, scale: by_lane(d), min: _mm512_mul_ps(d, _mm512_set1_ps(-128.0)) }
    }
}
