//! Vectors to multiply, in the forms that the kernels take.
//!
//! The caller fills f32 rows; each form is derived once, when the first product asks for it, and
//! shared by all products with the same rows (the query and the latent projection; gate and up of
//! all experts):
//!
//! - [`Plane`]: 16-bit integers with one scale for 256 inputs, as two bytes, for few columns, and for
//!   many on AVX-512;
//! - [`Bytes`]: 8-bit integers with a scale for 32, for many columns of coarse matrices;
//! - [`Words`]: integers of 14 bits, for many columns of others on AVX2;
//! - [`Half`]: bf16, for tiles.
//!
//! Scales and sums are f32: in f16 they overflow on R1.

use crate::buffer::{Aligned, Shared};
use crate::isa::{Column, Order};
#[cfg(target_arch = "x86_64")]
use crate::isa::{
    avx2::words,
    coarse::{self, Coarse},
};
use crate::pool::Pool;

/// Largest magnitude of a quantized input: the high byte stays within ±127.
const LARGEST: f32 = 127.0 * 256.0;
/// Numbers that take about as long to convert as some joins.
const WORTH_A_JOIN: usize = 32 * 1024;
/// Inputs in a block of every form: with 16 bits, one scale for as many is still 128 times finer than
/// 8 bits would be, and a product's sum needs it only once.
pub(crate) const BLOCK: usize = 256;

/// Rows of f32 inputs `[rows, cols]` and what was derived from them.
#[derive(Debug, Default)]
pub struct Inputs {
    rows: usize,
    cols: usize,
    floats: Aligned<f32>, // [rows, cols]
    planes: Vec<Plane>,
    bytes: Bytes,
    words: Words,
    halves: Vec<Half>,
}

/// Quantized inputs in one order; see [`Column`] for the fields.
#[derive(Debug)]
struct Plane {
    order: &'static Order,
    fresh: bool,
    high: Aligned<i8>,   // [rows, blocks, 256]
    low: Aligned<i8>,    // [rows, blocks, 256]
    scale: Aligned<f32>, // [rows, blocks]
    sums: Aligned<f32>,  // [rows, blocks, 16]
}

/// Inputs as bytes; see [`Coarse`].
#[derive(Debug, Default)]
struct Bytes {
    fresh: bool,
    numbers: Aligned<i8>,  // [rows, blocks, 256]
    factors: Aligned<i32>, // [rows, blocks, 32]
}

/// Inputs as words with one scale for 256.
#[derive(Debug, Default)]
struct Words {
    fresh: bool,
    numbers: Aligned<i16>, // [rows, blocks, 256]
    scale: Aligned<f32>,   // [rows, blocks]
}

/// Inputs as bf16 in one order.
#[derive(Debug)]
struct Half {
    order: &'static Order,
    fresh: bool,
    numbers: Aligned<u16>, // [rows to a multiple of 16, blocks, 256]
}

impl Inputs {
    /// No inputs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Room for `rows` x `cols` inputs, to be filled by the caller; what was there is forgotten.
    pub fn reset(&mut self, rows: usize, cols: usize) -> &mut [f32] {
        (self.rows, self.cols) = (rows, cols);
        self.planes.iter_mut().for_each(|plane| plane.fresh = false);
        self.bytes.fresh = false;
        self.words.fresh = false;
        self.halves.iter_mut().for_each(|half| half.fresh = false);
        self.floats.resize(rows * cols)
    }

    /// Vectors.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers in each.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The vector `row`, `[cols]`.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.floats[row * self.cols..][..self.cols]
    }

    /// The vectors from `row` on, `[.., cols]`.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn rows_from(&self, row: usize) -> &[f32] {
        &self.floats[row * self.cols..]
    }

    fn blocks(&self) -> usize {
        self.cols.div_ceil(BLOCK)
    }

    /// Derives the quantized form in this order, unless it is there.
    pub(crate) fn quantize(&mut self, pool: &Pool, order: &'static Order) {
        let index = self.planes.iter().position(|p| std::ptr::eq(p.order, order));
        let index = index.unwrap_or_else(|| {
            self.planes.push(Plane::new(order));
            self.planes.len() - 1
        });
        let blocks = self.blocks();
        let plane = &mut self.planes[index];
        if std::mem::replace(&mut plane.fresh, true) {
            return;
        }
        let high = Shared::new(plane.high.resize(self.rows * blocks * BLOCK));
        let low = Shared::new(plane.low.resize(self.rows * blocks * BLOCK));
        let scale = Shared::new(plane.scale.resize(self.rows * blocks));
        let sums = Shared::new(plane.sums.resize(self.rows * blocks * 16));
        let (floats, cols) = (&self.floats, self.cols);
        let one_row = |row: usize| {
            // SAFETY: each row is quantized by one task, into its own part of each array.
            let (high, low, scale, sums) = unsafe {
                (
                    high.slice(row * blocks * BLOCK, blocks * BLOCK),
                    low.slice(row * blocks * BLOCK, blocks * BLOCK),
                    scale.slice(row * blocks, blocks),
                    sums.slice(row * blocks * 16, blocks * 16),
                )
            };
            let floats = floats[row * cols..][..cols].chunks(BLOCK);
            for (b, floats) in floats.enumerate() {
                let mut out = Quantized {
                    high: &mut high[b * BLOCK..][..BLOCK],
                    low: &mut low[b * BLOCK..][..BLOCK],
                    scale: &mut scale[b],
                    sums: &mut sums[b * 16..][..16],
                };
                quantize(floats, order, &mut out);
            }
        };
        each_row(pool, (self.rows, self.cols), &one_row);
    }

    /// Derives the bytes, unless they are there.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn put_in_bytes(&mut self, pool: &Pool) {
        let blocks = self.blocks();
        if std::mem::replace(&mut self.bytes.fresh, true) {
            return;
        }
        let numbers = Shared::new(self.bytes.numbers.resize(self.rows * blocks * BLOCK));
        let factors = Shared::new(self.bytes.factors.resize(self.rows * blocks * coarse::FACTORS));
        let (floats, cols) = (&self.floats, self.cols);
        let one_row = |row: usize| {
            // SAFETY: each row is written by one task.
            let (numbers, factors) = unsafe {
                let (at, n) = (row * blocks, blocks);
                (
                    numbers.slice(at * BLOCK, n * BLOCK),
                    factors.slice(at * coarse::FACTORS, n * coarse::FACTORS),
                )
            };
            let floats = floats[row * cols..][..cols].chunks(BLOCK);
            let out =
                numbers.chunks_exact_mut(BLOCK).zip(factors.chunks_exact_mut(coarse::FACTORS));
            for (floats, (numbers, factors)) in floats.zip(out) {
                to_bytes(floats, numbers, factors);
            }
        };
        each_row(pool, (self.rows, self.cols), &one_row);
    }

    /// Rows as bytes; [`Inputs::put_in_bytes`] came before, and there are such rows.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn bytes(&self) -> impl Fn(usize) -> Coarse {
        assert!(self.bytes.fresh, "put in bytes before they are multiplied");
        let (blocks, numbers, factors) =
            (self.blocks(), self.bytes.numbers.as_ptr(), self.bytes.factors.as_ptr());
        move |row| Coarse {
            numbers: numbers.wrapping_add(row * blocks * BLOCK),
            factors: factors.wrapping_add(row * blocks * coarse::FACTORS),
        }
    }

    /// Derives the words, unless they are there.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn put_in_words(&mut self, pool: &Pool) {
        let blocks = self.blocks();
        if std::mem::replace(&mut self.words.fresh, true) {
            return;
        }
        let numbers = Shared::new(self.words.numbers.resize(self.rows * blocks * BLOCK));
        let scale = Shared::new(self.words.scale.resize(self.rows * blocks));
        let (floats, cols) = (&self.floats, self.cols);
        let one_row = |row: usize| {
            // SAFETY: each row is written by one task.
            let (numbers, scale) = unsafe {
                let at = row * blocks;
                (numbers.slice(at * BLOCK, blocks * BLOCK), scale.slice(at, blocks))
            };
            let floats = floats[row * cols..][..cols].chunks(BLOCK);
            for ((floats, numbers), scale) in floats.zip(numbers.chunks_exact_mut(BLOCK)).zip(scale)
            {
                *scale = to_words(floats, &words::WORDS, numbers);
            }
        };
        each_row(pool, (self.rows, self.cols), &one_row);
    }

    /// Rows as words, each from block `block` on; [`Inputs::put_in_words`] came before, and there are such rows.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn words(&self, block: usize) -> impl Fn(usize) -> words::Vector {
        assert!(self.words.fresh, "put in words before they are multiplied");
        let (blocks, first) = (
            self.blocks(),
            words::Vector {
                words: self.words.numbers[block * BLOCK..].as_ptr(),
                scales: self.words.scale[block..].as_ptr(),
            },
        );
        move |row| words::Vector {
            words: first.words.wrapping_add(row * blocks * BLOCK),
            scales: first.scales.wrapping_add(row * blocks),
        }
    }

    /// Derives the bf16 form in this order, unless it is there.
    pub(crate) fn halve(&mut self, pool: &Pool, order: &'static Order) {
        let index = self.halves.iter().position(|h| std::ptr::eq(h.order, order));
        let index = index.unwrap_or_else(|| {
            self.halves.push(Half { order, fresh: false, numbers: Aligned::new() });
            self.halves.len() - 1
        });
        let width = self.blocks() * BLOCK;
        let half = &mut self.halves[index];
        if std::mem::replace(&mut half.fresh, true) {
            return;
        }
        let numbers = Shared::new(half.numbers.resize(self.rows.next_multiple_of(16) * width));
        let (floats, cols) = (&self.floats, self.cols);
        let one_row = |row: usize| {
            // SAFETY: each row is written by one task.
            let numbers = unsafe { numbers.slice(row * width, width) };
            let floats = floats[row * cols..][..cols].chunks(BLOCK);
            for (floats, numbers) in floats.zip(numbers.chunks_exact_mut(BLOCK)) {
                halve(floats, order, numbers);
            }
        };
        each_row(pool, (self.rows, self.cols), &one_row);
    }

    /// Quantized rows in this order; [`Inputs::quantize`] came before, and there are such rows.
    pub(crate) fn columns(&self, order: &'static Order) -> impl Fn(usize) -> Column {
        let plane = self.planes.iter().find(|p| std::ptr::eq(p.order, order) && p.fresh);
        let Some(plane) = plane else { unreachable!("quantized before it is multiplied") };
        let (blocks, first) = (
            self.blocks(),
            Column {
                high: plane.high.as_ptr(),
                low: plane.low.as_ptr(),
                scale: plane.scale.as_ptr(),
                sums: plane.sums.as_ptr(),
            },
        );
        move |row| first.from(row * blocks)
    }

    /// All rows as bf16 in this order, `[rows to a multiple of 16, blocks * 256]`;
    /// [`Inputs::halve`] came before.
    pub(crate) fn half(&self, order: &'static Order) -> &[u16] {
        let half = self.halves.iter().find(|h| std::ptr::eq(h.order, order) && h.fresh);
        let Some(half) = half else { unreachable!("halved before it is multiplied") };
        &half.numbers
    }
}

impl Plane {
    const fn new(order: &'static Order) -> Self {
        Self {
            order,
            fresh: false,
            high: Aligned::new(),
            low: Aligned::new(),
            scale: Aligned::new(),
            sums: Aligned::new(),
        }
    }
}

/// Calls `task` for every row of `cols` numbers; few numbers are not worth a join.
fn each_row(pool: &Pool, (rows, cols): (usize, usize), task: &(dyn Fn(usize) + Sync)) {
    if rows * cols < WORTH_A_JOIN {
        (0..rows).for_each(task);
    } else {
        pool.run(rows.div_ceil(4), &|_, i| (i * 4..rows.min(i * 4 + 4)).for_each(task));
    }
}

/// Where one block of 256 quantized inputs goes.
struct Quantized<'a> {
    high: &'a mut [i8],
    low: &'a mut [i8],
    scale: &'a mut f32,
    sums: &'a mut [f32],
}

fn quantize(floats: &[f32], order: &Order, out: &mut Quantized<'_>) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn wide(floats: &[f32], order: &Order, out: &mut Quantized<'_>) {
            quantize_block(floats, order, out);
        }
        // SAFETY: AVX2 was detected.
        return unsafe { wide(floats, order, out) };
    }
    quantize_block(floats, order, out);
}

/// Up to `N` inputs as integers of magnitudes up to `limit`, and their scale; missing ones count as zero.
#[inline(always)]
fn integers<const N: usize>(floats: &[f32], limit: f32) -> ([i32; N], f32) {
    let mut padded = [0.0f32; N];
    padded[..floats.len()].copy_from_slice(floats);
    let mut integers = [0i32; N];
    let largest = padded.iter().fold(0.0f32, |a, &x| a.max(x.abs()));
    let mut scale = largest / limit;
    // Inputs too small for a normal scale are zero next to anything that matters.
    if scale < f32::MIN_POSITIVE {
        scale = 0.0;
    } else {
        let inverse = 1.0 / scale;
        for (i, &x) in integers.iter_mut().zip(&padded) {
            // Adding 1.5·2^23 rounds to the nearest integer and leaves it in the low bits.
            *i = (x * inverse + 12_582_912.0).to_bits().wrapping_sub(0x4B40_0000).cast_signed();
        }
    }
    (integers, scale)
}

/// Quantizes up to 256 inputs.
#[inline(always)]
fn quantize_block(floats: &[f32], order: &Order, out: &mut Quantized<'_>) {
    let (integers, scale) = integers::<BLOCK>(floats, LARGEST);
    *out.scale = scale;
    for (sum, group) in out.sums.iter_mut().zip(integers.chunks_exact(16)) {
        *sum = scale * group.iter().sum::<i32>() as f32;
    }
    let mut high = [0i8; BLOCK];
    let mut low = [0i8; BLOCK];
    for ((high, low), &i) in high.iter_mut().zip(&mut low).zip(&integers) {
        *high = ((i + 128) >> 8) as i8;
        *low = i as i8;
    }
    for (position, &quad) in order.quads.iter().enumerate() {
        let (to, from) = (position * 4, usize::from(quad) * 4);
        out.high[to..to + 4].copy_from_slice(&high[from..from + 4]);
        out.low[to..to + 4].copy_from_slice(&low[from..from + 4]);
    }
}

/// Turns up to 256 inputs to words in this order, and returns their scale.
#[cfg(target_arch = "x86_64")]
fn to_words(floats: &[f32], order: &Order, out: &mut [i16]) -> f32 {
    #[inline(always)]
    fn block(floats: &[f32], order: &Order, out: &mut [i16]) -> f32 {
        let (integers, scale) = integers::<BLOCK>(floats, words::LARGEST);
        let numbers = integers.map(|i| i as i16);
        for (to, &quad) in out.chunks_exact_mut(4).zip(&order.quads) {
            to.copy_from_slice(&numbers[usize::from(quad) * 4..][..4]);
        }
        scale
    }
    #[target_feature(enable = "avx2")]
    fn wide(floats: &[f32], order: &Order, out: &mut [i16]) -> f32 {
        block(floats, order, out)
    }
    if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 was detected.
        return unsafe { wide(floats, order, out) };
    }
    block(floats, order, out)
}

/// Turns up to 256 inputs to bytes in natural order, with the factors of [`Coarse`].
#[cfg(target_arch = "x86_64")]
fn to_bytes(floats: &[f32], out: &mut [i8], factors: &mut [i32]) {
    #[inline(always)]
    fn block(floats: &[f32], out: &mut [i8], factors: &mut [i32]) {
        let mut padded = [0.0f32; BLOCK];
        padded[..floats.len()].copy_from_slice(floats);
        let (scales, sums) = factors.split_at_mut(coarse::SUMS_16);
        let (sixteens, groups) = sums.split_at_mut(coarse::SUMS_32 - coarse::SUMS_16);
        let parts = padded.chunks_exact(coarse::SCALED).zip(out.chunks_exact_mut(coarse::SCALED));
        let sums = sixteens.chunks_exact_mut(coarse::SCALED / 16);
        for ((scale, sums), (floats, out)) in scales.iter_mut().zip(sums).zip(parts) {
            let (integers, factor) = integers::<{ coarse::SCALED }>(floats, coarse::LARGEST);
            *scale = factor.to_bits().cast_signed();
            out.iter_mut().zip(&integers).for_each(|(out, &i)| *out = i as i8);
            for (sum, integers) in sums.iter_mut().zip(integers.chunks_exact(16)) {
                *sum = -integers.iter().sum::<i32>();
            }
        }
        for (sum, halves) in groups.iter_mut().zip(sixteens.chunks_exact(2)) {
            *sum = halves[0] + halves[1];
        }
    }
    #[target_feature(enable = "avx2")]
    fn wide(floats: &[f32], out: &mut [i8], factors: &mut [i32]) {
        block(floats, out, factors);
    }
    if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 was detected.
        return unsafe { wide(floats, out, factors) };
    }
    block(floats, out, factors);
}

fn halve(floats: &[f32], order: &Order, out: &mut [u16]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn wide(floats: &[f32], order: &Order, out: &mut [u16]) {
            halve_block(floats, order, out);
        }
        // SAFETY: AVX2 was detected.
        return unsafe { wide(floats, order, out) };
    }
    halve_block(floats, order, out);
}

#[inline(always)]
fn halve_block(floats: &[f32], order: &Order, out: &mut [u16]) {
    let mut numbers = [0u16; BLOCK];
    for (n, &x) in numbers.iter_mut().zip(floats) {
        // To nearest, ties to even; inputs are finite or the model is lost anyway.
        let bits = x.to_bits();
        *n = (bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16) as u16;
    }
    for (position, &quad) in order.quads.iter().enumerate() {
        let (to, from) = (position * 4, usize::from(quad) * 4);
        out[to..to + 4].copy_from_slice(&numbers[from..from + 4]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::NATURAL;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_quantized_row_is_the_row_to_15_bits(
            row in prop::collection::vec(-1e3f32..1e3, 1..600),
            exponent in -30i32..30,
        ) {
            let row: Vec<f32> = row.iter().map(|x| x * 2f32.powi(exponent)).collect();
            let mut inputs = Inputs::new();
            inputs.reset(1, row.len()).copy_from_slice(&row);
            inputs.quantize(&Pool::new(1), &NATURAL);
            let plane = &inputs.planes[0];
            for (i, group) in row.chunks(BLOCK).enumerate() {
                let largest = group.iter().fold(0.0f32, |a, x| a.max(x.abs()));
                let mut sums = [0.0; BLOCK / 16];
                for (j, &x) in group.iter().enumerate() {
                    let at = i * BLOCK + j;
                    let q = i32::from(plane.high[at]) * 256 + i32::from(plane.low[at]);
                    let y = plane.scale[i] * q as f32;
                    sums[j / 16] += y;
                    prop_assert!((x - y).abs() <= largest / 60_000.0, "{x} became {y}");
                }
                for (sum, ready) in sums.iter().zip(&plane.sums[i * 16..]) {
                    prop_assert!((sum - ready).abs() <= largest * 1e-4);
                }
            }
        }
    }

    #[test]
    fn changed_rows_are_quantized_anew() {
        let (mut inputs, pool) = (Inputs::new(), Pool::new(1));
        for value in [1.0, -2.0] {
            inputs.reset(1, 32).fill(value);
            inputs.quantize(&pool, &NATURAL);
            inputs.halve(&pool, &NATURAL);
            assert_eq!(inputs.planes[0].sums[0], 16.0 * value);
            assert_eq!(u32::from(inputs.half(&NATURAL)[31]) << 16, f32::to_bits(value));
        }
    }
}
