//! The encoder of Q4_0: one scale per block, searched.

use super::{BYTES, LEN};
use crate::formats::search::{around, each_block, f16_scale, fit, inverse, round};

/// f32 to whole blocks.
pub(super) fn encode(weights: &[f32], bytes: &mut [u8]) {
    each_block::<LEN, BYTES>(weights, bytes, block);
}

fn block(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let nearest = |v| round(v, -8.0, 7.0);
    let d = f16_scale(fit(x, around(-8.0, 9, 0.1), nearest));
    block[..2].copy_from_slice(&d.to_le_bytes());
    let inverse = inverse(d.to_f32());
    for (i, x) in x.iter().enumerate() {
        let code = (nearest(x * inverse) + 8.0) as u8;
        block[2 + i % 16] |= code << (i / 16 * 4);
    }
}
