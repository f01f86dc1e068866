//! The encoder of F32: a copy.

use super::BYTES;

/// Writes little-endian.
pub(super) fn encode(weights: &[f32], bytes: &mut [u8]) {
    for (w, bytes) in weights.iter().zip(bytes.chunks_exact_mut(BYTES)) {
        bytes.copy_from_slice(&w.to_le_bytes());
    }
}
