//! TQ2_0 on AVX-512.

use std::arch::x86_64::{
    _mm512_and_si512, _mm512_loadu_si512, _mm512_set1_epi8, _mm512_set1_ps, _mm512_srli_epi16,
};

use super::BYTES;
use crate::formats::q2_k::avx512::ORDER;
use crate::isa::Order;
use crate::isa::avx512::{Codes512, Indices, Unpacked512};
use crate::isa::shuffle512::f16_one;

/// TQ2_0's codes.
pub(super) struct Tq20;

// SAFETY: reads 64 bytes of codes and the factor.
unsafe impl Codes512 for Tq20 {
    const BYTES: usize = BYTES;
    const ORDER: &'static Order = &ORDER;
    const GROUP: usize = 32;
    const OFFSET: Option<u32> = Some(0);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8, _: &Indices) -> Unpacked512 {
        // SAFETY: inside the block's 66 bytes.
        let (bytes, d) = unsafe { (_mm512_loadu_si512(at.cast()), f16_one(at.add(64))) };
        let (pair, scale) = (_mm512_set1_epi8(3), _mm512_set1_ps(d));
        let codes = [
            _mm512_and_si512(bytes, pair),
            _mm512_and_si512(_mm512_srli_epi16::<2>(bytes), pair),
            _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), pair),
            _mm512_and_si512(_mm512_srli_epi16::<6>(bytes), pair),
        ];
        Unpacked512 { codes, scale: [scale; 4], min: _mm512_set1_ps(-d) }
    }
}
