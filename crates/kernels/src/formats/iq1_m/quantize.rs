//! The encoder of IQ1_M: exhaustive search of the grid, shifted up and down.

use super::{BYTES, LEN};
use crate::formats::grid_search::{Choice, Codebook, Steps, choose};
use crate::formats::iq1_s::{SHIFT, tables::GRID};
use crate::formats::search::each_block;

/// f32 to whole blocks.
pub(super) fn encode(weights: &[f32], bytes: &mut [u8]) {
    let books = [both_shifts()];
    each_block::<LEN, BYTES>(weights, bytes, |x, bytes| block(&books, x, bytes));
}

fn block(books: &[Codebook<8>], x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let steps = Steps { first: 1.0, each: 2.0, last: 7.0 };
    let Choice { d, s, entries, .. } = choose(books, steps, 16, x);
    for (i, entry) in entries.iter().enumerate() {
        block[i] = *entry as u8;
        // Entries from 2048 are shifted down: bit 11 lands on the bit that says so.
        block[32 + i / 2] |= ((entry >> 8) as u8) << (i % 2 * 4);
    }
    for (j, s) in s.chunks_exact(4).enumerate() {
        let scales = s.iter().rev().fold(0, |bits, &s| bits << 3 | u16::from(s));
        let part_of_d = d.to_bits() >> (4 * j) << 12;
        block[48 + 2 * j..][..2].copy_from_slice(&(scales | part_of_d).to_le_bytes());
    }
}

/// The grid with all weights shifted up, then the grid with all weights shifted down.
fn both_shifts() -> Codebook<8> {
    let shifted =
        |shift: f32| GRID.iter().map(move |e| e.to_le_bytes().map(|v| f32::from(v as i8) + shift));
    Codebook::new(shifted(SHIFT).chain(shifted(-SHIFT)))
}
