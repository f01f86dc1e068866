//! The reference kernel of IQ4_XS.

use super::{BYTES, LEN};
use crate::formats::iq4_nl::LEVELS;
use crate::formats::{f16_at, u16_at};

/// Whole blocks to f32.
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(LEN)) {
        let (d, high) = (f16_at(block, 0), u16_at(block, 2));
        for (g, out) in out.chunks_exact_mut(32).enumerate() {
            let scale = block[4 + g / 2] >> (g % 2 * 4) & 15 | ((high >> (2 * g) & 3) as u8) << 4;
            let scale = d * (f32::from(scale) - 32.0);
            for (i, w) in out.iter_mut().enumerate() {
                let code = block[8 + 16 * g + i % 16] >> (i / 16 * 4) & 15;
                *w = scale * f32::from(LEVELS[usize::from(code)]);
            }
        }
    }
}
