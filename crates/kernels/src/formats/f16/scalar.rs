//! The scalar twin of F16.

use super::BYTES;
use crate::formats::f16_at;

/// Widens; exact.
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (bytes, w) in bytes.chunks_exact(BYTES).zip(out) {
        *w = f16_at(bytes, 0);
    }
}
