//! TQ1_0 on AVX2: trit by trit in natural order, then transposed.
//!
//! Threefold bytes wrap, which drops the trits already taken; the next is how often three times the
//! rest exceeds a byte.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_loadu_si128, _mm256_add_epi8, _mm256_blend_epi32,
    _mm256_broadcastsi128_si256, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_max_epu8,
    _mm256_set1_epi8, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256, _mm256_sub_epi8,
};

use super::BYTES;
use crate::isa::avx2::shuffle256::{f16, join, transpose};
use crate::isa::avx2::{Codes256, Unpacked256};

/// TQ1_0's codes.
pub(super) struct Tq10;

// SAFETY: reads 54 bytes; a trit is at most 2.
unsafe impl Codes256 for Tq10 {
    const BYTES: usize = BYTES;
    const LARGEST: u8 = 2;
    const GROUP: usize = 32;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(at: *const u8) -> Unpacked256 {
        // SAFETY: inside the block's 54 bytes.
        let (a, b, c, d) = unsafe {
            (
                _mm256_loadu_si256(at.cast::<__m256i>()),
                _mm_loadu_si128(at.add(32).cast::<__m128i>()),
                at.add(48).cast::<i32>().read_unaligned(),
                f16(at.add(52)),
            )
        };
        let a3 = triple(a);
        let a9 = triple(a3);
        let a27 = triple(a9);
        // The trits 0 and 1 of `b`; twice tripled they are trits 2 and 3, then 4.
        let b01 = triple_high(_mm256_broadcastsi128_si256(b));
        let b23 = triple(triple(b01));
        let b4 = triple(triple(b23));
        let c0 = _mm256_set1_epi32(c);
        let c3 = triple(c0);
        let c9 = triple(c3);
        let c = _mm256_blend_epi32::<0b1010_0000>(
            _mm256_blend_epi32::<0b0100_0000>(c0, c9),
            _mm256_blend_epi32::<0b1000_0000>(c3, triple(c9)),
        );
        let last = _mm256_blend_epi32::<0b1111_0000>(b4, c);
        let mut natural = [a, a3, a9, a27, triple(a27), b01, b23, last];
        for bytes in &mut natural {
            *bytes = trits(*bytes);
        }
        let [p, q, r, s, t, u, v, w] = natural;
        Unpacked256 {
            codes: join(transpose([p, q, r, s]), transpose([t, u, v, w])),
            signs: [_mm256_setzero_si256(); 8],
            scale: [_mm256_set1_ps(d); 2],
            min: [_mm256_set1_ps(-d); 2],
        }
    }
}

/// Bytes times three.
#[inline]
#[target_feature(enable = "avx2")]
fn triple(bytes: __m256i) -> __m256i {
    _mm256_add_epi8(_mm256_add_epi8(bytes, bytes), bytes)
}

/// Bytes of the high half times three.
#[inline]
#[target_feature(enable = "avx2")]
fn triple_high(bytes: __m256i) -> __m256i {
    _mm256_blend_epi32::<0b1111_0000>(bytes, triple(bytes))
}

/// The first trit of every byte: one if the byte is 86 or more, one more from 171 on.
#[inline]
#[target_feature(enable = "avx2")]
fn trits(bytes: __m256i) -> __m256i {
    let reaches = |least: u8| {
        let most = _mm256_max_epu8(bytes, _mm256_set1_epi8(least.cast_signed()));
        _mm256_cmpeq_epi8(most, bytes)
    };
    let negative = _mm256_add_epi8(reaches(86), reaches(171));
    _mm256_sub_epi8(_mm256_setzero_si256(), negative)
}
