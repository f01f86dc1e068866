//! TQ1_0 on AVX-512.

use std::arch::x86_64::{_mm512_loadu_si512, _mm512_set1_ps};

use super::BYTES;
use crate::isa::avx512::{Codes512, Indices, Unpacked512};
use crate::isa::map_lanes;
use crate::isa::shuffle512::f16_one;
use crate::isa::{NATURAL, Order};

/// TQ1_0's codes.
pub(super) struct Tq10;

/// `TRITS` trits of each of `N` bytes, trit by trit; loops that the compiler makes wide.
#[inline(always)]
fn part<const N: usize, const TRITS: u32>(bytes: &[u8], out: &mut [u8]) {
    for (t, out) in (0..TRITS).zip(out.chunks_exact_mut(N)) {
        for (out, byte) in out.iter_mut().zip(bytes) {
            *out = ((u16::from(byte.wrapping_mul(3u8.pow(t))) * 3) >> 8) as u8;
        }
    }
}

// SAFETY: reads 52 bytes of trits and the factor.
unsafe impl Codes512 for Tq10 {
    const BYTES: usize = BYTES;
    const ORDER: &'static Order = &NATURAL;
    const GROUP: usize = 32;
    const OFFSET: Option<u32> = Some(0);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8, _: &Indices) -> Unpacked512 {
        let mut trits = [0u8; 256];
        // SAFETY: inside the block's 54 bytes.
        let (bytes, d) = unsafe { (at.cast::<[u8; 52]>().read(), f16_one(at.add(52))) };
        part::<32, 5>(&bytes[..32], &mut trits[..160]);
        part::<16, 5>(&bytes[32..48], &mut trits[160..240]);
        part::<4, 4>(&bytes[48..], &mut trits[240..]);
        let codes = map_lanes!([0, 64, 128, 192], |i| {
            // SAFETY: 64 bytes of the slice's, whose index is checked.
            unsafe { _mm512_loadu_si512(trits[i..].as_ptr().cast()) }
        });
        Unpacked512 { codes, scale: [_mm512_set1_ps(d); 4], min: _mm512_set1_ps(-d) }
    }
}
