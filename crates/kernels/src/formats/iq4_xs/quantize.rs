//! The encoder of IQ4_XS: signed scales, searched.

use super::{BYTES, LEN};
use crate::formats::iq4_nl::quantize::{code, nearest};
use crate::formats::search::{Scales, around, each_block, inverse};

/// f32 to whole blocks.
pub(super) fn encode(weights: &[f32], bytes: &mut [u8]) {
    each_block::<LEN, BYTES>(weights, bytes, block);
}

fn block(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let scales = Scales::<8>::search(x, (-32.0, 31.0), &around(-127.0, 9, 2.0), nearest);
    block[..2].copy_from_slice(&scales.d.to_le_bytes());
    for (g, x) in x.chunks_exact(32).enumerate() {
        let s = (scales.s[g] + 32) as u8;
        block[4 + g / 2] |= (s & 15) << (g % 2 * 4);
        block[2 + g / 4] |= (s >> 4) << (g % 4 * 2);
        let inverse = inverse(scales.of(g));
        for (i, x) in x.iter().enumerate() {
            block[8 + 16 * g + i % 16] |= code(x * inverse) << (i / 16 * 4);
        }
    }
}
