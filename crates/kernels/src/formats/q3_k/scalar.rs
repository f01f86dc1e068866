//! The reference kernel of Q3_K.

use super::{BYTES, LEN};
use crate::formats::f16_at;

/// Whole blocks to f32.
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(LEN)) {
        let d = f16_at(block, 108);
        for (g, out) in out.chunks_exact_mut(16).enumerate() {
            let scale = d * (f32::from(scale(&block[96..108], g)) - 32.0);
            let high = &block[g % 2 * 16..][..16];
            let low = &block[32 + g / 8 * 32 + g % 2 * 16..][..16];
            for ((w, &high), &low) in out.iter_mut().zip(high).zip(low) {
                let code = low >> (g / 2 % 4 * 2) & 3 | (high >> (g / 2) & 1) << 2;
                *w = scale * (f32::from(code) - 4.0);
            }
        }
    }
}

/// The 6-bit scale of group `g` (0..16).
pub(crate) fn scale(scales: &[u8], g: usize) -> u8 {
    scales[g % 8] >> (g / 8 * 4) & 15 | (scales[8 + g % 4] >> (g / 4 * 2) & 3) << 4
}
