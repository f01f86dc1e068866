//! The encoder of IQ2_XS: exhaustive search of the grid.

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
    let (magnitudes, signs) = split_signs(x, true);
    let steps = Steps { first: 0.125, each: 0.25, last: 15.0 };
    let Choice { d, s, entries, .. } = choose(books, steps, 16, &magnitudes);
    block[..2].copy_from_slice(&d.to_le_bytes());
    for (i, (entry, signs)) in entries.iter().zip(signs).enumerate() {
        let vector = entry | u16::from(signs & 127) << 9;
        block[2 + 2 * i..][..2].copy_from_slice(&vector.to_le_bytes());
    }
    for (g, s) in s.iter().enumerate() {
        block[66 + g / 2] |= s << (g % 2 * 4);
    }
}
