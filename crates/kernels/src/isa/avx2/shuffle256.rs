//! The moves that bring codes and scales into the order of this tier ([`super::ORDER`]).
//!
//! In that order the lanes 0-3 of a half stand for its four groups of 32 weights, first 16, and the
//! lanes 4-7 for the same groups, last 16. Loads in the file's order have a group in a register;
//! every move here keeps to the halves of registers, where shuffles are cheap.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _mm_and_si128, _mm_cvtph_ps, _mm_cvtsi32_si128, _mm_cvtsi64_si128,
    _mm_cvtss_f32, _mm_loadu_si128, _mm_set1_epi8, _mm_setr_epi8, _mm_setr_epi16, _mm_srli_epi16,
    _mm_srli_si128, _mm_unpacklo_epi8, _mm256_abs_epi8, _mm256_add_epi8, _mm256_add_ps,
    _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_castps_si256, _mm256_castsi256_ps,
    _mm256_cmpeq_epi8, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32,
    _mm256_cvtph_ps, _mm256_loadu_si256, _mm256_mul_ps, _mm256_or_si256, _mm256_permute2f128_ps,
    _mm256_permute2x128_si256, _mm256_permutevar8x32_ps, _mm256_set_m128i, _mm256_set1_epi8,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32, _mm256_setr_epi64x, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_shuffle_ps, _mm256_slli_epi32, _mm256_srli_epi16,
    _mm256_srlv_epi32, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32,
    _mm256_unpacklo_epi64, _mm256_xor_si256,
};

/// The eight registers of two halves.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn join(a: [__m256i; 4], b: [__m256i; 4]) -> [__m256i; 8] {
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]
}

/// Four groups in natural order, a register each, as a half.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn transpose([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
    let (ab_high, cd_high) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(ab, cd),
        _mm256_unpackhi_epi64(ab, cd),
        _mm256_unpacklo_epi64(ab_high, cd_high),
        _mm256_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// Registers of a half whose groups are, lane by lane, in `a`, `a`, `b`, `b`.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn pairs(a: __m256i, b: __m256i) -> [__m256i; 4] {
    let (a, b) = (_mm256_castsi256_ps(a), _mm256_castsi256_ps(b));
    [
        _mm256_castps_si256(_mm256_shuffle_ps::<0b00_00_00_00>(a, b)),
        _mm256_castps_si256(_mm256_shuffle_ps::<0b01_01_01_01>(a, b)),
        _mm256_castps_si256(_mm256_shuffle_ps::<0b10_10_10_10>(a, b)),
        _mm256_castps_si256(_mm256_shuffle_ps::<0b11_11_11_11>(a, b)),
    ]
}

/// Registers of a half whose groups are, lane by lane, in `a`, `b`, `a`, `b`.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn turns(a: __m256i, b: __m256i) -> [__m256i; 4] {
    let (low, high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    [
        _mm256_unpacklo_epi64(low, low),
        _mm256_unpackhi_epi64(low, low),
        _mm256_unpacklo_epi64(high, high),
        _mm256_unpackhi_epi64(high, high),
    ]
}

/// In every byte of a half the bits of `mask`, after group `g`'s were shifted right by `shifts[g]`.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn fields(half: [__m256i; 4], shifts: [i32; 4], mask: i8) -> [__m256i; 4] {
    let [a, b, c, d] = shifts;
    let (shifts, mask) = (_mm256_setr_epi32(a, b, c, d, a, b, c, d), _mm256_set1_epi8(mask));
    let [p, q, r, s] = half;
    [
        _mm256_and_si256(_mm256_srlv_epi32(p, shifts), mask),
        _mm256_and_si256(_mm256_srlv_epi32(q, shifts), mask),
        _mm256_and_si256(_mm256_srlv_epi32(r, shifts), mask),
        _mm256_and_si256(_mm256_srlv_epi32(s, shifts), mask),
    ]
}

/// `low | high << SHIFT`, byte by byte; no bit may leave its byte.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn merge<const SHIFT: i32>(low: [__m256i; 4], high: [__m256i; 4]) -> [__m256i; 4] {
    [
        _mm256_or_si256(low[0], _mm256_slli_epi32::<SHIFT>(high[0])),
        _mm256_or_si256(low[1], _mm256_slli_epi32::<SHIFT>(high[1])),
        _mm256_or_si256(low[2], _mm256_slli_epi32::<SHIFT>(high[2])),
        _mm256_or_si256(low[3], _mm256_slli_epi32::<SHIFT>(high[3])),
    ]
}

/// Scales by lane from the scales of eight groups of 32 weights.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn by_32(scales: __m256) -> [__m256; 2] {
    [_mm256_permute2f128_ps::<0x00>(scales, scales), _mm256_permute2f128_ps::<0x11>(scales, scales)]
}

/// Scales by lane from the scales of sixteen groups of 16 weights.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn by_16([a, b]: [__m256; 2]) -> [__m256; 2] {
    let order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    [_mm256_permutevar8x32_ps(a, order), _mm256_permutevar8x32_ps(b, order)]
}

/// What holds for eight groups of 32 weights, for sixteen groups of 16.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn twice(groups: __m256) -> [__m256; 2] {
    [
        _mm256_permutevar8x32_ps(groups, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)),
        _mm256_permutevar8x32_ps(groups, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7)),
    ]
}

/// All 16 numbers times `factor`.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn times([a, b]: [__m256; 2], factor: f32) -> [__m256; 2] {
    let factor = _mm256_set1_ps(factor);
    [_mm256_mul_ps(a, factor), _mm256_mul_ps(b, factor)]
}

/// 16 unsigned bytes as floats.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn unsigned(bytes: __m128i) -> [__m256; 2] {
    let [low, high] = [bytes, _mm_srli_si128::<8>(bytes)];
    [_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(low)), _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(high))]
}

/// 16 signed bytes as floats.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn signed(bytes: __m128i) -> [__m256; 2] {
    let [low, high] = [bytes, _mm_srli_si128::<8>(bytes)];
    [_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(low)), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(high))]
}

/// The f16 at `at`, as f32.
///
/// # Safety
/// 2 bytes at `at` are readable; the CPU has F16C.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(crate) unsafe fn f16(at: *const u8) -> f32 {
    // SAFETY: 2 bytes by contract.
    half_f16(unsafe { at.cast::<u16>().read_unaligned() })
}

/// The f16 of these bits, as f32.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(crate) fn half_f16(bits: u16) -> f32 {
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits))))
}

/// Eight f16, `stride` bytes from one to the next, as f32.
///
/// # Safety
/// 2 bytes at each place are readable; the CPU has F16C.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(crate) unsafe fn eight_f16(at: *const u8, stride: usize) -> __m256 {
    // SAFETY: 2 bytes by contract.
    let bits = |i: usize| unsafe { at.add(i * stride).cast::<i16>().read_unaligned() };
    let [a, b, c, d] = [bits(0), bits(1), bits(2), bits(3)];
    _mm256_cvtph_ps(_mm_setr_epi16(a, b, c, d, bits(4), bits(5), bits(6), bits(7)))
}

/// Eight 4-byte words, `stride` bytes from one to the next.
///
/// # Safety
/// 4 bytes at each place are readable.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn eight_words(at: *const u8, stride: usize) -> __m256i {
    // SAFETY: 4 bytes by contract.
    let word = |i: usize| unsafe { at.add(i * stride).cast::<i32>().read_unaligned() };
    let [a, b, c, d] = [word(0), word(1), word(2), word(3)];
    _mm256_setr_epi32(a, b, c, d, word(4), word(5), word(6), word(7))
}

/// The words of eight runs of 16 bytes, the `i`th at `place(i)`: word `r` of runs 0-3 in the low
/// half of register `r`, of runs 4-7 in its high half.
///
/// # Safety
/// 16 bytes at each place are readable.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn runs(place: impl Fn(usize) -> *const u8) -> [__m256i; 4] {
    // SAFETY: 16 bytes by contract.
    let run = |i: usize| unsafe { _mm_loadu_si128(place(i).cast::<__m128i>()) };
    let both = |i: usize| _mm256_set_m128i(run(i + 4), run(i));
    transpose([both(0), both(1), both(2), both(3)])
}

/// 4-bit codes of eight groups of 32 weights, `stride` bytes from one to the next: in 16 bytes, the
/// first 16 weights in low nibbles and the last 16 in high nibbles.
///
/// # Safety
/// 16 bytes at each place are readable.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn nibbles(at: *const u8, stride: usize) -> [__m256i; 8] {
    // SAFETY: by contract.
    let words = unsafe { runs(|i| at.add(i * stride)) };
    let low = fields(words, [0; 4], 15);
    let high = fields(words, [4; 4], 15);
    across(low, high)
}

/// Registers whose first 16 weights of each group are in `first` and last 16 in `last`, both with
/// groups 0-3 in low halves and 4-7 in high halves.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn across(first: [__m256i; 4], last: [__m256i; 4]) -> [__m256i; 8] {
    let mut out = [_mm256_setzero_si256(); 8];
    for r in 0..4 {
        out[r] = _mm256_permute2x128_si256::<0x20>(first[r], last[r]);
        out[r + 4] = _mm256_permute2x128_si256::<0x31>(first[r], last[r]);
    }
    out
}

/// What `table` has for each 4-bit code.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn levels(mut codes: [__m256i; 8], table: &[i8; 16]) -> [__m256i; 8] {
    // SAFETY: a table has 16 bytes.
    let table = unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())) };
    for code in &mut codes {
        *code = _mm256_shuffle_epi8(table, *code);
    }
    codes
}

/// The magnitudes of signed bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn magnitudes(mut bytes: [__m256i; 8]) -> [__m256i; 8] {
    for byte in &mut bytes {
        *byte = _mm256_abs_epi8(*byte);
    }
    bytes
}

/// Byte `2h + r div 2` of the word of group `g`, in the four bytes of every lane of that group's
/// half `h` in register `r` (and in `r + 1`, so that there are four registers): what belongs to
/// eight weights, from eight words for 32 weights each.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn eighths(words: __m256i) -> [__m256i; 4] {
    let half = [
        _mm256_permute2x128_si256::<0x00>(words, words),
        _mm256_permute2x128_si256::<0x11>(words, words),
    ];
    // Lane `l` takes byte `l div 4 * 2` of word `l mod 4`, then the next.
    let first = _mm256_setr_epi32(
        0x0000_0000,
        0x0404_0404,
        0x0808_0808,
        0x0c0c_0c0c,
        0x0202_0202,
        0x0606_0606,
        0x0a0a_0a0a,
        0x0e0e_0e0e,
    );
    let next = _mm256_add_epi8(first, _mm256_set1_epi8(1));
    [
        _mm256_shuffle_epi8(half[0], first),
        _mm256_shuffle_epi8(half[0], next),
        _mm256_shuffle_epi8(half[1], first),
        _mm256_shuffle_epi8(half[1], next),
    ]
}

/// -1 where the bit of a weight is set, 0 elsewhere; word `g` has the bits of group `g`, the first
/// weight lowest.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn bits(words: __m256i) -> [__m256i; 8] {
    let eighths = eighths(words);
    let masks = [_mm256_set1_epi32(0x0804_0201), _mm256_set1_epi32(0x8040_2010_u32.cast_signed())];
    let mut out = [_mm256_setzero_si256(); 8];
    for (r, out) in out.iter_mut().enumerate() {
        let mask = masks[r % 2];
        *out = _mm256_cmpeq_epi8(_mm256_and_si256(eighths[r / 2], mask), mask);
    }
    out
}

/// The signs, 1 or -1, from words whose set bits mean negative weights.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn signs(words: __m256i) -> [__m256i; 8] {
    let mut signs = bits(words);
    for sign in &mut signs {
        *sign = _mm256_or_si256(*sign, _mm256_set1_epi8(1));
    }
    signs
}

/// Bytes of seven signs (bit 7 clear) with the eighth, which makes the number of set bits even.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn even(sevens: __m256i) -> __m256i {
    // Bit 7 of entry `i` is the parity of `i`.
    let table = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0,
    ));
    let folded = _mm256_xor_si256(sevens, _mm256_srli_epi16::<4>(sevens));
    let folded = _mm256_and_si256(folded, _mm256_set1_epi8(15));
    _mm256_or_si256(sevens, _mm256_shuffle_epi8(table, folded))
}

/// Bytes of seven signs from words that hold four times seven in their lower 28 bits.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn sevens(words: __m256i) -> __m256i {
    let byte = |words: __m256i, mask: i32| _mm256_and_si256(words, _mm256_set1_epi32(mask));
    let low = _mm256_or_si256(byte(words, 0x7f), byte(_mm256_slli_epi32::<1>(words), 0x7f00));
    let high = _mm256_or_si256(
        byte(_mm256_slli_epi32::<2>(words), 0x007f_0000),
        byte(_mm256_slli_epi32::<3>(words), 0x7f00_0000),
    );
    _mm256_or_si256(low, high)
}

/// Vectors of eight bytes: `vector(i)` are the weights from `8i` on, the first one lowest.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn vectors(vector: impl Fn(usize) -> u64) -> [__m256i; 8] {
    let mut out = [_mm256_setzero_si256(); 8];
    for half in 0..2 {
        for k in 0..2 {
            // Vectors `k` and `k + 2` of two groups each.
            let of = |i: usize| vector(half * 16 + i + k).cast_signed();
            let a = _mm256_setr_epi64x(of(0), of(4), of(2), of(6));
            let b = _mm256_setr_epi64x(of(8), of(12), of(10), of(14));
            let (a, b) = (_mm256_castsi256_ps(a), _mm256_castsi256_ps(b));
            let [first, last] = [
                _mm256_shuffle_ps::<0b10_00_10_00>(a, b),
                _mm256_shuffle_ps::<0b11_01_11_01>(a, b),
            ];
            out[half * 4 + k * 2] = _mm256_castps_si256(first);
            out[half * 4 + k * 2 + 1] = _mm256_castps_si256(last);
        }
    }
    out
}

/// 16 numbers from the low and high nibbles of 8 bytes, in turns.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn nibbles_in_turn(bytes: u64) -> __m128i {
    let bytes = _mm_cvtsi64_si128(bytes.cast_signed());
    let nibble = _mm_set1_epi8(15);
    _mm_unpacklo_epi8(
        _mm_and_si128(bytes, nibble),
        _mm_and_si128(_mm_srli_epi16::<4>(bytes), nibble),
    )
}

/// The two halves of 2-bit codes in two runs of 32 bytes: bits `2g`, `2g + 1` are those of group
/// `g`.
///
/// # Safety
/// 64 bytes at `at` are readable.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn pair_codes(at: *const u8) -> [[__m256i; 4]; 2] {
    // SAFETY: by contract.
    let run = |i: usize| unsafe { _mm256_loadu_si256(at.add(32 * i).cast::<__m256i>()) };
    let half = |run: __m256i| fields(pairs(run, run), [0, 2, 4, 6], 3);
    [half(run(0)), half(run(1))]
}

/// `factor · (s + 1/2)` for 16 bytes `s`.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn half_steps(bytes: __m128i, factor: f32) -> [__m256; 2] {
    let [a, b] = unsigned(bytes);
    let half = _mm256_set1_ps(0.5);
    times([_mm256_add_ps(a, half), _mm256_add_ps(b, half)], factor)
}

/// All bytes and one.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn bias(mut codes: [__m256i; 8]) -> [__m256i; 8] {
    for code in &mut codes {
        *code = _mm256_add_epi8(*code, _mm256_set1_epi8(1));
    }
    codes
}

/// Vectors of four bytes: `vector(i)` are the weights from `4i` on, the first one lowest.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn short_vectors(vector: impl Fn(usize) -> u32) -> [__m256i; 8] {
    let mut out = [_mm256_setzero_si256(); 8];
    for (r, out) in out.iter_mut().enumerate() {
        let of = |lane: usize| {
            let group = r / 4 * 4 + lane % 4;
            vector(group * 8 + lane / 4 * 4 + r % 4).cast_signed()
        };
        let [a, b, c, d] = [of(0), of(1), of(2), of(3)];
        *out = _mm256_setr_epi32(a, b, c, d, of(4), of(5), of(6), of(7));
    }
    out
}
