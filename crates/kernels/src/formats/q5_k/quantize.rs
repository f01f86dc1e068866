//! The encoder of Q5_K: scales and minimums, searched.

use super::{BYTES, LEN};
use crate::formats::affine::Scales;
use crate::formats::q4_k::quantize::put_scale_and_min;
use crate::formats::search::each_block;

/// f32 to whole blocks.
pub(super) fn encode(weights: &[f32], bytes: &mut [u8]) {
    each_block::<LEN, BYTES>(weights, bytes, block);
}

fn block(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let scales = Scales::<8>::search(x, 63.0, 31.0);
    block[..2].copy_from_slice(&scales.d.to_le_bytes());
    block[2..4].copy_from_slice(&scales.m.to_le_bytes());
    for (g, x) in x.chunks_exact(32).enumerate() {
        put_scale_and_min(&mut block[4..16], g, scales.s[g], scales.n[g]);
        for (i, code) in scales.codes(g, x, 31.0).enumerate() {
            block[16 + i] |= (code >> 4) << g;
            block[48 + g / 2 * 32 + i] |= (code & 15) << (g % 2 * 4);
        }
    }
}
