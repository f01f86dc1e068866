//! The reference kernel of Q5_K.

use super::{BYTES, LEN};
use crate::formats::f16_at;
use crate::formats::q4_k::scalar::scale_and_min;

/// Whole blocks to f32.
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(LEN)) {
        let (d, m) = (f16_at(block, 0), f16_at(block, 2));
        for (g, out) in out.chunks_exact_mut(32).enumerate() {
            let (scale, min) = scale_and_min(&block[4..16], g);
            let (scale, min) = (d * f32::from(scale), m * f32::from(min));
            let (high, low) = (&block[16..48], &block[48 + g / 2 * 32..][..32]);
            for ((w, &high), &low) in out.iter_mut().zip(high).zip(low) {
                let code = low >> (g % 2 * 4) & 15 | (high >> g & 1) << 4;
                *w = scale * f32::from(code) - min;
            }
        }
    }
}
