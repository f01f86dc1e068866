//! The reference kernel of Q5_1.

use super::{BYTES, LEN};
use crate::formats::{f16_at, u32_at};

/// Whole blocks to f32.
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(LEN)) {
        let (d, m, high) = (f16_at(block, 0), f16_at(block, 2), u32_at(block, 4));
        for (i, w) in out.iter_mut().enumerate() {
            let low = block[8 + i % 16] >> (i / 16 * 4) & 15;
            let code = low | ((high >> i & 1) as u8) << 4;
            *w = d * f32::from(code) + m;
        }
    }
}
