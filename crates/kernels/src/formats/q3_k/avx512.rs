//! Q3_K on AVX-512.

use std::arch::x86_64::{
    __m512, __m512i, _mm_set1_epi8, _mm_setr_epi32, _mm_sub_epi8, _mm256_loadu_si256,
    _mm512_and_si512, _mm512_castsi256_si512, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps,
    _mm512_loadu_si512, _mm512_mul_ps, _mm512_multishift_epi64_epi8, _mm512_permutexvar_epi64,
    _mm512_permutexvar_ps, _mm512_rorv_epi32, _mm512_set1_epi8, _mm512_set1_epi16,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32, _mm512_setr_epi64, _mm512_slli_epi16,
    _mm512_srli_epi16, _mm512_srlv_epi16, _mm512_sub_epi32, _mm512_ternarylogic_epi64,
};

use super::BYTES;
use crate::isa::Order;
use crate::isa::avx512::panel::{Panel16, Rows16};
use crate::isa::avx512::{Codes512, Indices, Unpacked512};
use crate::isa::shuffle512::{byte_of, f16_high, f16_one};

/// Q3_K's codes.
pub(super) struct Q3K;

/// Where the third bit of each code stands, so that it comes to bit 2 of its byte: bit `4h + j` of
/// a byte for half `h` and code pair `j`, in quad 0 or 1 of a 64-bit lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn high_bits(quad: u64) -> __m512i {
    let quad_at =
        |k: u64| (0..4).fold(0u64, |c, b| c | ((quad * 32 + b * 8 + k + 62) % 64) << (b * 8));
    let pairs = |k: u64| (quad_at(k) | quad_at(k + 1) << 32).cast_signed();
    _mm512_setr_epi64(
        pairs(0),
        pairs(2),
        pairs(0),
        pairs(2),
        pairs(4),
        pairs(6),
        pairs(4),
        pairs(6),
    )
}

/// Lane `8h + 4c + j` of register `w` holds quad `w` of the 16 weights in half `h`, code pair `j`,
/// 16-byte run `c`: all registers share one vector of scales.
const ORDER: Order = Order { quads: quads(), chain: 4 };

const fn quads() -> [u8; 64] {
    let mut quads = [0; 64];
    let mut i = 0;
    while i < 64 {
        quads[i] = (group(i % 16) * 4 + i / 16) as u8;
        i += 1;
    }
    quads
}

/// The group of 16 weights in a lane.
const fn group(lane: usize) -> usize {
    lane / 8 * 8 + lane % 4 * 2 + lane / 4 % 2
}

/// Scales by group brought to the lanes of [`ORDER`].
#[inline]
#[target_feature(enable = "avx512f")]
fn one_stream(scale: __m512) -> [__m512; 4] {
    let lanes = _mm512_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    [_mm512_permutexvar_ps(lanes, scale), scale, scale, scale]
}

/// The 64 bytes of 2-bit codes at `at` in [`ORDER`], each code in the lowest bits of a byte.
///
/// # Safety
/// 64 bytes at `at` are readable; the CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
unsafe fn spread(at: *const u8) -> [__m512i; 4] {
    // SAFETY: 64 bytes by contract.
    let bytes = unsafe { _mm512_loadu_si512(at.cast()) };
    // 64-bit lane 2·run + p of a half holds quads 2p and 2p + 1 of a run: twice each, for two
    // pairs.
    let first = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 2, 2, 4, 4, 6, 6), bytes);
    let second = _mm512_permutexvar_epi64(_mm512_setr_epi64(1, 1, 3, 3, 5, 5, 7, 7), bytes);
    // The bytes of quad 0 or 1 of the lane, from bit 2j on.
    let bits = |quad: u64| {
        let quad_at = |j: u64| (0..4).fold(0, |c, b| c | (quad * 32 + b * 8 + 2 * j) << (b * 8));
        let pairs = |j: u64| (quad_at(j) | quad_at(j + 1) << 32).cast_signed();
        _mm512_setr_epi64(
            pairs(0),
            pairs(2),
            pairs(0),
            pairs(2),
            pairs(0),
            pairs(2),
            pairs(0),
            pairs(2),
        )
    };
    let (even, odd) = (bits(0), bits(1));
    [
        _mm512_multishift_epi64_epi8(even, first),
        _mm512_multishift_epi64_epi8(odd, first),
        _mm512_multishift_epi64_epi8(even, second),
        _mm512_multishift_epi64_epi8(odd, second),
    ]
}

// SAFETY: reads 32 bytes of high bits, 64 of codes, 12 of scales and the factor.
unsafe impl Codes512 for Q3K {
    const BYTES: usize = BYTES;
    const ORDER: &'static Order = &ORDER;
    const GROUP: usize = 16;
    const OFFSET: Option<u32> = Some(2);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack(at: *const u8, _: &Indices) -> Unpacked512 {
        // SAFETY: inside the block's 110 bytes.
        let (high, low, [a, b, c], d) = unsafe {
            (
                _mm512_castsi256_si512(_mm256_loadu_si256(at.cast())),
                spread(at.add(32)),
                at.add(96).cast::<[u32; 3]>().read_unaligned(),
                f16_one(at.add(108)),
            )
        };
        let first = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 2, 2, 0, 0, 2, 2), high);
        let second = _mm512_permutexvar_epi64(_mm512_setr_epi64(1, 1, 3, 3, 1, 1, 3, 3), high);
        let (even, odd) = (high_bits(0), high_bits(1));
        let (pair, four) = (_mm512_set1_epi8(3), _mm512_set1_epi8(4));
        let code = |low: __m512i, bits: __m512i, high: __m512i| {
            let high = _mm512_multishift_epi64_epi8(bits, high);
            _mm512_ternarylogic_epi64::<0xF8>(_mm512_and_si512(low, pair), high, four)
        };
        let codes = [
            code(low[0], even, first),
            code(low[1], odd, first),
            code(low[2], even, second),
            code(low[3], odd, second),
        ];
        let word =
            |low: u32, pairs: u32| (low & 0x0F0F_0F0F | (pairs & 0x0303_0303) << 4).cast_signed();
        let s =
            _mm_setr_epi32(word(a, c), word(b, c >> 2), word(a >> 4, c >> 4), word(b >> 4, c >> 6));
        let s = _mm512_cvtepi8_epi32(_mm_sub_epi8(s, _mm_set1_epi8(32)));
        let scale = _mm512_mul_ps(_mm512_cvtepi32_ps(s), _mm512_set1_ps(d));
        let min = _mm512_mul_ps(scale, _mm512_set1_ps(-4.0));
        Unpacked512 { codes, scale: one_stream(scale), min }
    }

    const HAS_X16: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
    unsafe fn unpack_x16(rows: &Rows16, _bytes: usize, to: Panel16) {
        let (pair, four) = (_mm512_set1_epi8(3), _mm512_set1_epi8(4));
        // SAFETY: inside the blocks' 110 bytes; a block has 64 quads of codes and 16 scales.
        unsafe {
            let high = [rows.quads_of_16(0), rows.quads_of_16(16)];
            for (i, bytes) in rows.quads_of_64(32).into_iter().enumerate() {
                let (half, i) = (i / 8, i % 8);
                for j in 0..4 {
                    let turn = _mm512_set1_epi32((half as i32 * 4 + j as i32 + 30) % 32);
                    let high = _mm512_rorv_epi32(high[i / 4][i % 4], turn);
                    let low = _mm512_srlv_epi16(bytes, _mm512_set1_epi16(2 * j as i16));
                    let low = _mm512_and_si512(low, pair);
                    let codes = _mm512_ternarylogic_epi64::<0xF8>(low, high, four);
                    to.set_codes(half * 32 + j * 8 + i, codes);
                }
            }
            let d = f16_high(rows.present, rows.quads_of_16(94)[3]);
            let [_, a, b, c] = rows.quads_of_16(92);
            let (nibble, two) = (_mm512_set1_epi8(15), _mm512_set1_epi8(0x30));
            // (low & 15) | ((pairs & 3) << 4), where they already are 4 bits further up.
            let word = |low: __m512i, pairs: __m512i| {
                _mm512_ternarylogic_epi64::<0xF8>(_mm512_and_si512(low, nibble), pairs, two)
            };
            let words = [
                word(a, _mm512_slli_epi16::<4>(c)),
                word(b, _mm512_slli_epi16::<2>(c)),
                word(_mm512_srli_epi16::<4>(a), c),
                word(_mm512_srli_epi16::<4>(b), _mm512_srli_epi16::<2>(c)),
            ];
            for (i, quads) in words.into_iter().enumerate() {
                for j in 0..4 {
                    let scale = _mm512_sub_epi32(byte_of(quads, j), _mm512_set1_epi32(32));
                    to.set_factors(i * 4 + j, _mm512_mul_ps(_mm512_cvtepi32_ps(scale), d));
                }
            }
        }
    }
}
