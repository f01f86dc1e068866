//! Products of many columns on AVX-512: weights and inputs as bytes, sixteen rows side by side.
//!
//! `vpdpbusd` multiplies 64 bytes and adds them by fours to 32 bits. Here each of its lanes is a row, and
//! the four inputs are the same for all rows: sums need no adding up across lanes, and one instruction applies
//! the scales of sixteen rows. For that, blocks of sixteen rows are unpacked and turned once for all columns:
//!
//! ```text
//! codes    [groups of 16 rows][blocks][64 fours of weights][16 rows][4]    u8, as the format has them
//! factors  [groups of 16 rows][blocks][scales, then minima][groups of weights][16 rows]   f32
//! ```
//! Inputs have 8 bits and a scale for 32 of them; weights keep all their bits.

use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32,
    _mm512_fmadd_ps, _mm512_load_ps, _mm512_load_si512, _mm512_loadu_si512, _mm512_mask_blend_ps,
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_permutex2var_ps,
    _mm512_permutexvar_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_store_si512,
};
use std::array;

use super::{Codes512, Unpacked512};
use crate::isa::moves512::transpose;
use crate::isa::{BlockRange, Blocks, Order, Rows};

/// Rows side by side.
pub(crate) const LANES: usize = 16;
/// Weights of a block.
pub(crate) const BLOCK: usize = 256;
/// Inputs that share a scale.
pub(crate) const SCALED: usize = 32;
/// Largest magnitude of an input.
pub(crate) const LARGEST: f32 = 127.0;
/// Where the sums of 16 inputs, and of 32, begin in [`Column::factors`] of a block, and where it ends.
pub(crate) const SUMS_16: usize = 8;
pub(crate) const SUMS_32: usize = 24;
pub(crate) const FACTORS: usize = 32;
/// Groups of rows whose sums are in registers at a time, and columns.
const GROUPS: usize = 2;
const COLUMNS: usize = 6;
/// Rows of a panel.
pub(crate) const PANEL_ROWS: usize = GROUPS * LANES;

/// Inputs of one column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// `[blocks][256]`, in natural order.
    pub(crate) numbers: *const i8,
    /// `[blocks][32]`: the scales of 8 groups of 32 inputs, the sums of 16 groups of 16 and of 8 groups of 32.
    pub(crate) factors: *const f32,
}

/// Where unpacked rows lie, drawn above; both aligned to 64 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panel {
    pub(crate) codes: *mut u8,
    pub(crate) factors: *mut f32,
}

/// Numbers of factors of a block of sixteen rows.
pub(crate) const fn factors(group: usize) -> usize {
    2 * BLOCK / group * LANES
}

/// A block of sixteen rows, row by row.
struct Rowwise {
    codes: [[__m512i; LANES]; 4],
    factors: [[__m512; LANES]; 2],
}

/// Unpacks blocks `range` of up to [`PANEL_ROWS`] rows; missing rows have zeros for factors.
///
/// # Safety
/// As for [`crate::isa::Kernels512`]; the panel has room for two groups of rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
pub(crate) unsafe fn unpack<F: Codes512>(
    rows: Rows,
    blocks: Blocks,
    range: BlockRange,
    panel: Panel,
) {
    let zero = (_mm512_setzero_si512(), _mm512_setzero_ps());
    let mut rowwise = Rowwise { codes: [[zero.0; LANES]; 4], factors: [[zero.1; LANES]; 2] };
    for group in 0..GROUPS {
        let present = rows.count.saturating_sub(group * LANES).min(LANES);
        for r in present..LANES {
            rowwise.factors.iter_mut().for_each(|factors| factors[r] = zero.1);
        }
        for (i, block) in range.clone().enumerate() {
            for r in 0..present {
                // SAFETY: row and block are in bounds by contract; an incomplete block is read from a
                // padded copy; a prefetch, here of the blocks that are unpacked next, may point anywhere.
                let unpacked = unsafe {
                    let row = rows.start.add((group * LANES + r) * rows.stride);
                    let at = row.add(block * F::BYTES);
                    let mut line = 0;
                    while line < F::BYTES {
                        let next = at.wrapping_add(range.len() * F::BYTES + line);
                        _mm_prefetch::<_MM_HINT_T0>(next.cast());
                        line += 64;
                    }
                    if block < blocks.whole {
                        F::unpack(at)
                    } else {
                        let mut padded = [0u8; 1024];
                        at.copy_to_nonoverlapping(padded.as_mut_ptr(), blocks.tail);
                        F::unpack(padded.as_ptr())
                    }
                };
                rowwise.put::<F>(r, &unpacked);
            }
            let to = group * range.len() + i;
            // SAFETY: the panel has room by contract.
            unsafe {
                let codes = panel.codes.add(to * BLOCK * LANES);
                rowwise.turn::<F>(codes, panel.factors.add(to * factors(F::GROUP)));
            }
        }
    }
}

impl Rowwise {
    /// Makes `weights` row `r`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn put<F: Codes512>(&mut self, r: usize, weights: &Unpacked512) {
        for (codes, of_row) in self.codes.iter_mut().zip(weights.codes) {
            codes[r] = of_row;
        }
        // SAFETY: the tables are 64 bytes each.
        let (low, high, both) = unsafe {
            let table = |t: &[i32; 16]| _mm512_loadu_si512(t.as_ptr().cast());
            let natural = &const { natural(F::ORDER, F::GROUP) };
            (table(&natural[0]), table(&natural[1]), table(&SCALES_AND_MINIMA))
        };
        let [a, b, c, d] = weights.scale;
        let scale = match F::ORDER.streams() {
            1 => _mm512_permutexvar_ps(low, a),
            2 => _mm512_permutex2var_ps(a, low, b),
            _ => _mm512_mask_blend_ps(
                const { above(F::ORDER, F::GROUP) },
                _mm512_permutex2var_ps(a, low, b),
                _mm512_permutex2var_ps(c, high, d),
            ),
        };
        if F::GROUP == 32 {
            self.factors[0][r] = _mm512_permutex2var_ps(scale, both, weights.min);
        } else {
            (self.factors[0][r], self.factors[1][r]) = (scale, weights.min);
        }
    }

    /// Turns rows to lanes.
    ///
    /// # Safety
    /// There is room for a block of codes, and for its factors, both aligned to 64 bytes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn turn<F: Codes512>(&self, codes: *mut u8, factors: *mut f32) {
        for (register, rows) in self.codes.iter().enumerate() {
            for (lane, turned) in transpose(*rows).into_iter().enumerate() {
                let four = usize::from(F::ORDER.quads[register * 16 + lane]);
                // SAFETY: a block has 64 fours of 64 bytes.
                unsafe { _mm512_store_si512(codes.add(four * 64).cast(), turned) };
            }
        }
        for (part, rows) in self.factors.iter().enumerate().take(32 / F::GROUP) {
            // SAFETY: all bit patterns are values.
            let rows = unsafe { std::mem::transmute::<[__m512; LANES], [__m512i; LANES]>(*rows) };
            for (lane, turned) in transpose(rows).into_iter().enumerate() {
                // SAFETY: sixteen vectors are the factors of groups of 32, and half those of groups of 16.
                unsafe {
                    _mm512_store_si512(factors.add((part * 16 + lane) * LANES).cast(), turned);
                }
            }
        }
    }
}

/// The scales of eight groups, then the minima of as many, which come as sixteen.
const SCALES_AND_MINIMA: [i32; 16] = {
    let mut table = [0; 16];
    let mut i = 0;
    while i < 8 {
        table[i] = i as i32;
        table[8 + i] = 16 + 2 * i as i32;
        i += 1;
    }
    table
};

/// Where in the registers of scales the scale of each group of `group` weights is: 16 times the register,
/// and the lane. For registers two and three, counted from two, in the second table.
const fn natural(order: &Order, group: usize) -> [[i32; 16]; 2] {
    let mut table = [[0; 16]; 2];
    let mut position = 0;
    while position < 64 {
        let stream = position / 16 / order.chain;
        let of = order.quads[position] as usize * 4 / group;
        table[stream / 2][of] = (stream % 2 * 16 + position % 16) as i32;
        position += 1;
    }
    table
}

/// Which groups have their scale in registers two and three.
const fn above(order: &Order, group: usize) -> u16 {
    let mut mask = 0;
    let mut position = 0;
    while position < 64 {
        if position / 16 / order.chain >= 2 {
            mask |= 1 << (order.quads[position] as usize * 4 / group);
        }
        position += 1;
    }
    mask
}

/// `out[c * stride + r] += rows[r] · column(c)` for the rows of a panel, over `blocks` blocks.
///
/// # Safety
/// The CPU has the tier. `panel` holds `blocks` blocks of two groups of rows, whose weights share factors
/// by `group` (16 or 32); columns have as many blocks; `out` has `counts.1` columns of `stride` numbers, of
/// which the first `counts.0`, at most [`PANEL_ROWS`], are written.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
pub(crate) unsafe fn product(
    panel: Panel,
    group: usize,
    blocks: usize,
    column: impl Fn(usize) -> Column,
    counts: (usize, usize),
    (out, stride): (*mut f32, usize),
) {
    let mask = |group: usize| {
        let rows = counts.0.saturating_sub(group * LANES).min(LANES);
        ((1u32 << rows) - 1) as u16
    };
    let masks = [mask(0), mask(1)];
    let mut c = 0;
    while c < counts.1 {
        // As even as it goes: a last column alone would read the panel for itself.
        let left = counts.1 - c;
        let n = left.div_ceil(left.div_ceil(COLUMNS));
        let out = (out.wrapping_add(c * stride), stride);
        /// The kernel for `n` columns.
        macro_rules! each_size {
            ($($n:literal),+) => {
                match (n, group) {
                    $(($n, 32) => {
                        tile::<$n, 32>(panel, blocks, array::from_fn(|i| column(c + i)), masks, out);
                    }
                    ($n, _) => {
                        tile::<$n, 16>(panel, blocks, array::from_fn(|i| column(c + i)), masks, out);
                    })+
                    _ => unreachable!("1 to {COLUMNS} columns"),
                }
            };
        }
        // SAFETY: by contract; the columns are below their count.
        unsafe {
            each_size!(1, 2, 3, 4, 5, 6);
        }
        c += n;
    }
}

/// Two groups of rows times `C` columns, added to `out`.
///
/// # Safety
/// As for [`product`]; `masks` has the rows of each group that are written.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi2")]
unsafe fn tile<const C: usize, const GROUP: usize>(
    panel: Panel,
    blocks: usize,
    columns: [Column; C],
    masks: [u16; GROUPS],
    (out, stride): (*mut f32, usize),
) {
    let mut sums = [[_mm512_setzero_ps(); GROUPS]; C];
    let at = |c: usize, g: usize| out.wrapping_add(c * stride + g * LANES);
    for (c, sums) in sums.iter_mut().enumerate() {
        for (g, sum) in sums.iter_mut().enumerate() {
            // SAFETY: what is not masked is inside `out` by contract.
            *sum = unsafe { _mm512_maskz_loadu_ps(masks[g], at(c, g)) };
        }
    }
    let per_block = BLOCK / GROUP;
    for i in 0..blocks * per_block {
        let (block, group) = (i / per_block, i % per_block);
        // SAFETY: panel and columns have this group of weights, by contract.
        unsafe {
            let products = fours::<C, GROUP>(panel.codes, blocks, i, &columns);
            let factor = |g: usize, kind: usize| {
                let of_block = (g * blocks + block) * factors(GROUP);
                let at = of_block + (kind * per_block + group) * LANES;
                _mm512_load_ps(panel.factors.add(at))
            };
            let scale = [factor(0, 0), factor(1, 0)];
            let min = [factor(0, 1), factor(1, 1)];
            let of_sum = if GROUP == 32 { SUMS_32 } else { SUMS_16 } + group;
            for c in 0..C {
                let of_column = columns[c].factors.add(block * FACTORS);
                let input_scale = _mm512_set1_ps(*of_column.add(group * GROUP / SCALED));
                let input_sum = _mm512_set1_ps(*of_column.add(of_sum));
                for g in 0..GROUPS {
                    let products = _mm512_cvtepi32_ps(products[c][g]);
                    let scale = _mm512_mul_ps(scale[g], input_scale);
                    sums[c][g] = _mm512_fmadd_ps(products, scale, sums[c][g]);
                    sums[c][g] = _mm512_fmadd_ps(min[g], input_sum, sums[c][g]);
                }
            }
        }
    }
    for (c, sums) in sums.into_iter().enumerate() {
        for (g, sum) in sums.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { _mm512_mask_storeu_ps(at(c, g), masks[g], sum) };
        }
    }
}

/// Products of the codes of the `i`th group of weights.
///
/// # Safety
/// Panel and columns have it; the CPU has the tier's instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn fours<const C: usize, const GROUP: usize>(
    codes: *const u8,
    blocks: usize,
    i: usize,
    columns: &[Column; C],
) -> [[__m512i; GROUPS]; C] {
    let mut products = [[_mm512_setzero_si512(); GROUPS]; C];
    for four in i * GROUP / 4..(i + 1) * GROUP / 4 {
        // SAFETY: by contract.
        unsafe {
            let weights = |g: usize| {
                _mm512_load_si512(codes.add((g * blocks * BLOCK / 4 + four) * 64).cast())
            };
            let weights = [weights(0), weights(1)];
            for (products, column) in products.iter_mut().zip(columns) {
                let inputs = column.numbers.add(four * 4).cast::<i32>().read_unaligned();
                let inputs = _mm512_set1_epi32(inputs);
                for (products, weights) in products.iter_mut().zip(weights) {
                    *products = _mm512_dpbusd_epi32(*products, weights, inputs);
                }
            }
        }
    }
    products
}
