//! Activations of 14 bits with a scale for 256, as 16-bit words: for products of words on AVX2.

use super::{Parts, Source, round_to_ints, write_in_order};
use crate::buffer::Aligned;
use crate::isa::avx2::i14::{I14Row, LARGEST, WORDS};
use crate::isa::{BLOCK, Order};
use crate::ops::simd;

/// 14-bit activations in the order [`WORDS`].
#[derive(Debug, Default)]
pub(super) struct I14 {
    words: Aligned<i16>,  // [rows, blocks, 256]
    scales: Aligned<f32>, // [rows, blocks]
}

impl I14 {
    pub(super) fn derive(&mut self, source: Source<'_>) {
        let blocks = source.blocks();
        let words = Parts::new(&mut self.words, blocks, BLOCK);
        let scales = Parts::new(&mut self.scales, blocks, 1);
        source.for_each_block(&|block, floats| {
            // SAFETY: each block is written by one task.
            let (words, scale) = unsafe { (words.of(block), scales.of(block)) };
            scale[0] = quantize(source.tier, floats, &WORDS, words);
        });
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
