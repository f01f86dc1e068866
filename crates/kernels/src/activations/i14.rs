//! Activations of 14 bits with a scale for 256, as 16-bit words: for products of words on AVX2.

use super::{Parts, round_to_ints, write_in_order};
use crate::buffer::Aligned;
use crate::cpu::Tier;
use crate::isa::avx2::i14::{I14Row, LARGEST, WORDS};
use crate::isa::{BLOCK, Order};
use crate::ops::simd;

/// 14-bit activations in the order [`WORDS`].
#[derive(Debug, Default)]
pub(super) struct I14 {
    words: Aligned<i16>,  // [rows, blocks, 256]
    scales: Aligned<f32>, // [rows, blocks]
}

/// All blocks of an encoding.
#[derive(Debug)]
pub(super) struct Blocks<'a> {
    words: Parts<'a, i16>,
    scales: Parts<'a, f32>,
}

impl Blocks<'_> {
    /// # Safety
    /// No block is encoded by two workers at a time.
    pub(super) unsafe fn encode(&self, tier: Tier, block: usize, floats: &[f32]) {
        // SAFETY: by contract.
        let (words, scale) = unsafe { (self.words.of(block), self.scales.of(block)) };
        scale[0] = quantize(tier, floats, &WORDS, words);
    }
}

impl I14 {
    /// Room for `count` blocks.
    pub(super) fn blocks(&mut self, count: usize) -> Blocks<'_> {
        Blocks {
            words: Parts::new(&mut self.words, count, BLOCK),
            scales: Parts::new(&mut self.scales, count, 1),
        }
    }

    /// The first row.
    pub(super) fn first(&self) -> I14Row {
        I14Row { words: self.words.as_ptr(), scales: self.scales.as_ptr() }
    }
}

simd! {
    /// Turns up to 256 numbers to words in this order, and returns their scale.
    fn quantize(Tier, floats: &[f32], order: &Order, out: &mut [i16]) -> f32 {
        let (integers, scale) = round_to_ints::<BLOCK>(floats, LARGEST);
        let mut words = [[0i16; 4]; BLOCK / 4];
        words.as_flattened_mut().iter_mut().zip(&integers).for_each(|(to, &i)| *to = i as i16);
        write_in_order(&words, order, out);
        scale
    }
}
