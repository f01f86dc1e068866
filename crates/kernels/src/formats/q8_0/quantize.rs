//! The encoder of Q8_0: the largest weight becomes ±127.
//!
//! With codes this fine a search would gain next to nothing.

use super::{BYTES, LEN};
use crate::formats::search::{each_block, f16_scale, inverse, peak, round};

/// f32 to whole blocks.
pub(super) fn encode(weights: &[f32], bytes: &mut [u8]) {
    each_block::<LEN, BYTES>(weights, bytes, block);
}

fn block(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let d = f16_scale(peak(x).abs() / 127.0);
    block[..2].copy_from_slice(&d.to_le_bytes());
    let inverse = inverse(d.to_f32());
    for (code, x) in block[2..].iter_mut().zip(x) {
        *code = round(x * inverse, -127.0, 127.0) as i8 as u8;
    }
}
