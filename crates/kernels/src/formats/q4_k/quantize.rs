//! The encoder of Q4_K: scales and minimums, searched.

use super::{BYTES, LEN};
use crate::formats::affine::Scales;
use crate::formats::search::each_block;

/// f32 to whole blocks.
pub(super) fn encode(weights: &[f32], bytes: &mut [u8]) {
    each_block::<LEN, BYTES>(weights, bytes, block);
}

fn block(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let scales = Scales::<8>::search(x, 63.0, 15.0);
    block[..2].copy_from_slice(&scales.d.to_le_bytes());
    block[2..4].copy_from_slice(&scales.m.to_le_bytes());
    for (g, x) in x.chunks_exact(32).enumerate() {
        put_scale_and_min(&mut block[4..16], g, scales.s[g], scales.n[g]);
        let run = &mut block[16 + g / 2 * 32..][..32];
        for (byte, code) in run.iter_mut().zip(scales.codes(g, x, 15.0)) {
            *byte |= code << (g % 2 * 4);
        }
    }
}

/// Writes the 6-bit scale and minimum of group `g` (0..8) into zeroed bytes; shared with Q5_K.
pub(crate) fn put_scale_and_min(scales: &mut [u8], g: usize, s: u8, n: u8) {
    if g < 4 {
        scales[g] |= s;
        scales[g + 4] |= n;
    } else {
        scales[g + 4] |= s & 15 | (n & 15) << 4;
        scales[g - 4] |= s >> 4 << 6;
        scales[g] |= n >> 4 << 6;
    }
}
