//! Activations of 8 bits with a scale for 32; [`crate::isa::i8`] draws them.

use super::{Parts, Source, round_to_ints};
use crate::buffer::Aligned;
use crate::isa::BLOCK;
use crate::isa::i8::{FACTORS, I8Row, LARGEST, SCALED, SUMS_16, SUMS_32};
use crate::ops::simd;

/// 8-bit activations; see [`I8Row`] for the fields.
#[derive(Debug, Default)]
pub(super) struct I8 {
    numbers: Aligned<i8>,  // [rows, blocks, 256]
    factors: Aligned<i32>, // [rows, blocks, 32]
}

impl I8 {
    pub(super) fn derive(&mut self, source: Source<'_>) {
        let blocks = source.blocks();
        let numbers = Parts::new(&mut self.numbers, blocks, BLOCK);
        let factors = Parts::new(&mut self.factors, blocks, FACTORS);
        source.for_each_block(&|block, floats| {
            // SAFETY: each block is written by one task.
            let (numbers, factors) = unsafe { (numbers.of(block), factors.of(block)) };
            quantize(source.tier, floats, numbers, factors);
        });
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
