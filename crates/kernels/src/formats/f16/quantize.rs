//! The encoder of F16: IEEE rounding.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::{BYTES, RUN};

/// Rounds to nearest, ties to even; what is beyond the range becomes infinite.
pub(super) fn encode(weights: &[f32], bytes: &mut [u8]) {
    let mut rounded = [f16::ZERO; RUN];
    for (weights, bytes) in weights.chunks(RUN).zip(bytes.chunks_mut(RUN * BYTES)) {
        let rounded = &mut rounded[..weights.len()];
        rounded.convert_from_f32_slice(weights);
        for (number, bytes) in rounded.iter().zip(bytes.chunks_exact_mut(BYTES)) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
    }
}
