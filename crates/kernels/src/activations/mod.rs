//! Vectors to multiply, in the encodings that the kernels take.
//!
//! The caller fills f32 rows, or says how they are made ([`crate::Inputs`]); each encoding is
//! derived once, in the first phase of the region that multiplies it first, and shared by all
//! products with the same rows (the query and the latent projection; gate and up of all experts):
//!
//! - [`SplitI16`]: 16-bit integers with one scale for 256 activations, as two bytes, for gemv and
//!   gemm on AVX-512;
//! - [`I16`]: the same integers as words, for gemv on AVX2;
//! - [`I8`]: 8-bit integers with a scale for 32, for gemm with [`crate::ActBits::Eight`];
//! - [`I14`]: integers of 14 bits, for other gemm on AVX2;
//! - [`Bf16`]: for AMX tiles.
//!
//! Scales and sums are f32: in f16 they overflow on R1. A block that contains a NaN or an infinity
//! has a NaN for a scale, so that every product with it is NaN: integers alone would hide it.

mod bf16;
#[cfg(target_arch = "x86_64")]
mod i14;
#[cfg(target_arch = "x86_64")]
mod i16;
#[cfg(target_arch = "x86_64")]
mod i8;
mod split_i16;

use crate::buffer::{Aligned, Plain, Shared, recycle};
use crate::cpu::Tier;
use crate::isa::{BLOCK, Order, SplitI16Row};
#[cfg(target_arch = "x86_64")]
use crate::isa::{I16Row, avx2::i14::I14Row, i8::I8Row};
use bf16::Bf16;
use split_i16::SplitI16;
#[cfg(target_arch = "x86_64")]
use {i8::I8, i14::I14, i16::I16};

/// Rows of f32 activations `[rows, cols]` and what was derived from them.
#[derive(Debug, Default)]
pub struct Activations {
    rows: usize,
    cols: usize,
    floats: Aligned<f32>, // [rows, cols]
    split_i16: Vec<Ordered<SplitI16>>,
    bf16: Vec<Ordered<Bf16>>,
    #[cfg(target_arch = "x86_64")]
    i8: Derived<I8>,
    #[cfg(target_arch = "x86_64")]
    i14: Derived<I14>,
    #[cfg(target_arch = "x86_64")]
    i16: Derived<I16>,
    targets: Vec<Target<'static>>, // empty: its memory is kept
}

/// An encoding, and whether it is that of the present rows.
#[derive(Debug, Default)]
struct Derived<E> {
    state: State,
    encoding: E,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum State {
    #[default]
    Stale,
    /// To be derived in the next region.
    Wanted,
    Fresh,
}

impl<E> Derived<E> {
    fn want(&mut self) {
        if self.state == State::Stale {
            self.state = State::Wanted;
        }
    }

    /// The encoding, if it is to be derived.
    fn wanted(&mut self) -> Option<&mut E> {
        (self.state == State::Wanted).then_some(&mut self.encoding)
    }

    fn derived(&mut self) {
        if self.state == State::Wanted {
            self.state = State::Fresh;
        }
    }

    /// That of the present rows. In the region that derives it, only after it has been derived.
    fn present(&self) -> &E {
        assert!(self.state != State::Stale, "encoded before it is multiplied");
        &self.encoding
    }
}

/// An encoding in one order.
#[derive(Debug)]
struct Ordered<E> {
    order: &'static Order,
    derived: Derived<E>,
}

/// Where the blocks of an encoding go.
#[derive(Debug)]
enum Target<'a> {
    SplitI16(split_i16::Blocks<'a>, &'static Order),
    Bf16(Parts<'a, u16>, &'static Order),
    #[cfg(target_arch = "x86_64")]
    I8(i8::Blocks<'a>),
    #[cfg(target_arch = "x86_64")]
    I14(i14::Blocks<'a>),
    #[cfg(target_arch = "x86_64")]
    I16(i16::Blocks<'a>),
}

/// Rows that several workers fill, and the encodings that they derive from them.
#[derive(Debug)]
pub(crate) struct Encoder<'a> {
    floats: Shared<'a, f32>, // [rows, cols]
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    targets: Vec<Target<'a>>,
}

impl<'a> Encoder<'a> {
    /// Whether an encoding is to be derived.
    pub(crate) fn derives(&self) -> bool {
        !self.targets.is_empty()
    }

    /// Blocks of 256 numbers in a row, the last one perhaps incomplete.
    pub(crate) fn blocks_of_row(&self) -> usize {
        self.cols.div_ceil(BLOCK)
    }

    /// `count` rows from `first` on.
    ///
    /// # Safety
    /// No two slices that live at the same time have a row in common, nor is any encoded.
    pub(crate) unsafe fn rows(&self, first: usize, count: usize) -> &'a mut [f32] {
        // SAFETY: by contract.
        unsafe { self.floats.slice(first * self.cols, count * self.cols) }
    }

    /// Derives all encodings of a block, as all rows number them.
    ///
    /// # Safety
    /// No block is encoded by two workers, and its numbers are not written meanwhile.
    pub(crate) unsafe fn encode(&self, tier: Tier, block: usize) {
        let (row, from) = (block / self.blocks_of_row(), block % self.blocks_of_row() * BLOCK);
        let len = BLOCK.min(self.cols - from);
        // SAFETY: by contract, this worker has the block.
        let floats = unsafe { &*self.floats.slice(row * self.cols + from, len) };
        for target in &self.targets {
            // SAFETY: as above.
            unsafe {
                match target {
                    Target::SplitI16(to, order) => to.encode(tier, block, floats, order),
                    Target::Bf16(to, order) => bf16::convert(tier, floats, order, to.of(block)),
                    #[cfg(target_arch = "x86_64")]
                    Target::I8(to) => to.encode(tier, block, floats),
                    #[cfg(target_arch = "x86_64")]
                    Target::I14(to) => to.encode(tier, block, floats),
                    #[cfg(target_arch = "x86_64")]
                    Target::I16(to) => to.encode(tier, block, floats),
                }
            }
        }
    }
}

/// Parts of `width` elements, one for each block, that are written by several workers.
#[derive(Debug)]
struct Parts<'a, T> {
    elements: Shared<'a, T>,
    width: usize,
}

impl<'a, T: Plain> Parts<'a, T> {
    fn new(buffer: &'a mut Aligned<T>, blocks: usize, width: usize) -> Self {
        buffer.resize(blocks * width);
        Self { elements: buffer.shared(), width }
    }

    /// # Safety
    /// No part is taken by two workers at a time.
    unsafe fn of(&self, block: usize) -> &'a mut [T] {
        // SAFETY: parts are disjoint, and by contract one worker has this one.
        unsafe { self.elements.slice(block * self.width, self.width) }
    }
}

impl Activations {
    /// No rows yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Room for `rows` x `cols` numbers, to be filled by the caller; what was there is forgotten.
    pub fn reset(&mut self, rows: usize, cols: usize) -> &mut [f32] {
        (self.rows, self.cols) = (rows, cols);
        self.split_i16.iter_mut().for_each(|ordered| ordered.derived.state = State::Stale);
        self.bf16.iter_mut().for_each(|ordered| ordered.derived.state = State::Stale);
        #[cfg(target_arch = "x86_64")]
        {
            self.i8.state = State::Stale;
            self.i14.state = State::Stale;
            self.i16.state = State::Stale;
        }
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

    /// The 16-bit form in this order is to be derived, unless it is there.
    pub(crate) fn want_split_i16(&mut self, order: &'static Order) {
        in_order(&mut self.split_i16, order).want();
    }

    /// As [`Activations::want_split_i16`], of bf16.
    pub(crate) fn want_bf16(&mut self, order: &'static Order) {
        in_order(&mut self.bf16, order).want();
    }

    /// The form of 8 bits is to be derived, unless it is there.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn want_i8(&mut self) {
        self.i8.want();
    }

    /// As [`Activations::want_i8`], of 14 bits.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn want_i14(&mut self) {
        self.i14.want();
    }

    /// As [`Activations::want_i8`], of 16-bit words.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn want_i16(&mut self) {
        self.i16.want();
    }

    /// What fills the rows and derives the encodings that are wanted.
    pub(crate) fn encoder(&mut self) -> Encoder<'_> {
        let (rows, cols) = (self.rows, self.cols);
        let count = rows * self.blocks();
        let mut targets = recycle(std::mem::take(&mut self.targets));
        for Ordered { order, derived } in &mut self.split_i16 {
            targets.extend(derived.wanted().map(|to| Target::SplitI16(to.blocks(count), order)));
        }
        for Ordered { order, derived } in &mut self.bf16 {
            let of_row = cols.div_ceil(BLOCK);
            targets.extend(derived.wanted().map(|to| Target::Bf16(to.blocks(rows, of_row), order)));
        }
        #[cfg(target_arch = "x86_64")]
        {
            targets.extend(self.i8.wanted().map(|to| Target::I8(to.blocks(count))));
            targets.extend(self.i14.wanted().map(|to| Target::I14(to.blocks(count))));
            targets.extend(self.i16.wanted().map(|to| Target::I16(to.blocks(count))));
        }
        Encoder { floats: self.floats.shared(), rows, cols, targets }
    }

    /// All that was wanted has been derived; `memory` is that of [`Encoder`]'s list.
    pub(crate) fn encoded(&mut self, memory: EncoderMemory) {
        self.targets = memory.0;
        self.split_i16.iter_mut().for_each(|ordered| ordered.derived.derived());
        self.bf16.iter_mut().for_each(|ordered| ordered.derived.derived());
        #[cfg(target_arch = "x86_64")]
        {
            self.i8.derived();
            self.i14.derived();
            self.i16.derived();
        }
    }

    /// Rows of an encoding whose first row is `first`; `from` goes on from a row by some blocks.
    fn by_row<R: Copy>(&self, first: R, from: impl Fn(R, usize) -> R) -> impl Fn(usize) -> R {
        let (rows, blocks) = (self.rows, self.blocks());
        move |row| {
            assert!(row < rows, "row {row} of {rows}");
            from(first, row * blocks)
        }
    }

    /// Rows of 16 bits in this order; panics for a row that does not exist.
    pub(crate) fn split_i16(&self, order: &Order) -> impl Fn(usize) -> SplitI16Row {
        self.by_row(in_this_order(&self.split_i16, order).first(), SplitI16Row::from)
    }

    /// Rows of 8 bits; panics for a row that does not exist.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn i8(&self) -> impl Fn(usize) -> I8Row {
        self.by_row(self.i8.present().first(), I8Row::from)
    }

    /// Rows of 14 bits, each from block `block` on; panics for a row that does not exist.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn i14(&self, block: usize) -> impl Fn(usize) -> I14Row {
        assert!(block < self.blocks(), "block {block} of {}", self.blocks());
        self.by_row(self.i14.present().first().from(block), I14Row::from)
    }

    /// Rows of 16-bit words; panics for a row that does not exist.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn i16(&self) -> impl Fn(usize) -> I16Row {
        self.by_row(self.i16.present().first(), I16Row::from)
    }

    /// All rows as bf16 in this order, `[rows to a multiple of 16, blocks * 256]`.
    pub(crate) fn bf16(&self, order: &Order) -> &[u16] {
        in_this_order(&self.bf16, order).numbers()
    }
}

/// The encoding in `order`, made if there is none.
fn in_order<'a, E: Default>(
    all: &'a mut Vec<Ordered<E>>,
    order: &'static Order,
) -> &'a mut Derived<E> {
    let index = all.iter().position(|ordered| ordered.order.is_same(order));
    let index = index.unwrap_or_else(|| {
        all.push(Ordered { order, derived: Derived::default() });
        all.len() - 1
    });
    &mut all[index].derived
}

/// The encoding in `order` of the present rows.
fn in_this_order<'a, E>(all: &'a [Ordered<E>], order: &Order) -> &'a E {
    let found = all.iter().find(|ordered| ordered.order.is_same(order));
    let Some(found) = found else { unreachable!("encoded before it is multiplied") };
    found.derived.present()
}

/// The memory of an [`Encoder`]'s list, to be used again.
pub(crate) struct EncoderMemory(Vec<Target<'static>>);

impl From<Encoder<'_>> for EncoderMemory {
    fn from(encoder: Encoder<'_>) -> Self {
        Self(recycle(encoder.targets))
    }
}

/// Writes the quads of a block in this order.
#[inline(always)]
fn write_in_order<T: Copy>(quads: &[[T; 4]; BLOCK / 4], order: &Order, out: &mut [T]) {
    let (out, _) = out.as_chunks_mut::<4>();
    for (to, &quad) in out.iter_mut().zip(&order.quads) {
        *to = quads[usize::from(quad) % quads.len()]; // in range without a check
    }
}

/// The scale that makes numbers up to `largest`, the bits of a magnitude, integers up to `limit`,
/// and its inverse. That of a NaN or an infinity is NaN; that of numbers too small for a normal
/// scale, which are zero next to anything that matters, is zero with an inverse of zero.
#[inline(always)]
fn scale_for(largest: u32, limit: f32) -> (f32, f32) {
    if largest >= f32::INFINITY.to_bits() {
        return (f32::NAN, f32::NAN);
    }
    let scale = f32::from_bits(largest) / limit;
    if scale < f32::MIN_POSITIVE { (0.0, 0.0) } else { (scale, 1.0 / scale) }
}

/// Up to `N` numbers as integers of magnitudes up to `limit`, and their scale; missing ones count
/// as zero. With a NaN or an infinity among them, the scale is NaN and the integers are zero.
#[inline(always)]
fn round_to_ints<const N: usize>(floats: &[f32], limit: f32) -> ([i32; N], f32) {
    let mut padded = [0.0f32; N];
    padded[..floats.len()].copy_from_slice(floats);
    let mut integers = [0i32; N];
    // Comparing magnitudes as integers carries NaN along: its bits are above those of infinity.
    let largest = padded.iter().fold(0u32, |a, &x| a.max(x.to_bits() & 0x7FFF_FFFF));
    let (scale, inverse) = scale_for(largest, limit);
    if scale > 0.0 {
        for (i, &x) in integers.iter_mut().zip(&padded) {
            // Adding 1.5·2^23 rounds to the nearest integer and leaves it in the low bits.
            *i = (x * inverse + 12_582_912.0).to_bits().wrapping_sub(0x4B40_0000).cast_signed();
        }
    }
    (integers, scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_not_finite_leave_no_finite_scale() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (integers, scale) = round_to_ints::<4>(&[1.0, bad, 2.0], 127.0);
            assert!(scale.is_nan() && integers == [0; 4], "{bad}");
        }
        assert_eq!(round_to_ints::<4>(&[1.0, -2.0, 0.5], 4.0), ([2, -4, 1, 0], 0.5));
        assert_eq!(round_to_ints::<2>(&[1e-44, 0.0], 127.0), ([0, 0], 0.0));
        assert_eq!(round_to_ints::<2>(&[f32::MAX, f32::MIN], 127.0).0, [127, -127]);
    }
}
