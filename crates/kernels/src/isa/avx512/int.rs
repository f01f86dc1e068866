//! Gemm on AVX-512: weights and activations as bytes, rows side by side
//! ([`super::panel`]).
//!
//! `vpdpbusd` multiplies 64 bytes and adds them by quads to 32 bits. Here each of its lanes is a
//! row, and the four inputs are the same for all rows. Weights keep all their bits.
//! Activations have 8 bits and a scale for 32 of them where that will do
//! ([`crate::ActBits::Eight`]), and otherwise 16, as two bytes.

use std::arch::x86_64::{
    __m512, __m512i, _mm_cvtsi32_si128, _mm512_add_epi32, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32,
    _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_load_ps, _mm512_load_si512, _mm512_mask_storeu_ps,
    _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_sll_epi32, _mm512_slli_epi32,
};
use std::array;

use super::panel::{self, GROUPS, LANES, Panel16, factors};
use crate::isa::i8::{FACTORS, I8Row, SCALED, sum_at};
use crate::isa::{BLOCK, Kernels512, SplitI16Row, Sums};

/// How codes become weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// Weights that share scale and minimum: 16 or 32.
    group: usize,
    /// Where minima are as many times the negative scale: the power of two.
    offset: Option<u32>,
    /// Whether a block has but one scale.
    is_uniform: bool,
}

/// The rows that a product is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PanelWeights {
    pub(crate) panel: Panel16,
    pub(crate) kind: Kind,
    /// Weights of each row in the panel, and the first one's block in the rows.
    pub(crate) count: usize,
    pub(crate) from: usize,
    /// Rows that exist.
    pub(crate) rows: usize,
}

impl Kind {
    /// What the kernels of a format unpack.
    pub(crate) fn of(kernels: &Kernels512) -> Self {
        let &Kernels512 { group, offset, is_uniform, .. } = kernels;
        Self { group, offset, is_uniform }
    }
}

impl PanelWeights {
    /// Lanes whose rows exist, in each group.
    fn masks(&self) -> [u16; GROUPS] {
        array::from_fn(|group| {
            let rows = self.rows.saturating_sub(group * LANES).min(LANES);
            ((1u32 << rows) - 1) as u16
        })
    }
}

/// Goes through the tokens, up to the largest `$n` at a time and as evenly as possible: a last
/// token alone would read the panel for itself.
macro_rules! each_tile {
    ($tokens:expr, $out:expr, [$($n:literal),+], |$tile:ident, $sums:ident| $product:expr) => {{
        const MOST: usize = [$($n),+].len();
        let mut done = 0;
        while done < $tokens.len() {
            let left = $tokens.len() - done;
            let n = left.div_ceil(left.div_ceil(MOST));
            let $sums = $out.from(done);
            let tokens = &$tokens[done..done + n];
            match n {
                $($n => {
                    let Some($tile) = tokens.first_chunk::<$n>() else {
                        unreachable!("{n} tokens")
                    };
                    // SAFETY: by contract.
                    unsafe { $product }
                })+
                _ => unreachable!("1 to {MOST} tokens"),
            }
            done += n;
        }
    }};
}

/// `out[c][r] += weights[r] · tokens[c]` for tokens of 8 bits.
///
/// # Safety
/// The CPU has the tier. The panel holds what `weights` says, tokens have as many blocks from its
/// first one on, and `out` has as many numbers in each token as there are rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
pub(crate) unsafe fn gemm_i8(weights: PanelWeights, tokens: &[I8Row], out: Sums) {
    let Kind { group, offset, is_uniform } = weights.kind;
    each_tile!(tokens, out, [1, 2, 3, 4, 5, 6], |tile, sums| {
        match (group, offset.is_none(), is_uniform) {
            (32, false, _) => i8_tile::<_, 32, 0>(weights, tile, sums),
            (32, true, _) => i8_tile::<_, 32, 32>(weights, tile, sums),
            (_, false, _) => i8_tile::<_, 16, 0>(weights, tile, sums),
            (_, true, false) => i8_tile::<_, 16, 16>(weights, tile, sums),
            (_, true, true) => i8_tile::<_, SCALED, 16>(weights, tile, sums),
        }
    });
}

/// `out[c][r] += weights[r] · tokens[c]` for tokens of 16 bits, in natural order.
///
/// # Safety
/// As for [`gemm_i8`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
pub(crate) unsafe fn gemm_split_i16(weights: PanelWeights, tokens: &[SplitI16Row], out: Sums) {
    each_tile!(tokens, out, [1, 2, 3, 4], |tile, sums| {
        match weights.kind.group {
            32 => split_i16_tile::<_, 32>(weights, tile, sums),
            _ => split_i16_tile::<_, 16>(weights, tile, sums),
        }
    });
}

/// [`gemm_i8`] for `C` tokens, with scales of `SCALE` weights and minima of `MIN`; if none, all
/// codes are too large by the offset, and their products begin with what this comes to.
///
/// # Safety
/// As for [`gemm_i8`].
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
unsafe fn i8_tile<const C: usize, const SCALE: usize, const MIN: usize>(
    weights: PanelWeights,
    tokens: &[I8Row; C],
    out: Sums,
) {
    let mut tokens = *tokens;
    tokens.iter_mut().for_each(|token| *token = token.from(weights.from));
    let mut numbers = [std::ptr::null(); C];
    numbers.iter_mut().zip(&tokens).for_each(|(numbers, token)| *numbers = token.numbers);
    let group = if MIN > 0 { MIN } else { SCALE };
    let offset = _mm_cvtsi32_si128(weights.kind.offset.unwrap_or_default().cast_signed());
    // SAFETY: panel, tokens and sums are as long as they say, by contract.
    unsafe {
        let mut sums = load::<C>(out, weights.masks());
        for i in 0..weights.count.div_ceil(SCALED) {
            let (block, part) = (i * SCALED / BLOCK, i % (BLOCK / SCALED));
            let mut factors = [std::ptr::null(); C];
            for (factors, token) in factors.iter_mut().zip(&tokens) {
                *factors = token.factors.add(block * FACTORS);
            }
            let mut scaled = [[_mm512_setzero_ps(); GROUPS]; C];
            for k in 0..SCALED.checked_div(MIN).unwrap_or(0) {
                let min = weights.factors(group, 1, i * SCALED + k * MIN);
                for (scaled, factors) in scaled.iter_mut().zip(factors) {
                    let sum = *factors.add(sum_at(MIN, part * SCALED / MIN + k));
                    let sum = _mm512_cvtepi32_ps(_mm512_set1_epi32(sum));
                    for (scaled, min) in scaled.iter_mut().zip(min) {
                        *scaled = _mm512_fnmadd_ps(min, sum, *scaled);
                    }
                }
            }
            for k in 0..SCALED / SCALE {
                let mut products = [[_mm512_setzero_si512(); GROUPS]; C];
                if MIN == 0 {
                    for (products, factors) in products.iter_mut().zip(factors) {
                        let sum = *factors.add(sum_at(SCALE, part * SCALED / SCALE + k));
                        *products = [_mm512_sll_epi32(_mm512_set1_epi32(sum), offset); GROUPS];
                    }
                }
                let at = i * SCALED + k * SCALE;
                quads::<C, SCALE>(weights, at, numbers, &mut products);
                let scale = weights.factors(group, 0, at);
                for (scaled, products) in scaled.iter_mut().zip(products) {
                    for ((scaled, products), scale) in scaled.iter_mut().zip(products).zip(scale) {
                        *scaled = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), scale, *scaled);
                    }
                }
            }
            for ((sums, scaled), factors) in sums.iter_mut().zip(scaled).zip(factors) {
                let scale = _mm512_set1_ps(f32::from_bits((*factors.add(part)).cast_unsigned()));
                for (sum, scaled) in sums.iter_mut().zip(scaled) {
                    *sum = _mm512_fmadd_ps(scaled, scale, *sum);
                }
            }
        }
        store(sums, out, weights.masks());
    }
}

/// [`gemm_split_i16`] for `C` tokens.
///
/// # Safety
/// As for [`gemm_i8`].
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
unsafe fn split_i16_tile<const C: usize, const GROUP: usize>(
    weights: PanelWeights,
    tokens: &[SplitI16Row; C],
    out: Sums,
) {
    let tokens = tokens.map(|c| c.from(weights.from));
    let offset = weights.kind.offset.map(|power| _mm512_set1_ps(-((1 << power) as f32)));
    // SAFETY: panel, tokens and sums are as long as they say, by contract.
    unsafe {
        let mut sums = load::<C>(out, weights.masks());
        for i in 0..weights.count.div_ceil(GROUP) {
            let mut high = [[_mm512_setzero_si512(); GROUPS]; C];
            let mut low = high;
            quads::<C, GROUP>(weights, i * GROUP, tokens.map(|c| c.high), &mut high);
            quads::<C, GROUP>(weights, i * GROUP, tokens.map(|c| c.low), &mut low);
            let scale = weights.factors(GROUP, 0, i * GROUP);
            let min = match offset {
                Some(offset) => {
                    map_lanes!([scale[0], scale[1]], |scale| _mm512_mul_ps(scale, offset))
                }
                None => weights.factors(GROUP, 1, i * GROUP),
            };
            let block = i * GROUP / BLOCK;
            for (c, sums) in sums.iter_mut().enumerate() {
                let input_scale = _mm512_set1_ps(*tokens[c].scale.add(block));
                let of_group = tokens[c].sums.add(i * GROUP / 16);
                let input_sum = if GROUP == 32 { *of_group + *of_group.add(1) } else { *of_group };
                let input_sum = _mm512_set1_ps(input_sum);
                for (g, sum) in sums.iter_mut().enumerate() {
                    let products = _mm512_add_epi32(_mm512_slli_epi32::<8>(high[c][g]), low[c][g]);
                    let scale = _mm512_mul_ps(scale[g], input_scale);
                    *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), scale, *sum);
                    *sum = _mm512_fmadd_ps(min[g], input_sum, *sum);
                }
            }
        }
        store(sums, out, weights.masks());
    }
}

/// Sums so far.
///
/// # Safety
/// `out` has `C` tokens of the rows in `masks`; the CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load<const C: usize>(out: Sums, masks: [u16; GROUPS]) -> [[__m512; GROUPS]; C] {
    let mut sums = [[_mm512_setzero_ps(); GROUPS]; C];
    for (c, sums) in sums.iter_mut().enumerate() {
        for (g, sum) in sums.iter_mut().enumerate() {
            let at = out.first.wrapping_add(c * out.stride + g * LANES);
            // SAFETY: what is not masked is there, by contract.
            *sum = unsafe { _mm512_maskz_loadu_ps(masks[g], at) };
        }
    }
    sums
}

/// Writes what [`load`] reads.
///
/// # Safety
/// As for [`load`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store<const C: usize>(sums: [[__m512; GROUPS]; C], out: Sums, masks: [u16; GROUPS]) {
    for (c, sums) in sums.into_iter().enumerate() {
        for (g, sum) in sums.into_iter().enumerate() {
            let at = out.first.wrapping_add(c * out.stride + g * LANES);
            // SAFETY: as for `load`.
            unsafe { _mm512_mask_storeu_ps(at, masks[g], sum) };
        }
    }
}

impl PanelWeights {
    /// Scales (`kind` 0) or minima (1) of the weights from `at` on, which are for `group` of them
    /// in the panel.
    ///
    /// # Safety
    /// The panel has them; the CPU has the tier's instructions.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn factors(&self, group: usize, kind: usize, at: usize) -> [__m512; GROUPS] {
        let (block, index) = (at / BLOCK, kind * BLOCK / group + at % BLOCK / group);
        // SAFETY: by contract.
        unsafe {
            let first = self.panel.factors.add(block * factors(group) + index * LANES);
            [_mm512_load_ps(first), _mm512_load_ps(first.add(panel::BLOCKS * factors(group)))]
        }
    }
}

/// Adds the products of `N` codes, from `at` on, with these bytes.
///
/// # Safety
/// Panel and tokens have them; the CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn quads<const C: usize, const N: usize>(
    weights: PanelWeights,
    at: usize,
    tokens: [*const i8; C],
    products: &mut [[__m512i; GROUPS]; C],
) {
    // SAFETY: by contract.
    unsafe {
        let codes = weights.panel.codes.add(at * LANES);
        for quad in 0..N / 4 {
            let first = codes.add(quad * 4 * LANES);
            let second = first.add(panel::BLOCKS * BLOCK * LANES);
            let codes = [_mm512_load_si512(first.cast()), _mm512_load_si512(second.cast())];
            for (products, token) in products.iter_mut().zip(tokens) {
                let inputs = token.add(at + quad * 4).cast::<i32>().read_unaligned();
                let inputs = _mm512_set1_epi32(inputs);
                for (products, codes) in products.iter_mut().zip(codes) {
                    *products = _mm512_dpbusd_epi32(*products, codes, inputs);
                }
            }
        }
    }
}
