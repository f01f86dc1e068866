//! Activations of 14 bits with a scale for 256, as 16-bit words: for products of words on AVX2.

use super::{RowsMut, Source, round_to_ints};
use crate::buffer::Aligned;
use crate::isa::avx2::i14::{I14Row, LARGEST, WORDS};
use crate::isa::{BLOCK, Order};
use crate::ops::with_simd;

/// 14-bit activations in the order [`WORDS`].
#[derive(Debug, Default)]
pub(super) struct I14 {
    words: Aligned<i16>,  // [rows, blocks, 256]
    scales: Aligned<f32>, // [rows, blocks]
}

impl I14 {
    pub(super) fn derive(&mut self, source: Source<'_>) {
        let (rows, blocks) = (source.rows, source.blocks());
        let words = RowsMut::new(&mut self.words, rows, blocks * BLOCK);
        let scales = RowsMut::new(&mut self.scales, rows, blocks);
        source.for_each_row(&|row, floats| {
            // SAFETY: each row is written by one task.
            let (words, scales) = unsafe { (words.row(row), scales.row(row)) };
            let out = words.chunks_exact_mut(BLOCK).zip(scales);
            with_simd(source.tier, || {
                for (floats, (words, scale)) in floats.zip(out) {
                    *scale = quantize(floats, &WORDS, words);
                }
            });
        });
    }

    /// The first row.
    pub(super) fn first(&self) -> I14Row {
        I14Row { words: self.words.as_ptr(), scales: self.scales.as_ptr() }
    }
}

/// Turns up to 256 numbers to words in this order, and returns their scale.
#[inline(always)]
fn quantize(floats: &[f32], order: &Order, out: &mut [i16]) -> f32 {
    let (integers, scale) = round_to_ints::<BLOCK>(floats, LARGEST);
    let numbers = integers.map(|i| i as i16);
    for (to, &quad) in out.chunks_exact_mut(4).zip(&order.quads) {
        to.copy_from_slice(&numbers[usize::from(quad) * 4..][..4]);
    }
    scale
}
