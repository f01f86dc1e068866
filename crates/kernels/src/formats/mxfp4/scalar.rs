//! The reference kernel of MXFP4.

use super::{BYTES, DOUBLED, LEN, half_scale};

/// Whole blocks to f32.
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(LEN)) {
        let scale = half_scale(block[0]);
        for (i, w) in out.iter_mut().enumerate() {
            let code = block[1 + i % 16] >> (i / 16 * 4) & 15;
            *w = scale * f32::from(DOUBLED[usize::from(code)]);
        }
    }
}
