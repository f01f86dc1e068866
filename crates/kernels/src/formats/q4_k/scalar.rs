//! The reference kernel of Q4_K.

use super::{BYTES, LEN};
use crate::formats::f16_at;

/// Whole blocks to f32.
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(LEN)) {
        let (d, m) = (f16_at(block, 0), f16_at(block, 2));
        for (g, out) in out.chunks_exact_mut(32).enumerate() {
            let (scale, min) = scale_and_min(&block[4..16], g);
            let (scale, min) = (d * f32::from(scale), m * f32::from(min));
            let run = &block[16 + g / 2 * 32..][..32];
            for (w, &codes) in out.iter_mut().zip(run) {
                *w = scale * f32::from(codes >> (g % 2 * 4) & 15) - min;
            }
        }
    }
}

/// The 6-bit scale and minimum of group `g` (0..8), shared with Q5_K.
pub(crate) fn scale_and_min(scales: &[u8], g: usize) -> (u8, u8) {
    if g < 4 {
        (scales[g] & 63, scales[g + 4] & 63)
    } else {
        let (low, high_s, high_n) = (scales[g + 4], scales[g - 4], scales[g]);
        (low & 15 | high_s >> 6 << 4, low >> 4 | high_n >> 6 << 4)
    }
}
