//! The reference kernel of BF16.

use super::BYTES;
use crate::formats::u16_at;

/// Widens; exact.
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (bytes, w) in bytes.chunks_exact(BYTES).zip(out) {
        *w = f32::from_bits(u32::from(u16_at(bytes, 0)) << 16);
    }
}
