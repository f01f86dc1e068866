//! Q4_K on AVX-512.
//!
//! The four runs of 32 bytes are split into first and second halves, so that low and high nibbles
//! each give two registers with the same scales:
//! ```text
//! lanes          0-3      4-7      8-11     12-15
//! register 0, 1  group 0  group 2  group 4  group 6     low nibbles, first and second half
//! register 2, 3  group 1  group 3  group 5  group 7     high nibbles
//! ```

use std::arch::x86_64::{
    __m512, __m512i, _mm_cvtsi64_si128, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32, _mm256_mul_ps,
    _mm256_set1_ps, _mm512_and_si512, _mm512_castps256_ps512, _mm512_cvtepi32_ps,
    _mm512_loadu_si512, _mm512_mul_ps, _mm512_permutexvar_ps, _mm512_set1_epi8, _mm512_setr_epi32,
    _mm512_setzero_ps, _mm512_shuffle_i64x2, _mm512_srli_epi16, _mm512_srli_epi32, _mm512_sub_ps,
    _mm512_ternarylogic_epi64,
};

use super::BYTES;
use crate::isa::Order;
use crate::isa::avx512::panel::{Panel16, Rows16};
use crate::isa::avx512::{Codes512, Indices, Unpacked512};
use crate::isa::map_lanes;
use crate::isa::shuffle512::{byte_of, f16_high, f16_low, f16_pair};

/// Q4_K's codes.
pub(super) struct Q4K;

/// The order of registers drawn above; shared with Q5_K.
pub(crate) const ORDER: Order = Order { quads: quads(), chain: 2 };

const fn quads() -> [u8; 64] {
    let mut quads = [0; 64];
    let mut i = 0;
    while i < 64 {
        let (register, lane) = (i / 16, i % 16);
        quads[i] = (lane / 4 * 16 + register * 4 + lane % 4) as u8;
        i += 1;
    }
    quads
}

// SAFETY: reads 16 bytes of header and 128 bytes of codes.
unsafe impl Codes512 for Q4K {
    const BYTES: usize = BYTES;
    const ORDER: &'static Order = &ORDER;
    const GROUP: usize = 32;
    const OFFSET: Option<u32> = None;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8, _: &Indices) -> Unpacked512 {
        // SAFETY: inside the block's 144 bytes.
        let (first, second) = unsafe {
            (_mm512_loadu_si512(at.add(16).cast()), _mm512_loadu_si512(at.add(80).cast()))
        };
        let halves = [
            _mm512_shuffle_i64x2::<0b10_00_10_00>(first, second),
            _mm512_shuffle_i64x2::<0b11_01_11_01>(first, second),
        ];
        let nibble = _mm512_set1_epi8(15);
        let low = map_lanes!([halves[0], halves[1]], |h| _mm512_and_si512(h, nibble));
        let high = map_lanes!([halves[0], halves[1]], |h| _mm512_and_si512(
            _mm512_srli_epi16::<4>(h),
            nibble
        ));
        // SAFETY: as this function's.
        let (scale, min) = unsafe { scales(at) };
        Unpacked512 { codes: [low[0], low[1], high[0], high[1]], scale, min }
    }

    const HAS_X16: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack_x16(rows: &Rows16, _bytes: usize, to: Panel16) {
        let nibble = _mm512_set1_epi8(15);
        for half in 0..2 {
            // SAFETY: inside the blocks' 144 bytes; a block of codes has 64 quads.
            unsafe {
                for (i, bytes) in rows.quads_of_64(16 + half * 64).into_iter().enumerate() {
                    let quad = half * 32 + i / 8 * 16 + i % 8;
                    to.set_codes(quad, _mm512_and_si512(bytes, nibble));
                    let high = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), nibble);
                    to.set_codes(quad + 8, high);
                }
            }
        }
        // SAFETY: as this function's.
        unsafe { scales_x16(rows, to) };
    }
}

/// Scales and minima of sixteen rows; shared with Q5_K.
///
/// # Safety
/// As for [`Codes512::unpack_x16`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
pub(crate) unsafe fn scales_x16(rows: &Rows16, to: Panel16) {
    // SAFETY: the header is 16 bytes.
    let [factors, a, b, c] = unsafe { rows.quads_of_16(0) };
    let d = f16_low(rows.present, factors);
    let m = _mm512_sub_ps(_mm512_setzero_ps(), f16_high(rows.present, factors));
    let (six, four, two) = (_mm512_set1_epi8(0x3f), _mm512_set1_epi8(0x0f), _mm512_set1_epi8(0x30));
    // (low & four) | (high >> 2 & two)
    let join = |low: __m512i, high: __m512i| {
        let low = _mm512_and_si512(low, four);
        _mm512_ternarylogic_epi64::<0xF8>(low, _mm512_srli_epi32::<2>(high), two)
    };
    let scales = [_mm512_and_si512(a, six), join(c, a)];
    let minima = [_mm512_and_si512(b, six), join(_mm512_srli_epi32::<4>(c), b)];
    for (kind, (numbers, factor)) in [(scales, d), (minima, m)].into_iter().enumerate() {
        for (half, quads) in numbers.into_iter().enumerate() {
            for i in 0..4 {
                let number = _mm512_mul_ps(_mm512_cvtepi32_ps(byte_of(quads, i)), factor);
                // SAFETY: eight scales and as many minima.
                unsafe { to.set_factors(kind * 8 + half * 4 + i, number) };
            }
        }
    }
}

/// Scales for the two streams of [`ORDER`], and minima; shared with Q5_K.
///
/// # Safety
/// 16 bytes at `at` are readable; the CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
pub(crate) unsafe fn scales(at: *const u8) -> ([__m512; 4], __m512) {
    // SAFETY: the header is 16 bytes.
    let ([d, m], [a, b, c]) =
        unsafe { (f16_pair(at), at.add(4).cast::<[u32; 3]>().read_unaligned()) };
    let six = 0x3f3f_3f3f;
    let scales = u64::from(a & six) | u64::from(c & 0x0f0f_0f0f | a >> 2 & 0x3030_3030) << 32;
    let minima = u64::from(b & six) | u64::from(c >> 4 & 0x0f0f_0f0f | b >> 2 & 0x3030_3030) << 32;
    let floats = |bytes: u64, factor: f32| {
        let wide = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bytes.cast_signed()));
        _mm512_castps256_ps512(_mm256_mul_ps(_mm256_cvtepi32_ps(wide), _mm256_set1_ps(factor)))
    };
    let scale = floats(scales, d);
    let zero = _mm512_setzero_ps();
    let lanes = |table: __m512i, from: __m512| _mm512_permutexvar_ps(table, from);
    let even = _mm512_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6);
    let odd = _mm512_setr_epi32(1, 1, 1, 1, 3, 3, 3, 3, 5, 5, 5, 5, 7, 7, 7, 7);
    let twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    ([lanes(even, scale), lanes(odd, scale), zero, zero], lanes(twice, floats(minima, -m)))
}
