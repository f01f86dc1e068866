//! The encoder of NVFP4: the best of some scales per group.

use super::{BYTES, LEN, half_scale};
use crate::formats::mxfp4::quantize::{code, nearest};
use crate::formats::search::{each_block, error, inverse, least_of, peak};

/// f32 to whole blocks.
pub(super) fn encode(weights: &[f32], bytes: &mut [u8]) {
    each_block::<LEN, BYTES>(weights, bytes, block);
}

fn block(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    for (g, x) in x.chunks_exact(16).enumerate() {
        // Scales ascend with their codes; try those around the one that makes the peak a 6, up to
        // an octave above, where the peak is a 3.
        let exact = peak(x).abs() / 12.0;
        let above = (0..0x7e).find(|&s| half_scale(s) >= exact).unwrap_or(0x7e);
        let tried: [u8; 12] =
            std::array::from_fn(|k| (above + 8).saturating_sub(k as u8).clamp(1, 0x7e));
        let (scale, _) = least_of(tried, |s| error(x, half_scale(s), nearest));
        block[g] = scale;
        let inverse = inverse(half_scale(scale));
        for (i, x) in x.iter().enumerate() {
            block[4 + 8 * g + i % 8] |= code(x * inverse) << (i / 8 * 4);
        }
    }
}
