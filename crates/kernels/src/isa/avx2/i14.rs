//! Gemm on AVX2: weights and activations as 16-bit integers.
//!
//! `vpmaddwd` multiplies 16 pairs of such words and adds neighbours to 32 bits. Per instruction
//! that is half as many products as `vpmaddubsw` makes of bytes ([`super::i8`]), whose inputs are
//! 64 times coarser: words are for matrices that need more, and for formats whose codes fill a
//! byte. A run of 256 weights is unpacked once to words with a single scale, whatever scales and
//! minima its format has, and one kernel multiplies all: four rows times two tokens, in eight
//! registers of sums.
//!
//! Words of 14 bits leave room for what a lane adds up over a run: 32 products.

use std::arch::x86_64::{
    __m256, __m256i, _mm_add_ps, _mm_cvtss_f32, _mm_loadu_ps, _mm_max_ps, _mm_max_ss,
    _mm_movehdup_ps, _mm_movehl_ps, _mm_storeu_ps, _mm256_add_epi8, _mm256_add_epi16,
    _mm256_add_epi32, _mm256_andnot_ps, _mm256_castps256_ps128, _mm256_cvtepi32_ps,
    _mm256_cvtps_epi32, _mm256_div_ps, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_hadd_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_max_ps, _mm256_mul_ps, _mm256_mulhrs_epi16,
    _mm256_packs_epi32, _mm256_set_epi64x, _mm256_set1_epi8, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_sign_epi8, _mm256_slli_epi16,
    _mm256_storeu_si256, _mm256_unpackhi_epi8, _mm256_unpacklo_epi8,
};

use super::shuffle256::by_16;
use super::{Codes256, ORDER, Unpacked256};
use crate::isa::{BlockRange, Blocks, Order, Rows, Sums, TailBlock};

/// Largest magnitude of a word: `2 · 32 · LARGEST² < 2³²`.
pub(crate) const LARGEST: f32 = 8191.0;
/// Words of a run, which has one scale.
pub(crate) const RUN: usize = 256;
/// Words that an instruction takes.
const STEP: usize = 16;
/// Steps of a run.
const STEPS: usize = RUN / STEP;
/// Rows, and tokens, whose sums are in registers at a time.
const ROWS: usize = 4;
const TOKENS: usize = 2;

/// The order of words in a run: [`ORDER`], after bytes became words by unpacking.
pub(crate) static WORDS: Order = Order { quads: quads(), chain: 2 };

const fn quads() -> [u8; 64] {
    let mut quads = [0; 64];
    let mut i = 0;
    while i < 64 {
        // The lower halves of both 128-bit lanes come first.
        let lane = [0, 1, 4, 5, 2, 3, 6, 7][i % 8];
        quads[i] = ORDER.quads[i / 8 * 8 + lane];
        i += 1;
    }
    quads
}

/// A vector of words: `number = scale · word`, with a scale for each run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct I14Row {
    pub(crate) words: *const i16,
    pub(crate) scales: *const f32,
}

// SAFETY: two addresses; reading through them is unsafe and has its own reasons.
unsafe impl Send for I14Row {}

impl I14Row {
    /// The row from a block on.
    #[inline(always)]
    pub(crate) fn from(self, block: usize) -> Self {
        Self {
            words: self.words.wrapping_add(block * RUN),
            scales: self.scales.wrapping_add(block),
        }
    }
}

/// `count` rows of `runs` runs, one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct I14Rows {
    pub(crate) first: I14Row,
    pub(crate) runs: usize,
    pub(crate) count: usize,
}

/// `count` tokens, of as many runs, in any place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct I14Tokens<F> {
    pub(crate) row: F,
    pub(crate) count: usize,
}

/// Where unpacked rows are: `words[row][block][256]`, `scales[row][block]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct I14Panel {
    pub(crate) words: *mut i16,
    pub(crate) scales: *mut f32,
}

/// Unpacks blocks `range` of `rows` to words in the order [`WORDS`].
///
/// # Safety
/// As for [`crate::isa::Kernels256`]; the panel has room for every block.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn unpack<F: Codes256>(
    rows: Rows,
    blocks: Blocks,
    range: BlockRange,
    panel: I14Panel,
) {
    let mut padded = TailBlock::new();
    for r in 0..rows.count {
        for (i, b) in range.clone().enumerate() {
            // SAFETY: block `b` of the row is in bounds and the panel has room for every one.
            unsafe {
                let at = rows.start.add(r * rows.stride + b * F::BYTES);
                let unpacked = F::unpack(padded.pad(at, b, blocks));
                let to = r * range.len() + i;
                *panel.scales.add(to) = to_words::<F>(&unpacked, panel.words.add(to * RUN));
            }
        }
    }
}

/// Bits by which codes are biased, as bytes, for products to keep all of theirs.
const fn bias<F: Codes256>() -> i32 {
    if F::LARGEST > 127 { 0 } else { (127 / F::LARGEST).ilog2() as i32 }
}

/// Writes 256 weights as words, and returns their scale.
///
/// # Safety
/// There is room for [`RUN`] words; the CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn to_words<F: Codes256>(weights: &Unpacked256, out: *mut i16) -> f32 {
    let min = if F::SIGNED { [_mm256_setzero_ps(); 2] } else { by_16(weights.min) };
    let largest = largest(weights.scale, min, f32::from(F::LARGEST));
    // A code becomes `code << 8 + bias`; the rounded high half of its product with a factor is the
    // word.
    let unit = LARGEST * (1 << (7 - bias::<F>())) as f32;
    let zero = _mm256_setzero_si256();
    for (half, (scale, min)) in weights.scale.into_iter().zip(min).enumerate() {
        let factors = by_word(scale, largest, unit);
        let minima = by_word(min, largest, LARGEST);
        for i in half * 4..half * 4 + 4 {
            let mut codes = match bias::<F>() {
                0 => weights.codes[i],
                1 => _mm256_slli_epi16::<1>(weights.codes[i]),
                2 => _mm256_slli_epi16::<2>(weights.codes[i]),
                3 => _mm256_slli_epi16::<3>(weights.codes[i]),
                4 => _mm256_slli_epi16::<4>(weights.codes[i]),
                5 => _mm256_slli_epi16::<5>(weights.codes[i]),
                _ => _mm256_slli_epi16::<6>(weights.codes[i]),
            };
            if F::SIGNED {
                codes = _mm256_sign_epi8(codes, weights.signs[i]);
            }
            let wide = [_mm256_unpacklo_epi8(zero, codes), _mm256_unpackhi_epi8(zero, codes)];
            for (part, wide) in wide.into_iter().enumerate() {
                let mut words = _mm256_mulhrs_epi16(wide, factors[part]);
                if !F::SIGNED {
                    words = _mm256_add_epi16(words, minima[part]);
                }
                // SAFETY: there is room for 16 vectors of 16 words.
                unsafe { _mm256_storeu_si256(out.add((i * 2 + part) * STEP).cast(), words) };
            }
        }
    }
    largest / LARGEST
}

/// The largest magnitude that codes up to `code` can have.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn largest(scale: [__m256; 2], min: [__m256; 2], code: f32) -> f32 {
    let (sign, code) = (_mm256_set1_ps(-0.0), _mm256_set1_ps(code));
    let mut most = _mm256_setzero_ps();
    for (scale, min) in scale.into_iter().zip(min) {
        let end = _mm256_andnot_ps(sign, _mm256_fmadd_ps(scale, code, min));
        most = _mm256_max_ps(most, _mm256_max_ps(end, _mm256_andnot_ps(sign, min)));
    }
    let four = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps::<1>(most));
    let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
}

/// `numbers / largest · unit` as integers, each for the words of its lane: of the registers' lower
/// halves, then of the higher.
#[inline]
#[target_feature(enable = "avx2")]
fn by_word(numbers: __m256, largest: f32, unit: f32) -> [__m256i; 2] {
    // The words of two lanes, each four times.
    const FIRST: i64 = 0x0100_0100_0100_0100;
    const SECOND: i64 = 0x0302_0302_0302_0302;
    // A division: the inverse of the smallest weights would be infinite.
    let share = _mm256_div_ps(numbers, _mm256_set1_ps(largest));
    let integers = _mm256_cvtps_epi32(_mm256_mul_ps(share, _mm256_set1_ps(unit)));
    let integers = _mm256_packs_epi32(integers, integers);
    let first = _mm256_set_epi64x(SECOND, FIRST, SECOND, FIRST);
    let next = _mm256_add_epi8(first, _mm256_set1_epi8(4));
    [_mm256_shuffle_epi8(integers, first), _mm256_shuffle_epi8(integers, next)]
}

/// `out[t][r] += rows[r] · tokens[t]`.
///
/// # Safety
/// The CPU has AVX2 and FMA. Rows and tokens have `rows.runs` runs, of words of magnitudes up to
/// [`LARGEST`]; `out` has a number for each row and token.
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn gemm(rows: I14Rows, tokens: I14Tokens<impl Fn(usize) -> I14Row>, out: Sums) {
    let token = tokens.row;
    for t in (0..tokens.count).step_by(TOKENS) {
        for r in (0..rows.count).step_by(ROWS) {
            // Of rows that do not exist, the last is taken instead, and not written.
            let row = |i: usize| rows.first.from(i.min(rows.count - 1) * rows.runs);
            // SAFETY: all indices are below their counts.
            unsafe {
                let of_rows = map_lanes!([r, r + 1, r + 2, r + 3], |i| row(i));
                let out = out.from(t);
                let count = ROWS.min(rows.count - r);
                if t + 1 < tokens.count {
                    let [a, b] = tile::<TOKENS>(of_rows, [token(t), token(t + 1)], rows.runs);
                    add(a, out.first.add(r), count);
                    add(b, out.from(1).first.add(r), count);
                } else {
                    let [a] = tile::<1>(of_rows, [token(t)], rows.runs);
                    add(a, out.first.add(r), count);
                }
            }
        }
    }
}

/// Products of four rows with `C` tokens, by lane.
///
/// # Safety
/// As for [`gemm`].
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const C: usize>(
    rows: [I14Row; ROWS],
    tokens: [I14Row; C],
    runs: usize,
) -> [[__m256; ROWS]; C] {
    let mut sums = [[_mm256_setzero_ps(); ROWS]; C];
    for run in 0..runs {
        let mut integers = [[_mm256_setzero_si256(); ROWS]; C];
        for step in run * STEPS..(run + 1) * STEPS {
            // SAFETY: every vector has this step.
            unsafe {
                let mut inputs = [_mm256_setzero_si256(); C];
                for (input, token) in inputs.iter_mut().zip(&tokens) {
                    *input = _mm256_loadu_si256(token.words.add(step * STEP).cast());
                }
                for (r, row) in rows.iter().enumerate() {
                    let weights = _mm256_loadu_si256(row.words.add(step * STEP).cast());
                    for (integers, input) in integers.iter_mut().zip(inputs) {
                        let products = _mm256_madd_epi16(weights, input);
                        integers[r] = _mm256_add_epi32(integers[r], products);
                    }
                }
            }
        }
        for c in 0..C {
            for r in 0..ROWS {
                // SAFETY: every vector has a scale for this run.
                let scale = unsafe { *rows[r].scales.add(run) * *tokens[c].scales.add(run) };
                let products = _mm256_cvtepi32_ps(integers[c][r]);
                sums[c][r] = _mm256_fmadd_ps(products, _mm256_set1_ps(scale), sums[c][r]);
            }
        }
    }
    sums
}

/// Adds the sums of all lanes of the first `count` rows to `out`.
///
/// # Safety
/// There is room for as many; the CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn add([a, b, c, d]: [__m256; ROWS], out: *mut f32, count: usize) {
    let both = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    let sums = _mm_add_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps::<1>(both));
    // SAFETY: four numbers if there are four rows, otherwise one by one.
    unsafe {
        if count == ROWS {
            return _mm_storeu_ps(out, _mm_add_ps(sums, _mm_loadu_ps(out)));
        }
        let mut numbers = [0.0; ROWS];
        _mm_storeu_ps(numbers.as_mut_ptr(), sums);
        for (r, number) in numbers.into_iter().enumerate().take(count) {
            *out.add(r) += number;
        }
    }
}
