//! The reference kernel of IQ3_S.

use super::tables::GRID;
use super::{BYTES, LEN};
use crate::formats::f16_at;
use crate::formats::grid::signed;

/// Whole blocks to f32.
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(LEN)) {
        let d = f16_at(block, 0);
        for (i, out) in out.chunks_exact_mut(4).enumerate() {
            let scale = block[106 + i / 16] >> (i / 8 % 2 * 4) & 15;
            let scale = d * (1.0 + 2.0 * f32::from(scale));
            let high = block[66 + i / 8] >> (i % 8) & 1;
            let index = usize::from(block[2 + i]) | usize::from(high) << 8;
            signed(out, scale, &GRID[index].to_le_bytes(), block[74 + i / 2] >> (i % 2 * 4));
        }
    }
}
