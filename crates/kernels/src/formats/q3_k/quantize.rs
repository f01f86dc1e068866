//! The encoder of Q3_K: signed scales, searched.

use super::{BYTES, LEN};
use crate::formats::search::{Scales, around, each_block, inverse, round};

/// f32 to whole blocks.
pub(super) fn encode(weights: &[f32], bytes: &mut [u8]) {
    each_block::<LEN, BYTES>(weights, bytes, block);
}

fn block(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let nearest = |v| round(v, -4.0, 3.0);
    let scales = Scales::<16>::search(x, (-32.0, 31.0), &around(-4.0, 9, 0.1), nearest);
    block[108..110].copy_from_slice(&scales.d.to_le_bytes());
    for (g, x) in x.chunks_exact(16).enumerate() {
        let s = (scales.s[g] + 32) as u8;
        block[96 + g % 8] |= (s & 15) << (g / 8 * 4);
        block[104 + g % 4] |= (s >> 4) << (g / 4 * 2);
        let inverse = inverse(scales.of(g));
        for (i, x) in x.iter().enumerate() {
            let code = (nearest(x * inverse) + 4.0) as u8;
            block[g % 2 * 16 + i] |= (code >> 2) << (g / 2);
            block[32 + g / 8 * 32 + g % 2 * 16 + i] |= (code & 3) << (g / 2 % 4 * 2);
        }
    }
}
