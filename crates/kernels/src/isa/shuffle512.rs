//! Shuffles and conversions that several formats share on AVX-512.

use std::arch::x86_64::{
    __m256, __m256i, __m512, __m512i, __mmask16, _mm_cvtph_ps, _mm_cvtsi32_si128, _mm_cvtss_f32,
    _mm_loadu_si128, _mm_movehdup_ps, _mm_setr_epi16, _mm256_broadcastsi128_si256, _mm256_cvtph_ps,
    _mm512_add_epi32, _mm512_and_si512, _mm512_castps256_ps512, _mm512_castsi256_si512,
    _mm512_cvtepi32_epi16, _mm512_inserti64x4, _mm512_maskz_cvtph_ps, _mm512_permutex2var_epi64,
    _mm512_permutexvar_ps, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_setr_epi32,
    _mm512_setr_epi64, _mm512_setzero_si512, _mm512_srli_epi32, _mm512_srlv_epi16,
    _mm512_srlv_epi32, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32,
    _mm512_unpacklo_epi64,
};

/// The two f16 at `at`, as f32.
///
/// # Safety
/// 4 bytes at `at` are readable; the CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,f16c")]
pub(crate) unsafe fn f16_pair(at: *const u8) -> [f32; 2] {
    // SAFETY: 4 bytes by contract.
    let pair = _mm_cvtph_ps(_mm_cvtsi32_si128(unsafe { at.cast::<i32>().read_unaligned() }));
    [_mm_cvtss_f32(pair), _mm_cvtss_f32(_mm_movehdup_ps(pair))]
}

/// The f16 at `at`, as f32.
///
/// # Safety
/// 2 bytes at `at` are readable; the CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,f16c")]
pub(crate) unsafe fn f16_one(at: *const u8) -> f32 {
    // SAFETY: 2 bytes by contract.
    let bits = unsafe { at.cast::<u16>().read_unaligned() };
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits))))
}

/// Eight f16, `STRIDE` bytes apart, as f32.
///
/// # Safety
/// 2 bytes at each are readable; the CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2,f16c")]
pub(crate) unsafe fn f16_strided<const STRIDE: usize>(at: *const u8) -> __m256 {
    // SAFETY: 2 bytes by contract. As in `load_up`, gathering takes longer.
    let bits = |i: usize| unsafe { at.add(i * STRIDE).cast::<i16>().read_unaligned() };
    let [a, b, c, d] = [bits(0), bits(1), bits(2), bits(3)];
    _mm256_cvtph_ps(_mm_setr_epi16(a, b, c, d, bits(4), bits(5), bits(6), bits(7)))
}

/// Eight numbers, one for 32 weights each, as sixteen, one for 16 weights each.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn twice(x: __m256) -> __m512 {
    let index = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    _mm512_permutexvar_ps(index, _mm512_castps256_ps512(x))
}

/// Sixteen scales, one for 16 weights each, by lane of the four streams of [`NATURAL`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn by_lane(scale: __m512) -> [__m512; 4] {
    let first = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    map_lanes!([0, 4, 8, 12], |from| _mm512_permutexvar_ps(
        _mm512_add_epi32(first, _mm512_set1_epi32(from)),
        scale
    ))
}

/// Turns 4 rows of 4 numbers of 32 bits into 4 columns in each 128-bit lane.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn transpose_4x4([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (first, second) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
    let (third, fourth) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(first, second),
        _mm512_unpackhi_epi64(first, second),
        _mm512_unpacklo_epi64(third, fourth),
        _mm512_unpackhi_epi64(third, fourth),
    ]
}

/// Byte `index` of every 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn byte_of(quads: __m512i, index: usize) -> __m512i {
    let shift = _mm512_set1_epi32(8 * index as i32);
    _mm512_and_si512(_mm512_srlv_epi32(quads, shift), _mm512_set1_epi32(0xff))
}

/// The f16 in the lower halves of every 32 bits, as f32; zero where `mask` is not set.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn f16_low(mask: __mmask16, halves: __m512i) -> __m512 {
    _mm512_maskz_cvtph_ps(mask, _mm512_cvtepi32_epi16(halves))
}

/// The f16 in the upper halves of every 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn f16_high(mask: __mmask16, halves: __m512i) -> __m512 {
    f16_low(mask, _mm512_srli_epi32::<16>(halves))
}

/// Turns 16 rows of 16 numbers of 32 bits into 16 columns.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn transpose(mut a: [__m512i; 16]) -> [__m512i; 16] {
    let mut b = a;
    for rows in a.as_chunks_mut::<4>().0 {
        *rows = transpose_4x4(*rows);
    }
    // Now a[4·g + c] holds, in its 128-bit lane l, column 4·l + c of rows 4·g to 4·g + 3.
    let even = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    let odd = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    let low = _mm512_setr_epi64(0, 1, 2, 3, 8, 9, 10, 11);
    let high = _mm512_setr_epi64(4, 5, 6, 7, 12, 13, 14, 15);
    for c in 0..4 {
        let [g0, g1, g2, g3] = [a[c], a[4 + c], a[8 + c], a[12 + c]];
        let first = _mm512_permutex2var_epi64(g0, even, g1);
        let second = _mm512_permutex2var_epi64(g2, even, g3);
        let third = _mm512_permutex2var_epi64(g0, odd, g1);
        let fourth = _mm512_permutex2var_epi64(g2, odd, g3);
        b[c] = _mm512_permutex2var_epi64(first, low, second);
        b[4 + c] = _mm512_permutex2var_epi64(third, low, fourth);
        b[8 + c] = _mm512_permutex2var_epi64(first, high, second);
        b[12 + c] = _mm512_permutex2var_epi64(third, high, fourth);
    }
    b
}

/// The sum of all lanes of each of sixteen vectors.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn sums_of_lanes(a: [__m512i; 16]) -> __m512i {
    // Every step adds halves of two vectors, or of four, which are then in one.
    let low = _mm512_setr_epi64(0, 1, 2, 3, 8, 9, 10, 11);
    let high = _mm512_setr_epi64(4, 5, 6, 7, 12, 13, 14, 15);
    let even = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    let odd = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    let add = |a, index_a, b, index_b| {
        _mm512_add_epi32(
            _mm512_permutex2var_epi64(a, index_a, b),
            _mm512_permutex2var_epi64(a, index_b, b),
        )
    };
    // Vectors v and v + 8 in 256 bits each; then v, v + 4, v + 8 and v + 12 in 128 bits each.
    let mut halves = [_mm512_setzero_si512(); 8];
    for (v, half) in halves.iter_mut().enumerate() {
        *half = add(a[v], low, a[v + 8], high);
    }
    let quarter = |v: usize| add(halves[v], even, halves[v + 4], odd);
    let [first, second, third, fourth] =
        transpose_4x4([quarter(0), quarter(1), quarter(2), quarter(3)]);
    // Quarter q of each is of vectors 4 q to 4 q + 3.
    _mm512_add_epi32(_mm512_add_epi32(first, second), _mm512_add_epi32(third, fourth))
}

/// Two halves as one register.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn join(low: __m256i, high: __m256i) -> __m512i {
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

/// Sixteen bytes at `first` and at `second`, each as 16 low nibbles and then 16 high nibbles.
///
/// # Safety
/// They are readable; the CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
pub(crate) unsafe fn nibbles(first: *const u8, second: *const u8) -> __m512i {
    // SAFETY: 16 bytes each by contract.
    let (first, second) =
        unsafe { (_mm_loadu_si128(first.cast()), _mm_loadu_si128(second.cast())) };
    let bytes = join(_mm256_broadcastsi128_si256(first), _mm256_broadcastsi128_si256(second));
    let shift = _mm512_setr_epi64(0, 0, NIBBLE, NIBBLE, 0, 0, NIBBLE, NIBBLE);
    _mm512_and_si512(_mm512_srlv_epi16(bytes, shift), _mm512_set1_epi8(15))
}

/// A shift by 4 in each 16-bit lane.
const NIBBLE: i64 = 0x0004_0004_0004_0004;
