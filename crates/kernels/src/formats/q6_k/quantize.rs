//! The encoder of Q6_K: signed scales, searched.

use super::{BYTES, LEN};
use crate::formats::search::{Scales, around, each_block, inverse, round};

/// f32 to whole blocks.
pub(super) fn encode(weights: &[f32], bytes: &mut [u8]) {
    each_block::<LEN, BYTES>(weights, bytes, block);
}

fn block(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let nearest = |v| round(v, -32.0, 31.0);
    let scales = Scales::<16>::search(x, (-128.0, 127.0), &around(-32.0, 9, 0.1), nearest);
    block[208..210].copy_from_slice(&scales.d.to_le_bytes());
    for (g, x) in x.chunks_exact(16).enumerate() {
        block[192 + g] = scales.s[g] as u8;
        let (half, k) = (g / 8, g / 2 % 4);
        let inverse = inverse(scales.of(g));
        for (i, x) in x.iter().enumerate() {
            let code = (nearest(x * inverse) + 32.0) as u8;
            block[64 * half + k % 2 * 32 + g % 2 * 16 + i] |= (code & 15) << (k / 2 * 4);
            block[128 + 32 * half + g % 2 * 16 + i] |= (code >> 4) << (2 * k);
        }
    }
}
