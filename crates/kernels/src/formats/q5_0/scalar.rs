//! The reference kernel of Q5_0.

use super::{BYTES, LEN};
use crate::formats::{f16_at, u32_at};

/// Whole blocks to f32.
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(LEN)) {
        let (d, high) = (f16_at(block, 0), u32_at(block, 2));
        for (i, w) in out.iter_mut().enumerate() {
            let low = block[6 + i % 16] >> (i / 16 * 4) & 15;
            let code = low | ((high >> i & 1) as u8) << 4;
            *w = d * (f32::from(code) - 16.0);
        }
    }
}
