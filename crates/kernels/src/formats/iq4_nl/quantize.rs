//! The encoder of IQ4_NL: one scale per block, searched.

use super::{BYTES, LEN, LEVELS};
use crate::formats::search::{around, each_block, f16_scale, fit, inverse};

/// f32 to whole blocks.
pub(super) fn encode(weights: &[f32], bytes: &mut [u8]) {
    each_block::<LEN, BYTES>(weights, bytes, block);
}

fn block(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let d = f16_scale(fit(x, around(-127.0, 9, 2.0), nearest));
    block[..2].copy_from_slice(&d.to_le_bytes());
    let inverse = inverse(d.to_f32());
    for (i, x) in x.iter().enumerate() {
        block[2 + i % 16] |= code(x * inverse) << (i / 16 * 4);
    }
}

/// The code of the level nearest to `v`: the number of midpoints between levels that `v` exceeds.
pub(crate) fn code(v: f32) -> u8 {
    MIDDLES.iter().map(|&middle| u8::from(v > middle)).sum()
}

/// The level nearest to `v`.
pub(crate) fn nearest(v: f32) -> f32 {
    f32::from(LEVELS[usize::from(code(v))])
}

const MIDDLES: [f32; 15] = {
    let mut middles = [0.0; 15];
    let mut i = 0;
    while i < 15 {
        middles[i] = 0.5 * (LEVELS[i] as f32 + LEVELS[i + 1] as f32);
        i += 1;
    }
    middles
};
