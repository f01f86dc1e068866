//! IQ2_S on AVX-512.

use std::arch::x86_64::{
    _mm_loadl_epi64, _mm256_loadu_si256, _mm512_cvtepu8_epi64, _mm512_cvtepu32_epi64,
    _mm512_fmadd_ps, _mm512_mul_ps, _mm512_set1_ps,
};

use super::BYTES;
use super::tables::CODES;
use crate::formats::grid::avx512::{
    indices_of, iq2_levels, load_up, nibble_scales, transpose_signs, two_streams, vectors,
};
use crate::isa::Order;
use crate::isa::avx512::{Codes512, Indices, Unpacked512};
use crate::isa::shuffle512::f16_one;

/// IQ2_S's codes.
pub(super) struct Iq2S;

/// Registers 0 and 1 hold the first 16 weights of each group of 32, 2 and 3 the others.
const ORDER: Order = vectors(2);

// SAFETY: reads the factor, 32 bytes of indices, 32 of signs, 8 of high bits and 8 of scales.
unsafe impl Codes512 for Iq2S {
    const BYTES: usize = BYTES;
    const ORDER: &'static Order = &ORDER;
    const GROUP: usize = 16;
    const OFFSET: Option<u32> = Some(7);
    const LOOKS_UP: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn indices(at: *const u8) -> Indices {
        // SAFETY: inside the block's 82 bytes.
        let (low, high) =
            unsafe { (_mm256_loadu_si256(at.add(2).cast()), _mm_loadl_epi64(at.add(66).cast())) };
        indices_of(low, _mm512_cvtepu8_epi64(high), 2, 0x300)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8, indices: &Indices) -> Unpacked512 {
        // SAFETY: inside the block's 82 bytes.
        let (d, signs) = unsafe { (f16_one(at), _mm256_loadu_si256(at.add(34).cast())) };
        // SAFETY: the tier has the instructions.
        let signs = unsafe { transpose_signs(_mm512_cvtepu32_epi64(signs)) };
        // SAFETY: 10 bits index 1024 vectors.
        let [a, b, c, e] = unsafe { load_up(&CODES, indices) };
        let codes = [
            iq2_levels(a, signs[0]),
            iq2_levels(b, signs[1]),
            iq2_levels(c, signs[2]),
            iq2_levels(e, signs[3]),
        ];
        // SAFETY: the last 8 bytes of the block.
        let s = unsafe { nibble_scales(at.add(74)) };
        let scale = _mm512_fmadd_ps(s, _mm512_set1_ps(d * 0.25), _mm512_set1_ps(d * 0.125));
        let min = _mm512_mul_ps(scale, _mm512_set1_ps(-128.0));
        Unpacked512 { codes, scale: two_streams(scale), min }
    }
}
