//! The reference kernel of Q8_0.

use super::{BYTES, LEN};
use crate::formats::f16_at;

/// Whole blocks to f32.
#[inline(always)]
pub(crate) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(LEN)) {
        let d = f16_at(block, 0);
        for (w, &code) in out.iter_mut().zip(&block[2..]) {
            *w = d * f32::from(code as i8);
        }
    }
}
