//! Activations of 16 bits as words, one scale for 256: for products of words on AVX2.

use super::Parts;
use super::split_i16::{SUMS, integers_and_sums};
use crate::buffer::Aligned;
use crate::cpu::Tier;
use crate::isa::avx2::ORDER;
use crate::isa::{BLOCK, I16Row};
use crate::ops::simd;

/// Activations of 16 bits; see [`I16Row`] for the fields.
#[derive(Debug, Default)]
pub(super) struct I16 {
    words: Aligned<i16>, // [rows, blocks, 256]
    scale: Aligned<f32>, // [rows, blocks]
    sums: Aligned<f32>,  // [rows, blocks, 16]
}

/// All blocks of an encoding.
#[derive(Debug)]
pub(super) struct Blocks<'a> {
    words: Parts<'a, i16>,
    scale: Parts<'a, f32>,
    sums: Parts<'a, f32>,
}

impl Blocks<'_> {
    /// # Safety
    /// No block is encoded by two workers at a time.
    pub(super) unsafe fn encode(&self, tier: Tier, block: usize, floats: &[f32]) {
        // SAFETY: by contract.
        let (words, scale, sums) =
            unsafe { (self.words.of(block), self.scale.of(block), self.sums.of(block)) };
        scale[0] = quantize(tier, floats, words, sums);
    }
}

impl I16 {
    /// Room for `count` blocks.
    pub(super) fn blocks(&mut self, count: usize) -> Blocks<'_> {
        Blocks {
            words: Parts::new(&mut self.words, count, BLOCK),
            scale: Parts::new(&mut self.scale, count, 1),
            sums: Parts::new(&mut self.sums, count, SUMS),
        }
    }

    /// The first row.
    pub(super) fn first(&self) -> I16Row {
        I16Row { words: self.words.as_ptr(), scale: self.scale.as_ptr(), sums: self.sums.as_ptr() }
    }
}

simd! {
    /// Quantizes up to 256 numbers, and returns their scale.
    fn quantize(Tier, floats: &[f32], out: &mut [i16], sums: &mut [f32]) -> f32 {
        let (integers, scale) = integers_and_sums(floats, sums);
        // A register of codes has eight quads; the even bytes of each are multiplied first.
        for (out, quads) in out.chunks_exact_mut(32).zip(ORDER.quads.chunks_exact(8)) {
            let (even, odd) = out.split_at_mut(16);
            for (i, &quad) in quads.iter().enumerate() {
                let at = usize::from(quad) * 4;
                let [a, b, c, d] = [0, 1, 2, 3].map(|j| integers[at + j] as i16);
                (even[2 * i], even[2 * i + 1]) = (a, c);
                (odd[2 * i], odd[2 * i + 1]) = (b, d);
            }
        }
        scale
    }
}
