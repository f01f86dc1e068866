//! The encoder of TQ1_0: one scale per block, searched.
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
    block[52..54].copy_from_slice(&d.to_le_bytes());
    let inverse = inverse(d.to_f32());
    let mut x = x.as_slice();
    for part in [0..32, 32..48, 48..52] {
        let trits = if part.len() == 4 { 4 } else { 5 };
        let (here, rest) = x.split_at(part.len() * trits);
        for (i, byte) in block[part.clone()].iter_mut().enumerate() {
            let trit = |t| (nearest(here[t * part.len() + i] * inverse) + 1.0) as u16;
            let number = (0..5).fold(0, |n, t| n * 3 + if t < trits { trit(t) } else { 0 });
            // Of 243, as a fraction of 256 rounded up.
            *byte = (number * 256).div_ceil(243) as u8;
        }
        x = rest;
    }
}
