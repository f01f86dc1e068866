//! Products of many columns on AVX-512: weights and inputs as bytes, rows side by side ([`super::panel`]).
//!
//! `vpdpbusd` multiplies 64 bytes and adds them by fours to 32 bits. Here each of its lanes is a row, and
//! the four inputs are the same for all rows. Weights keep all their bits. Inputs have 8 bits and a scale
//! for 32 of them where that will do ([`crate::Matrix::coarse`]), and otherwise 16, as two bytes.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_add_epi32, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
    _mm512_load_ps, _mm512_load_si512, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_mul_ps,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_slli_epi32,
};
use std::array;

use super::panel::{GROUPS, LANES, Panel, factors};
use crate::inputs::BLOCK;
use crate::isa::Column;

/// Inputs of 8 bits that share a scale.
pub(crate) const SCALED: usize = 32;
/// Largest magnitude of an input of 8 bits.
pub(crate) const LARGEST: f32 = 127.0;
/// Where the sums of 16 inputs, and of 32, begin in [`Coarse::factors`] of a block, and where it ends.
pub(crate) const SUMS_16: usize = 8;
pub(crate) const SUMS_32: usize = 24;
pub(crate) const FACTORS: usize = 32;

/// A column of inputs of 8 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coarse {
    /// `[blocks][256]`, in natural order.
    pub(crate) numbers: *const i8,
    /// `[blocks][32]`: the scales of 8 groups of 32 inputs, the sums of 16 groups of 16 and of 8 groups of 32.
    pub(crate) factors: *const f32,
}

/// The rows that a product is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights {
    pub(crate) panel: Panel,
    /// Weights that share factors: 16 or 32.
    pub(crate) group: usize,
    /// Blocks in the panel.
    pub(crate) blocks: usize,
    /// Rows that exist.
    pub(crate) rows: usize,
}

/// Where sums of one column after the other lie, and how far apart: `[columns][stride]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sums {
    pub(crate) first: *mut f32,
    pub(crate) stride: usize,
}

impl Weights {
    /// Lanes whose rows exist, in each group.
    fn masks(&self) -> [u16; GROUPS] {
        array::from_fn(|group| {
            let rows = self.rows.saturating_sub(group * LANES).min(LANES);
            ((1u32 << rows) - 1) as u16
        })
    }
}

/// Goes through `$count` columns, up to the largest `$n` at a time and as even as it goes: a last column alone
/// would read the panel for itself.
macro_rules! each_tile {
    ($weights:expr, $count:expr, $column:expr, $out:expr, $tile:ident, [$($n:literal),+]) => {{
        const MOST: usize = [$($n),+].len();
        let mut c = 0;
        while c < $count {
            let left = $count - c;
            let n = left.div_ceil(left.div_ceil(MOST));
            let first = $out.first.wrapping_add(c * $out.stride);
            let out = Sums { first, ..$out };
            // SAFETY: by contract; the columns are below their count.
            unsafe {
                match (n, $weights.group) {
                    $(($n, 32) => $tile::<$n, 32>($weights, array::from_fn(|i| $column(c + i)), out),
                    ($n, _) => $tile::<$n, 16>($weights, array::from_fn(|i| $column(c + i)), out),)+
                    _ => unreachable!("1 to {MOST} columns"),
                }
            }
            c += n;
        }
    }};
}

/// `out[c][r] += weights[r] · column(c)` for `count` columns of 8 bits.
///
/// # Safety
/// The CPU has the tier. The panel holds what `weights` says, columns have as many blocks, and `out` has as many
/// numbers in each column as there are rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
pub(crate) unsafe fn coarse(
    weights: Weights,
    column: impl Fn(usize) -> Coarse,
    count: usize,
    out: Sums,
) {
    each_tile!(weights, count, column, out, coarse_tile, [1, 2, 3, 4, 5, 6]);
}

/// `out[c][r] += weights[r] · column(c)` for `count` columns of 16 bits, in natural order.
///
/// # Safety
/// As for [`coarse`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
pub(crate) unsafe fn fine(
    weights: Weights,
    column: impl Fn(usize) -> Column,
    count: usize,
    out: Sums,
) {
    each_tile!(weights, count, column, out, fine_tile, [1, 2, 3, 4]);
}

/// [`coarse`] for `C` columns.
///
/// # Safety
/// As for [`coarse`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
unsafe fn coarse_tile<const C: usize, const GROUP: usize>(
    weights: Weights,
    columns: [Coarse; C],
    out: Sums,
) {
    // SAFETY: panel, columns and sums are as long as they say, by contract.
    unsafe {
        let mut sums = load::<C>(out, weights.masks());
        for i in 0..weights.blocks * BLOCK / GROUP {
            let products = fours::<C, GROUP>(weights, i, &columns.map(|c| c.numbers));
            let (scale, min) = factors_of::<GROUP>(weights, i);
            let (block, group) = (i * GROUP / BLOCK, i % (BLOCK / GROUP));
            let of_sum = if GROUP == 32 { SUMS_32 } else { SUMS_16 } + group;
            for (c, sums) in sums.iter_mut().enumerate() {
                let of_column = columns[c].factors.add(block * FACTORS);
                let input_scale = _mm512_set1_ps(*of_column.add(group * GROUP / SCALED));
                let input_sum = _mm512_set1_ps(*of_column.add(of_sum));
                add(sums, products[c], (scale, min), (input_scale, input_sum));
            }
        }
        store(sums, out, weights.masks());
    }
}

/// [`fine`] for `C` columns.
///
/// # Safety
/// As for [`coarse`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
unsafe fn fine_tile<const C: usize, const GROUP: usize>(
    weights: Weights,
    columns: [Column; C],
    out: Sums,
) {
    // SAFETY: panel, columns and sums are as long as they say, by contract.
    unsafe {
        let mut sums = load::<C>(out, weights.masks());
        for i in 0..weights.blocks * BLOCK / GROUP {
            let high = fours::<C, GROUP>(weights, i, &columns.map(|c| c.high));
            let low = fours::<C, GROUP>(weights, i, &columns.map(|c| c.low));
            let (scale, min) = factors_of::<GROUP>(weights, i);
            let block = i * GROUP / BLOCK;
            for (c, sums) in sums.iter_mut().enumerate() {
                let input_scale = _mm512_set1_ps(*columns[c].scale.add(block));
                let of_group = columns[c].sums.add(i * GROUP / 16);
                let input_sum = if GROUP == 32 { *of_group + *of_group.add(1) } else { *of_group };
                let input_sum = _mm512_set1_ps(input_sum);
                let mut products = low[c];
                for (product, high) in products.iter_mut().zip(high[c]) {
                    *product = _mm512_add_epi32(_mm512_slli_epi32::<8>(high), *product);
                }
                add(sums, products, (scale, min), (input_scale, input_sum));
            }
        }
        store(sums, out, weights.masks());
    }
}

/// Adds what the products of a group of weights and its minima come to.
#[inline]
#[target_feature(enable = "avx512f")]
fn add(
    sums: &mut [__m512; GROUPS],
    products: [__m512i; GROUPS],
    (scale, min): ([__m512; GROUPS], [__m512; GROUPS]),
    (input_scale, input_sum): (__m512, __m512),
) {
    for (g, sum) in sums.iter_mut().enumerate() {
        let scale = _mm512_mul_ps(scale[g], input_scale);
        *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products[g]), scale, *sum);
        *sum = _mm512_fmadd_ps(min[g], input_sum, *sum);
    }
}

/// Sums so far.
///
/// # Safety
/// `out` has `C` columns of the rows in `masks`; the CPU has the tier's instructions.
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

/// Scales and minima of the `i`th group of weights.
///
/// # Safety
/// The panel has it; the CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn factors_of<const GROUP: usize>(
    weights: Weights,
    i: usize,
) -> ([__m512; GROUPS], [__m512; GROUPS]) {
    let per_block = BLOCK / GROUP;
    let factor = |g: usize, kind: usize| {
        let of_block = (g * weights.blocks + i / per_block) * factors(GROUP);
        let at = of_block + (kind * per_block + i % per_block) * LANES;
        // SAFETY: by contract.
        unsafe { _mm512_load_ps(weights.panel.factors.add(at)) }
    };
    ([factor(0, 0), factor(1, 0)], [factor(0, 1), factor(1, 1)])
}

/// Products of the codes of the `i`th group of weights with these bytes.
///
/// # Safety
/// Panel and columns have it; the CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn fours<const C: usize, const GROUP: usize>(
    weights: Weights,
    i: usize,
    columns: &[*const i8; C],
) -> [[__m512i; GROUPS]; C] {
    let mut products = [[_mm512_setzero_si512(); GROUPS]; C];
    for four in i * GROUP / 4..(i + 1) * GROUP / 4 {
        // SAFETY: by contract.
        unsafe {
            let codes = |g: usize| {
                let at = (g * weights.blocks * BLOCK / 4 + four) * 64;
                _mm512_load_si512(weights.panel.codes.add(at).cast())
            };
            let codes = [codes(0), codes(1)];
            for (products, column) in products.iter_mut().zip(columns) {
                let inputs = column.add(four * 4).cast::<i32>().read_unaligned();
                let inputs = _mm512_set1_epi32(inputs);
                for (products, codes) in products.iter_mut().zip(codes) {
                    *products = _mm512_dpbusd_epi32(*products, codes, inputs);
                }
            }
        }
    }
    products
}
