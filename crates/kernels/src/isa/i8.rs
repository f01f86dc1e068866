//! Activations of 8 bits: half of the bytes and of the products of 16, for gemm with matrices that
//! tolerate them ([`crate::ActBits::Eight`]).

/// Activations that share a scale.
pub(crate) const SCALED: usize = 32;
/// Largest magnitude of an activation.
pub(crate) const LARGEST: f32 = 127.0;
/// Where the sums of 16 activations, and of 32, begin in [`I8Row::factors`] of a block, and where
/// it ends.
pub(crate) const SUMS_16: usize = 8;
pub(crate) const SUMS_32: usize = 24;
pub(crate) const FACTORS: usize = 32;

/// A row of activations of 8 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct I8Row {
    /// `[blocks][256]`, in natural order.
    pub(crate) numbers: *const i8,
    /// `[blocks][32]`: the scales of 8 groups of 32 numbers, as the bits of an f32; the negative
    /// sums of 16 groups of 16 and of 8 groups of 32 numbers.
    pub(crate) factors: *const i32,
}

// SAFETY: two addresses; reading through them is unsafe and has its own reasons.
unsafe impl Send for I8Row {}

impl I8Row {
    /// The row from a block on.
    #[inline(always)]
    pub(crate) fn from(self, block: usize) -> Self {
        Self {
            numbers: self.numbers.wrapping_add(block * super::BLOCK),
            factors: self.factors.wrapping_add(block * FACTORS),
        }
    }
}

/// Where in [`I8Row::factors`] of a block the sum of a group of numbers is.
#[inline(always)]
pub(crate) const fn sum_at(group: usize, index: usize) -> usize {
    if group == 32 { SUMS_32 + index } else { SUMS_16 + index }
}
