//! IQ2_XS on AVX-512.

use std::arch::x86_64::{
    _mm512_fmadd_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_multishift_epi64_epi8,
    _mm512_set1_epi64, _mm512_set1_ps,
};

use super::BYTES;
use super::tables::CODES;
use crate::formats::grid::avx512::{
    indices, iq2_levels, look_up, nibble_scales, signs_by_register, two_streams, vectors,
};
use crate::isa::Order;
use crate::isa::avx512::{Codes512, Indices, Unpacked512};
use crate::isa::shuffle512::f16_one;

/// IQ2_XS's codes.
pub(super) struct Iq2Xs;

/// Registers 0 and 1 hold the first 16 weights of each group of 32, 2 and 3 the others.
const ORDER: Order = vectors(2);

// SAFETY: reads the factor, 64 bytes of vectors and 8 of scales.
unsafe impl Codes512 for Iq2Xs {
    const BYTES: usize = BYTES;
    const ORDER: &'static Order = &ORDER;
    const GROUP: usize = 16;
    const OFFSET: Option<u32> = Some(7);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8, _: &Indices) -> Unpacked512 {
        // SAFETY: inside the block's 74 bytes.
        let (d, groups) = unsafe { (f16_one(at), _mm512_loadu_si512(at.add(2).cast())) };
        let fields = _mm512_set1_epi64(0x0000_0000_3929_1909);
        // SAFETY: the tier has the instructions.
        let signs = unsafe { signs_by_register(_mm512_multishift_epi64_epi8(fields, groups)) };
        let index = indices(groups, [0, 16, 32, 48], [8, 24, 40, 56], 0x1FF);
        // SAFETY: 9 bits index 512 vectors.
        let [a, b, c, e] = unsafe { look_up(&CODES, index) };
        let codes = [
            iq2_levels(a, signs[0]),
            iq2_levels(b, signs[1]),
            iq2_levels(c, signs[2]),
            iq2_levels(e, signs[3]),
        ];
        // SAFETY: the last 8 bytes of the block.
        let s = unsafe { nibble_scales(at.add(66)) };
        let scale = _mm512_fmadd_ps(s, _mm512_set1_ps(d * 0.25), _mm512_set1_ps(d * 0.125));
        let min = _mm512_mul_ps(scale, _mm512_set1_ps(-128.0));
        Unpacked512 { codes, scale: two_streams(scale), min }
    }
}
