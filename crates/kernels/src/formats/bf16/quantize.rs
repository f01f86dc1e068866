//! The encoder of BF16: IEEE rounding.

use half::bf16;

use super::BYTES;

/// Rounds to nearest, ties to even; what is beyond the range becomes infinite.
pub(super) fn encode(weights: &[f32], bytes: &mut [u8]) {
    for (&w, bytes) in weights.iter().zip(bytes.chunks_exact_mut(BYTES)) {
        bytes.copy_from_slice(&bf16::from_f32(w).to_le_bytes());
    }
}
