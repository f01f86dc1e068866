//! The reference kernel of IQ1_M.

use half::f16;

use super::{BYTES, LEN};
use crate::formats::iq1_s::{SHIFT, tables::GRID};
use crate::formats::u16_at;

/// Whole blocks to f32.
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(LEN)) {
        let scales: [u16; 4] = std::array::from_fn(|j| u16_at(block, 48 + 2 * j));
        let d = scales.iter().rev().fold(0, |d, word| d << 4 | word >> 12);
        let d = f16::from_bits(d).to_f32();
        for (i, out) in out.chunks_exact_mut(8).enumerate() {
            let scale = d * (2.0 * f32::from(scales[i / 8] >> (i / 2 % 4 * 3) & 7) + 1.0);
            let high = block[32 + i / 2] >> (i % 2 * 4) & 15;
            let shift = if high >> 3 == 1 { -SHIFT } else { SHIFT };
            let index = usize::from(block[i]) | usize::from(high & 7) << 8;
            for (w, v) in out.iter_mut().zip(GRID[index].to_le_bytes()) {
                *w = scale * (f32::from(v as i8) + shift);
            }
        }
    }
}
