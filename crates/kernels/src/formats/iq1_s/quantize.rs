//! The encoder of IQ1_S: exhaustive search of the grid, once shifted up and once down.

use super::tables::GRID;
use super::{BYTES, LEN, SHIFT};
use crate::formats::grid_search::{Choice, Codebook, Steps, choose};
use crate::formats::search::each_block;

/// f32 to whole blocks.
pub(super) fn encode(weights: &[f32], bytes: &mut [u8]) {
    let books = [SHIFT, -SHIFT].map(shifted);
    each_block::<LEN, BYTES>(weights, bytes, |x, bytes| block(&books, x, bytes));
}

fn block(books: &[Codebook<8>], x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let steps = Steps { first: 1.0, each: 2.0, last: 7.0 };
    let Choice { d, s, book, entries } = choose(books, steps, 32, x);
    block[..2].copy_from_slice(&d.to_le_bytes());
    for (g, entries) in entries.chunks_exact(4).enumerate() {
        let mut head = u16::from(s[g]) << 12 | u16::from(book[g]) << 15;
        for (i, entry) in entries.iter().enumerate() {
            block[2 + 4 * g + i] = *entry as u8;
            head |= (entry >> 8) << (3 * i);
        }
        block[34 + 2 * g..][..2].copy_from_slice(&head.to_le_bytes());
    }
}

/// The grid with `shift` added to all weights.
fn shifted(shift: f32) -> Codebook<8> {
    Codebook::new(GRID.iter().map(|e| e.to_le_bytes().map(|v| f32::from(v as i8) + shift)))
}
