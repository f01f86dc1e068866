//! Q4_K on AVX2.
//!
//! The groups of a half are the low and high nibbles of two runs: one shuffle puts the runs side by
//! side, one shift with a count per lane takes the nibbles.

use std::arch::x86_64::{
    __m256, __m256i, _mm_cvtsi64_si128, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32,
    _mm256_loadu_si256, _mm256_mul_ps, _mm256_set1_ps, _mm256_setzero_si256,
};

use super::BYTES;
use crate::isa::avx2::shuffle256::{by_32, f16, fields, join, pairs, twice};
use crate::isa::avx2::{Codes256, Unpacked256};

/// Q4_K's codes.
pub(super) struct Q4K;

// SAFETY: reads 16 bytes of header and 128 bytes of codes; codes have 4 bits.
unsafe impl Codes256 for Q4K {
    const BYTES: usize = BYTES;
    const LARGEST: u8 = 15;
    const GROUP: usize = 32;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(at: *const u8) -> Unpacked256 {
        // SAFETY: inside the block's 144 bytes.
        let (codes, (scale, min)) = unsafe { (nibbles(at.add(16)), scales(at)) };
        let [a, b] = codes;
        Unpacked256 { codes: join(a, b), signs: [_mm256_setzero_si256(); 8], scale, min }
    }
}

/// The two halves of 4-bit codes in four runs of 32 bytes; shared with Q5_K.
///
/// # Safety
/// 128 bytes at `at` are readable; the CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn nibbles(at: *const u8) -> [[__m256i; 4]; 2] {
    // SAFETY: by contract.
    let run = |i: usize| unsafe { _mm256_loadu_si256(at.add(32 * i).cast::<__m256i>()) };
    let shifts = [0, 4, 0, 4];
    [fields(pairs(run(0), run(1)), shifts, 15), fields(pairs(run(2), run(3)), shifts, 15)]
}

/// Scales by lane and minima by group of 16; shared with Q5_K.
///
/// # Safety
/// 16 bytes at `at` are readable; the CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn scales(at: *const u8) -> ([__m256; 2], [__m256; 2]) {
    // SAFETY: the header is 16 bytes.
    let (d, m, [a, b, c]) =
        unsafe { (f16(at), f16(at.add(2)), at.add(4).cast::<[u32; 3]>().read_unaligned()) };
    let six = 0x3f3f_3f3f;
    let scales = u64::from(a & six) | u64::from(c & 0x0f0f_0f0f | a >> 2 & 0x3030_3030) << 32;
    let minima = u64::from(b & six) | u64::from(c >> 4 & 0x0f0f_0f0f | b >> 2 & 0x3030_3030) << 32;
    let floats = |bytes: u64, factor: f32| {
        let wide = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bytes.cast_signed()));
        _mm256_mul_ps(_mm256_cvtepi32_ps(wide), _mm256_set1_ps(factor))
    };
    (by_32(floats(scales, d)), twice(floats(minima, -m)))
}
