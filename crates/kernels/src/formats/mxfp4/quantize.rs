//! The encoder of MXFP4: the best of three powers of two per block.

use super::{BYTES, DOUBLED, LEN, half_scale};
use crate::formats::search::{each_block, error, inverse, least_of, peak};

/// f32 to whole blocks.
pub(super) fn encode(weights: &[f32], bytes: &mut [u8]) {
    each_block::<LEN, BYTES>(weights, bytes, block);
}

fn block(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    // The power of two that brings the largest weight into 4..8, where 6 is the largest code.
    let exponent = (peak(x).abs().to_bits() >> 23) as i16 - 2;
    let tried = [0, 1, -1].map(|k| (exponent + k).clamp(0, 254) as u8);
    let (e, _) = least_of(tried, |e| error(x, half_scale(e), nearest));
    block[0] = e;
    let inverse = inverse(half_scale(e));
    for (i, x) in x.iter().enumerate() {
        block[1 + i % 16] |= code(x * inverse) << (i / 16 * 4);
    }
}

/// The code of the doubled value nearest to `v`: its sign, and the number of midpoints between
/// magnitudes that `v` exceeds.
pub(crate) fn code(v: f32) -> u8 {
    let middles = DOUBLED[..8].windows(2).map(|pair| 0.5 * f32::from(pair[0] + pair[1]));
    let magnitude: u8 = middles.map(|middle| u8::from(v.abs() > middle)).sum();
    magnitude | u8::from(v < 0.0) << 3
}

/// The doubled value nearest to `v`.
pub(crate) fn nearest(v: f32) -> f32 {
    f32::from(DOUBLED[usize::from(code(v))])
}
