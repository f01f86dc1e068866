//! NVFP4 on AVX-512.

use std::arch::x86_64::{
    _mm256_loadu_si256, _mm512_and_si512, _mm512_castsi256_si512, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_mul_ps, _mm512_permutexvar_epi64, _mm512_set_epi64,
    _mm512_set1_epi8, _mm512_set1_ps, _mm512_setr_epi64, _mm512_shuffle_epi8, _mm512_srlv_epi16,
};

use super::BYTES;
use super::half_scale;
use crate::formats::mxfp4::avx512::TABLE;
use crate::isa::avx512::{Codes512, Indices, Unpacked512};
use crate::isa::map_lanes;
use crate::isa::shuffle512::by_lane;
use crate::isa::{NATURAL, Order};

/// NVFP4's codes.
pub(super) struct Nvfp4;

/// A shift by 4 in each 16-bit lane.
const NIBBLE: i64 = 0x0004_0004_0004_0004;

// SAFETY: reads four blocks of 4 scales and 32 bytes of codes.
unsafe impl Codes512 for Nvfp4 {
    const BYTES: usize = 4 * BYTES;
    const ORDER: &'static Order = &NATURAL;
    const GROUP: usize = 16;
    const OFFSET: Option<u32> = Some(7);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8, _: &Indices) -> Unpacked512 {
        // SAFETY: inside the four blocks; the table has 64 bytes.
        let (block, levels) =
            unsafe { (|b: usize| at.add(b * BYTES), _mm512_loadu_si512(TABLE.as_ptr().cast())) };
        // SAFETY: as above.
        let d: [f32; 16] = std::array::from_fn(|g| half_scale(unsafe { *block(g / 4).add(g % 4) }));
        // SAFETY: 16 numbers.
        let d = unsafe { _mm512_loadu_ps(d.as_ptr()) };
        let codes = map_lanes!([0, 1, 2, 3], |b| {
            // Run by run: 8 bytes of low and high nibbles, twice.
            // SAFETY: as above.
            let runs = _mm512_permutexvar_epi64(
                _mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3),
                _mm512_castsi256_si512(unsafe { _mm256_loadu_si256(block(b).add(4).cast()) }),
            );
            let shift = _mm512_set_epi64(NIBBLE, 0, NIBBLE, 0, NIBBLE, 0, NIBBLE, 0);
            let codes = _mm512_and_si512(_mm512_srlv_epi16(runs, shift), _mm512_set1_epi8(15));
            _mm512_shuffle_epi8(levels, codes)
        });
        Unpacked512 { codes, scale: by_lane(d), min: _mm512_mul_ps(d, _mm512_set1_ps(-128.0)) }
    }
}
