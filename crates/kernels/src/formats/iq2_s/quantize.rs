//! The encoder of IQ2_S: exhaustive search of the grid.

use super::tables::GRID;
use super::{BYTES, LEN};
use crate::formats::grid_search::{Choice, Codebook, Steps, choose, split_signs};
use crate::formats::search::each_block;

/// f32 to whole blocks.
pub(super) fn encode(weights: &[f32], bytes: &mut [u8]) {
    let books = [Codebook::new(GRID.iter().map(|e| e.to_le_bytes().map(f32::from)))];
    each_block::<LEN, BYTES>(weights, bytes, |x, bytes| block(&books, x, bytes));
}

fn block(books: &[Codebook<8>], x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let (magnitudes, signs) = split_signs(x, false);
    let steps = Steps { first: 0.125, each: 0.25, last: 15.0 };
    let Choice { d, s, entries, .. } = choose(books, steps, 16, &magnitudes);
    block[..2].copy_from_slice(&d.to_le_bytes());
    block[34..66].copy_from_slice(&signs);
    for (i, entry) in entries.iter().enumerate() {
        block[2 + i] = *entry as u8;
        block[66 + i / 4] |= ((entry >> 8) as u8) << (i % 4 * 2);
    }
    for (g, s) in s.iter().enumerate() {
        block[74 + g / 2] |= s << (g % 2 * 4);
    }
}
