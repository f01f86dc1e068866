//! The reference kernel of IQ2_XXS.

use super::tables::GRID;
use super::{BYTES, LEN};
use crate::formats::grid::{even_signs, signed};
use crate::formats::{f16_at, u32_at};

/// Whole blocks to f32.
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(LEN)) {
        let d = f16_at(block, 0);
        for (i, out) in out.chunks_exact_mut(8).enumerate() {
            let group = &block[2 + i / 4 * 8..][..8];
            let signs_and_scale = u32_at(group, 4);
            let scale = d * (0.5 + (signs_and_scale >> 28) as f32) * 0.25;
            let signs = even_signs((signs_and_scale >> (i % 4 * 7)) as u8);
            signed(out, scale, &GRID[usize::from(group[i % 4])].to_le_bytes(), signs);
        }
    }
}
