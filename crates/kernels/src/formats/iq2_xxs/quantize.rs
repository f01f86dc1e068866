//! The encoder of IQ2_XXS: exhaustive search of the grid.

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
    let Choice { d, s, entries, .. } = choose(books, steps, 32, &magnitudes);
    block[..2].copy_from_slice(&d.to_le_bytes());
    for (g, group) in block[2..].chunks_exact_mut(8).enumerate() {
        let mut signs_and_scale = u32::from(s[g]) << 28;
        for i in 0..4 {
            group[i] = entries[4 * g + i] as u8;
            signs_and_scale |= u32::from(signs[4 * g + i] & 127) << (7 * i);
        }
        group[4..].copy_from_slice(&signs_and_scale.to_le_bytes());
    }
}
