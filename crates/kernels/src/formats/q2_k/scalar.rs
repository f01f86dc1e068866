//! The reference kernel of Q2_K.

use super::{BYTES, LEN};
use crate::formats::f16_at;

/// Whole blocks to f32.
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(LEN)) {
        let (d, m) = (f16_at(block, 80), f16_at(block, 82));
        for (g, out) in out.chunks_exact_mut(16).enumerate() {
            let (scale, min) = (d * f32::from(block[g] & 15), m * f32::from(block[g] >> 4));
            let codes = &block[16 + g / 8 * 32 + g % 2 * 16..][..16];
            for (w, &codes) in out.iter_mut().zip(codes) {
                *w = scale * f32::from(codes >> (g / 2 % 4 * 2) & 3) - min;
            }
        }
    }
}
