//! Inputs of 8 bits: half of the bytes and of the products of 16, for many columns of matrices that
//! bear it ([`crate::Matrix::coarse`]).

/// Inputs that share a scale.
pub(crate) const SCALED: usize = 32;
/// Largest magnitude of an input.
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
    /// `[blocks][32]`: the scales of 8 groups of 32 inputs, as the bits of an f32; the negative sums of 16 groups
    /// of 16 and of 8 groups of 32 numbers.
    pub(crate) factors: *const i32,
}

/// Where in [`Coarse::factors`] of a block the sum of a group of inputs is.
#[inline(always)]
pub(crate) const fn sum_at(group: usize, index: usize) -> usize {
    if group == 32 { SUMS_32 + index } else { SUMS_16 + index }
}
