//! The reference kernel of F32.

use super::BYTES;
use crate::formats::u32_at;

/// Copies.
#[inline(always)]
pub(crate) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (bytes, w) in bytes.chunks_exact(BYTES).zip(out) {
        *w = f32::from_bits(u32_at(bytes, 0));
    }
}
