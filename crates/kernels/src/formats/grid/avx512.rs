//! What the formats with codebooks share on AVX-512: grids looked up, signs applied.

use std::arch::x86_64::{
    __m256i, __m512, __m512i, _mm_and_si128, _mm_castpd_si128, _mm_castsi128_pd, _mm_loadh_pd,
    _mm_loadl_epi64, _mm_set_epi64x, _mm_set1_epi8, _mm_srli_epi16, _mm_unpacklo_epi8,
    _mm256_set_m128i, _mm512_and_si512, _mm512_broadcast_i32x4, _mm512_cvtepi32_ps,
    _mm512_cvtepu8_epi16, _mm512_cvtepu8_epi32, _mm512_loadu_si512, _mm512_mask_add_epi8,
    _mm512_mask_blend_epi16, _mm512_movehdup_ps, _mm512_moveldup_ps, _mm512_multishift_epi64_epi8,
    _mm512_or_si512, _mm512_permutex2var_epi8, _mm512_permutex2var_epi16, _mm512_permutexvar_epi8,
    _mm512_set1_epi8, _mm512_set1_epi16, _mm512_set1_epi64, _mm512_shuffle_epi8,
    _mm512_storeu_si512, _mm512_test_epi16_mask,
};

use super::{IQ2_LEVELS, even_signs};
use crate::isa::Order;
use crate::isa::avx512::Indices;
use crate::isa::map_lanes;
use crate::isa::shuffle512::join;

/// The order of formats that look up vectors of 8 weights, `CHAIN` registers to a scale: register
/// `w` holds vector `w` of each of the eight groups of 32 weights, so that eight indices are side
/// by side as they are needed.
pub(crate) const fn vectors(chain: usize) -> Order {
    let mut quads = [0; 64];
    let mut i = 0;
    while i < 64 {
        let (register, lane) = (i / 16, i % 16);
        quads[i] = (lane / 2 * 8 + register * 2 + lane % 2) as u8;
        i += 1;
    }
    Order { quads, chain }
}

/// Vectors of a grid as their 2-bit codes, one to a byte: register `w` has those of the vectors
/// whose indices are words `w` of the 64-bit lanes.
///
/// # Safety
/// Every index is below `N`; the CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(crate) unsafe fn look_up<const N: usize>(codes: &[u16; N], index: __m512i) -> [__m512i; 4] {
    // SAFETY: as this function's.
    spread(unsafe { permuted(codes, index) })
}

/// The words at 32 places of a table of 256 or 512, which is gone through 64 at a time.
///
/// # Safety
/// The CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn permuted<const N: usize>(table: &[u16; N], index: __m512i) -> __m512i {
    debug_assert!(N == 256 || N == 512, "{N} words");
    let bit = |bit: i16| _mm512_test_epi16_mask(index, _mm512_set1_epi16(bit));
    let (sixth, seventh) = (bit(64), bit(128));
    let mut parts = [index; 2];
    for (part, table) in parts.iter_mut().zip(table.chunks_exact(256)) {
        // SAFETY: 64 words from each of four places on are in the table.
        let words = map_lanes!([0, 64, 128, 192], |from| unsafe {
            let at = table.as_ptr().add(from);
            let (low, high) =
                (_mm512_loadu_si512(at.cast()), _mm512_loadu_si512(at.add(32).cast()));
            _mm512_permutex2var_epi16(low, index, high)
        });
        let low = _mm512_mask_blend_epi16(sixth, words[0], words[1]);
        let high = _mm512_mask_blend_epi16(sixth, words[2], words[3]);
        *part = _mm512_mask_blend_epi16(seventh, low, high);
    }
    if N == 256 { parts[0] } else { _mm512_mask_blend_epi16(bit(256), parts[0], parts[1]) }
}

/// [`look_up`] in a larger table, whose codes are one to a byte already. Loaded one by one: on some
/// processors (Zen 4 and 5) gathering takes longer.
///
/// # Safety
/// Every index is below `N`; the CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn load_up<const N: usize>(codes: &[u64; N], indices: &Indices) -> [__m512i; 4] {
    map_lanes!([0, 1, 2, 3], |w| {
        // SAFETY: indices are below `N` by contract.
        let at = |g: usize| unsafe {
            codes.as_ptr().add(usize::from((indices.0[g] >> (16 * w)) as u16))
        };
        let pair = |g: usize| {
            // SAFETY: two vectors of the table.
            let pair = unsafe {
                let low = _mm_loadl_epi64(at(g).cast());
                _mm_loadh_pd(_mm_castsi128_pd(low), at(g + 1).cast())
            };
            _mm_castpd_si128(pair)
        };
        join(_mm256_set_m128i(pair(2), pair(0)), _mm256_set_m128i(pair(6), pair(4)))
    })
}

/// Indices of 32 vectors: the bytes of `low` and, above each, those bits of the number of its group
/// of four in `high` that `mask` leaves, `step` bits further for each vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(crate) fn indices_of(low: __m256i, high: __m512i, step: i64, mask: i16) -> Indices {
    let fields = _mm512_set1_epi64((step << 24) | ((2 * step) << 40) | ((3 * step) << 56));
    let high = _mm512_multishift_epi64_epi8(fields, high);
    let high = _mm512_and_si512(high, _mm512_set1_epi16(mask));
    let indices = _mm512_or_si512(_mm512_cvtepu8_epi16(low), high);
    // SAFETY: both are 64 bytes.
    Indices(unsafe { std::mem::transmute::<__m512i, [u64; 8]>(indices) })
}

/// 2-bit codes of 32 words, one to a byte: register `w` has those of words `w` of the 64-bit lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512vbmi")]
fn spread(words: __m512i) -> [__m512i; 4] {
    let (two, fields) = (_mm512_set1_epi8(3), 0x0E0C_0A08_0604_0200);
    map_lanes!([0, 1, 2, 3], |word| {
        let fields = _mm512_set1_epi64(fields + word * 0x1010_1010_1010_1010);
        _mm512_and_si512(_mm512_multishift_epi64_epi8(fields, words), two)
    })
}

/// Indices of the four vectors of each of eight groups, side by side as words: the byte from bit
/// `low[w]` of the group on and, above it, those bits of the byte from bit `high[w]` on that `mask`
/// leaves.
#[inline]
#[target_feature(enable = "avx512f,avx512vbmi")]
pub(crate) fn indices(groups: __m512i, low: [i64; 4], high: [i64; 4], mask: i16) -> __m512i {
    let word = |w: usize| (low[w] | high[w] << 8) << (16 * w);
    let fields = word(0) | word(1) | word(2) | word(3);
    let indices = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(fields), groups);
    _mm512_and_si512(indices, _mm512_set1_epi16(mask))
}

/// `128 ± magnitude` of the IQ2 formats from 2-bit codes, minus where a bit is set.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn iq2_levels(codes: __m512i, signs: u64) -> __m512i {
    const TABLE: i64 = {
        let [a, b, c, _] = IQ2_LEVELS;
        let bytes = [128 + a, 128 + b, 128 + c, 0, 128 - a, 128 - b, 128 - c, 0];
        i64::from_le_bytes(bytes)
    };
    let four = _mm512_set1_epi8(4);
    let codes = _mm512_mask_add_epi8(codes, signs, codes, four);
    _mm512_shuffle_epi8(_mm512_set1_epi64(TABLE), codes)
}

/// Signs of 8 weights for each index of 7 bits: 128 bytes.
static SIGNS: [u8; 128] = {
    let mut table = [0; 128];
    let mut i = 0;
    while i < 128 {
        table[i] = even_signs(i as u8);
        i += 1;
    }
    table
};

/// Signs by register from indices of 7 bits: byte `w` of 64-bit lane `g` is the index for vector
/// `w` of group `g`; higher bits are ignored.
///
/// # Safety
/// The CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512vbmi")]
pub(crate) unsafe fn signs_by_register(indices: __m512i) -> [u64; 4] {
    // SAFETY: the table has 128 bytes.
    let (low, high) = unsafe {
        let table = SIGNS.as_ptr();
        (_mm512_loadu_si512(table.cast()), _mm512_loadu_si512(table.add(64).cast()))
    };
    // SAFETY: as this function's.
    unsafe { transpose_signs(_mm512_permutex2var_epi8(low, indices, high)) }
}

/// Brings byte `w` of 64-bit lane `g` to byte `g` of number `w`, for `w` below 4.
///
/// # Safety
/// The CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512vbmi")]
pub(crate) unsafe fn transpose_signs(bytes: __m512i) -> [u64; 4] {
    static INDEX: [u8; 64] = {
        let mut index = [0; 64];
        let mut i = 0;
        while i < 32 {
            index[i] = (i % 8 * 8 + i / 8) as u8;
            i += 1;
        }
        index
    };
    let mut signs = [0u64; 8];
    // SAFETY: both arrays are 64 bytes.
    unsafe {
        let index = _mm512_loadu_si512(INDEX.as_ptr().cast());
        _mm512_storeu_si512(signs.as_mut_ptr().cast(), _mm512_permutexvar_epi8(index, bytes));
    }
    [signs[0], signs[1], signs[2], signs[3]]
}

/// Sixteen scales by lane of the two streams of [`vectors`]`(2)`: even groups, then odd ones.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn two_streams(scale: __m512) -> [__m512; 4] {
    [_mm512_moveldup_ps(scale), _mm512_movehdup_ps(scale), scale, scale]
}

/// Sixteen nibbles as f32, the low one of each byte first.
///
/// # Safety
/// 8 bytes at `at` are readable; the CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn nibble_scales(at: *const u8) -> __m512 {
    // SAFETY: 8 bytes by contract.
    let bytes = unsafe { _mm_loadl_epi64(at.cast()) };
    let nibble = _mm_set1_epi8(15);
    let high = _mm_and_si128(_mm_srli_epi16::<4>(bytes), nibble);
    let nibbles = _mm_unpacklo_epi8(_mm_and_si128(bytes, nibble), high);
    _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(nibbles))
}

/// `128 ± level` of the IQ3 formats, minus where a bit is set: vectors of 4 weights are looked up
/// as 3-bit codes, and these in `levels`. `indices` have a word for each vector, `2w` and `2w + 1`
/// of a group for register `w`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(crate) fn look_up_iq3<const N: usize>(
    codes: &[u16; N],
    indices: [__m512i; 2],
    signs: [u64; 4],
    levels: &[u8; 8],
) -> [__m512i; 4] {
    let [plus, minus] =
        [levels.map(|level| 128 + level), levels.map(|level| 128 - level)].map(i64::from_le_bytes);
    let table = _mm512_broadcast_i32x4(_mm_set_epi64x(minus, plus));
    let (seven, eight) = (_mm512_set1_epi8(7), _mm512_set1_epi8(8));
    // SAFETY: the tier has the instructions, as this function's.
    let words = map_lanes!([indices[0], indices[1]], |index| unsafe { permuted(codes, index) });
    map_lanes!([0, 1, 2, 3], |register| {
        // The 3-bit fields of two words.
        let fields = 0x1916_1310_0906_0300 + register as i64 % 2 * 0x2020_2020_2020_2020;
        let spread = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(fields), words[register / 2]);
        let codes = _mm512_and_si512(spread, seven);
        let codes = _mm512_mask_add_epi8(codes, signs[register], codes, eight);
        _mm512_shuffle_epi8(table, codes)
    })
}

/// A table of 16 bytes for `vpshufb`, the same in every 128-bit lane, from levels offset by 128.
pub(crate) const fn levels_512(levels: &[i8; 16]) -> [u8; 64] {
    let mut table = [0; 64];
    let mut i = 0;
    while i < 64 {
        table[i] = (levels[i % 16] as i16 + 128) as u8;
        i += 1;
    }
    table
}
