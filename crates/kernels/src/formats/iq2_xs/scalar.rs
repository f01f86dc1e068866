//! The reference kernel of IQ2_XS.

use super::tables::GRID;
use super::{BYTES, LEN};
use crate::formats::grid::{even_signs, signed};
use crate::formats::{f16_at, u16_at};

/// Whole blocks to f32.
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(LEN)) {
        let d = f16_at(block, 0);
        for (i, out) in out.chunks_exact_mut(8).enumerate() {
            let vector = u16_at(block, 2 + 2 * i);
            let scale = block[66 + i / 4] >> (i / 2 % 2 * 4) & 15;
            let scale = d * (0.5 + f32::from(scale)) * 0.25;
            let levels = GRID[usize::from(vector & 511)].to_le_bytes();
            signed(out, scale, &levels, even_signs((vector >> 9) as u8));
        }
    }
}
