//! The reference kernel of Q4_0.

use super::{BYTES, LEN};
use crate::formats::f16_at;

/// Whole blocks to f32.
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(LEN)) {
        let d = f16_at(block, 0);
        for (i, w) in out.iter_mut().enumerate() {
            let code = block[2 + i % 16] >> (i / 16 * 4) & 15;
            *w = d * (f32::from(code) - 8.0);
        }
    }
}
