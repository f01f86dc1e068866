//! The encoder of Q2_K: scales and minimums, searched.

use super::{BYTES, LEN};
use crate::formats::affine::Scales;
use crate::formats::search::each_block;

/// f32 to whole blocks.
pub(super) fn encode(weights: &[f32], bytes: &mut [u8]) {
    each_block::<LEN, BYTES>(weights, bytes, block);
}

fn block(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let scales = Scales::<16>::search(x, 15.0, 3.0);
    block[80..82].copy_from_slice(&scales.d.to_le_bytes());
    block[82..84].copy_from_slice(&scales.m.to_le_bytes());
    for (g, x) in x.chunks_exact(16).enumerate() {
        block[g] = scales.s[g] | scales.n[g] << 4;
        let bytes = &mut block[16 + g / 8 * 32 + g % 2 * 16..][..16];
        for (byte, code) in bytes.iter_mut().zip(scales.codes(g, x, 3.0)) {
            *byte |= code << (g / 2 % 4 * 2);
        }
    }
}
