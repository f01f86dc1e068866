//! Activations of 8 bits with a scale for 32; [`crate::isa::i8`] draws them.

use super::{Parts, round_to_ints};
use crate::buffer::Aligned;
use crate::cpu::Tier;
use crate::isa::BLOCK;
use crate::isa::i8::{FACTORS, I8Row, LARGEST, SCALED, SUMS_16, SUMS_32};
use crate::ops::simd;

/// 8-bit activations; see [`I8Row`] for the fields.
#[derive(Debug, Default)]
pub(super) struct I8 {
    numbers: Aligned<i8>,  // [rows, blocks, 256]
    factors: Aligned<i32>, // [rows, blocks, 32]
}

/// All blocks of an encoding.
#[derive(Debug)]
pub(super) struct Blocks<'a> {
    numbers: Parts<'a, i8>,
    factors: Parts<'a, i32>,
}

impl Blocks<'_> {
    /// # Safety
    /// No block is encoded by two workers at a time.
    pub(super) unsafe fn encode(&self, tier: Tier, block: usize, floats: &[f32]) {
        // SAFETY: by contract.
        let (numbers, factors) = unsafe { (self.numbers.of(block), self.factors.of(block)) };
        quantize(tier, floats, numbers, factors);
    }
}

impl I8 {
    /// Room for `count` blocks.
    pub(super) fn blocks(&mut self, count: usize) -> Blocks<'_> {
        Blocks {
            numbers: Parts::new(&mut self.numbers, count, BLOCK),
            factors: Parts::new(&mut self.factors, count, FACTORS),
        }
    }

    /// The first row.
    pub(super) fn first(&self) -> I8Row {
        I8Row { numbers: self.numbers.as_ptr(), factors: self.factors.as_ptr() }
    }
}

simd! {
    /// Quantizes up to 256 numbers, in natural order, with the factors of [`I8Row`].
    fn quantize(Tier, floats: &[f32], out: &mut [i8], factors: &mut [i32]) {
        let mut padded = [0.0f32; BLOCK];
        padded[..floats.len()].copy_from_slice(floats);
        let (scales, sums) = factors.split_at_mut(SUMS_16);
        let (sixteens, groups) = sums.split_at_mut(SUMS_32 - SUMS_16);
        let parts = padded.chunks_exact(SCALED).zip(out.chunks_exact_mut(SCALED));
        let sums = sixteens.chunks_exact_mut(SCALED / 16);
        for ((scale, sums), (floats, out)) in scales.iter_mut().zip(sums).zip(parts) {
            let (integers, factor) = round_to_ints::<SCALED>(floats, LARGEST);
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
}
