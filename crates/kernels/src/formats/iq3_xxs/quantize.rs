//! The encoder of IQ3_XXS: exhaustive search of the grid.

use super::tables::GRID;
use super::{BYTES, LEN};
use crate::formats::grid_search::{Choice, Codebook, Steps, choose, split_signs};
use crate::formats::search::each_block;

/// f32 to whole blocks.
pub(super) fn encode(weights: &[f32], bytes: &mut [u8]) {
    let books = [Codebook::new(GRID.iter().map(|e| e.to_le_bytes().map(f32::from)))];
    each_block::<LEN, BYTES>(weights, bytes, |x, bytes| block(&books, x, bytes));
}

fn block(books: &[Codebook<4>], x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let (magnitudes, signs) = split_signs(x, true);
    let steps = Steps { first: 0.25, each: 0.5, last: 15.0 };
    let Choice { d, s, entries, .. } = choose(books, steps, 32, &magnitudes);
    block[..2].copy_from_slice(&d.to_le_bytes());
    for (i, entry) in entries.iter().enumerate() {
        block[2 + i] = *entry as u8;
    }
    for (g, bytes) in block[66..].chunks_exact_mut(4).enumerate() {
        let signs = &signs[4 * g..][..4];
        let signs = signs.iter().rev().fold(0, |bits, signs| bits << 7 | u32::from(signs & 127));
        bytes.copy_from_slice(&(signs | u32::from(s[g]) << 28).to_le_bytes());
    }
}
