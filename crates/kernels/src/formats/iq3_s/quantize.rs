//! The encoder of IQ3_S: exhaustive search of the grid.

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
    let (magnitudes, signs) = split_signs(x, false);
    let steps = Steps { first: 1.0, each: 2.0, last: 15.0 };
    let Choice { d, s, entries, .. } = choose(books, steps, 32, &magnitudes);
    block[..2].copy_from_slice(&d.to_le_bytes());
    block[74..106].copy_from_slice(&signs);
    for (i, entry) in entries.iter().enumerate() {
        block[2 + i] = *entry as u8;
        block[66 + i / 8] |= ((entry >> 8) as u8) << (i % 8);
    }
    for (g, s) in s.iter().enumerate() {
        block[106 + g / 2] |= s << (g % 2 * 4);
    }
}
