//! The encoder of TQ2_0: one scale per block, searched.
//!
//! Weights that are ternary keep their values.

use super::{BYTES, LEN};
use crate::formats::search::{around, each_block, f16_scale, fit, inverse, round};

/// f32 to whole blocks.
pub(super) fn encode(weights: &[f32], bytes: &mut [u8]) {
    each_block::<LEN, BYTES>(weights, bytes, block);
}

fn block(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let nearest = |v| round(v, -1.0, 1.0);
    // From the largest weight being a 1 to all weights above an eighth of it being so.
    let d = f16_scale(fit(x, around(2.5, 6, 0.25), nearest).abs());
    block[64..66].copy_from_slice(&d.to_le_bytes());
    let inverse = inverse(d.to_f32());
    for (k, x) in x.chunks_exact(32).enumerate() {
        for (byte, x) in block[k / 4 * 32..].iter_mut().zip(x) {
            *byte |= ((nearest(x * inverse) + 1.0) as u8) << (k % 4 * 2);
        }
    }
}
