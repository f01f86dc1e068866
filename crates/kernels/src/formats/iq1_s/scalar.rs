//! The reference kernel of IQ1_S.

use super::tables::GRID;
use super::{BYTES, LEN, SHIFT};
use crate::formats::{f16_at, u16_at};

/// Whole blocks to f32.
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(LEN)) {
        let d = f16_at(block, 0);
        for (i, out) in out.chunks_exact_mut(8).enumerate() {
            let head = u16_at(block, 34 + i / 4 * 2);
            let scale = d * (2.0 * f32::from(head >> 12 & 7) + 1.0);
            let shift = if head >> 15 == 1 { -SHIFT } else { SHIFT };
            let index = usize::from(block[2 + i]) | usize::from(head >> (i % 4 * 3) & 7) << 8;
            for (w, v) in out.iter_mut().zip(GRID[index].to_le_bytes()) {
                *w = scale * (f32::from(v as i8) + shift);
            }
        }
    }
}
