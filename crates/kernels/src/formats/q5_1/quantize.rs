//! The encoder of Q5_1: scale and offset of a block, searched.

use super::{BYTES, LEN};
use crate::formats::affine::fit;
use crate::formats::search::{each_block, f16_scale, inverse, round};

/// f32 to whole blocks.
pub(super) fn encode(weights: &[f32], bytes: &mut [u8]) {
    each_block::<LEN, BYTES>(weights, bytes, block);
}

fn block(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let (d, m) = fit(x, 31.0, f32::INFINITY);
    let (d, m) = (f16_scale(d), f16_scale(m));
    block[..2].copy_from_slice(&d.to_le_bytes());
    block[2..4].copy_from_slice(&m.to_le_bytes());
    let (inverse, m) = (inverse(d.to_f32()), m.to_f32());
    for (i, x) in x.iter().enumerate() {
        let code = round((x - m) * inverse, 0.0, 31.0) as u8;
        block[8 + i % 16] |= (code & 15) << (i / 16 * 4);
        block[4 + i / 8] |= (code >> 4) << (i % 8);
    }
}
