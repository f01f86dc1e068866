//! IQ4_NL on AVX-512.

use std::arch::x86_64::{_mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_ps, _mm512_shuffle_epi8};

use super::BYTES;
use super::LEVELS;
use crate::formats::grid::avx512::levels_512;
use crate::isa::avx512::{Codes512, Indices, Unpacked512};
use crate::isa::map_lanes;
use crate::isa::shuffle512::{by_lane, f16_strided, nibbles, twice};
use crate::isa::{NATURAL, Order};

/// IQ4_NL's codes.
pub(super) struct Iq4Nl;

/// The levels, offset by 128.
pub(crate) static TABLE: [u8; 64] = levels_512(&LEVELS);

// SAFETY: reads eight blocks of scale and 16 bytes of codes.
unsafe impl Codes512 for Iq4Nl {
    const BYTES: usize = 8 * BYTES;
    const ORDER: &'static Order = &NATURAL;
    const GROUP: usize = 32;
    const OFFSET: Option<u32> = Some(7);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8, _: &Indices) -> Unpacked512 {
        // SAFETY: inside the eight blocks; the table has 64 bytes.
        let (d, levels) =
            unsafe { (f16_strided::<BYTES>(at), _mm512_loadu_si512(TABLE.as_ptr().cast())) };
        let d = twice(d);
        // SAFETY: as above.
        let block = |b: usize| unsafe { at.add(b * BYTES + 2) };
        let codes = map_lanes!([0, 2, 4, 6], |b| {
            // SAFETY: as above.
            _mm512_shuffle_epi8(levels, unsafe { nibbles(block(b), block(b + 1)) })
        });
        Unpacked512 { codes, scale: by_lane(d), min: _mm512_mul_ps(d, _mm512_set1_ps(-128.0)) }
    }
}
