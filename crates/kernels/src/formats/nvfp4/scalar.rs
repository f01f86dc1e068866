//! The reference kernel of NVFP4.

use super::{BYTES, LEN, half_scale};
use crate::formats::mxfp4::DOUBLED;

/// Whole blocks to f32.
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(LEN)) {
        for (g, out) in out.chunks_exact_mut(16).enumerate() {
            let scale = half_scale(block[g]);
            for (i, w) in out.iter_mut().enumerate() {
                let code = block[4 + 8 * g + i % 8] >> (i / 8 * 4) & 15;
                *w = scale * f32::from(DOUBLED[usize::from(code)]);
            }
        }
    }
}
