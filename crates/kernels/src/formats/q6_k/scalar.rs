//! The reference kernel of Q6_K.

use super::{BYTES, LEN};
use crate::formats::f16_at;

/// Whole blocks to f32.
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(LEN)) {
        let d = f16_at(block, 208);
        for (g, out) in out.chunks_exact_mut(16).enumerate() {
            let scale = d * f32::from(block[192 + g] as i8);
            let (half, k) = (g / 8, g / 2 % 4);
            let low = &block[64 * half + k % 2 * 32 + g % 2 * 16..][..16];
            let high = &block[128 + 32 * half + g % 2 * 16..][..16];
            for ((w, &low), &high) in out.iter_mut().zip(low).zip(high) {
                let code = low >> (k / 2 * 4) & 15 | (high >> (2 * k) & 3) << 4;
                *w = scale * (f32::from(code) - 32.0);
            }
        }
    }
}
