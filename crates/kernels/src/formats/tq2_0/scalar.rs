//! The reference kernel of TQ2_0.

use super::{BYTES, LEN};
use crate::formats::f16_at;

/// Whole blocks to f32.
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(LEN)) {
        let d = f16_at(block, 64);
        for (k, out) in out.chunks_exact_mut(32).enumerate() {
            for (w, codes) in out.iter_mut().zip(&block[k / 4 * 32..]) {
                *w = d * (f32::from(codes >> (k % 4 * 2) & 3) - 1.0);
            }
        }
    }
}
