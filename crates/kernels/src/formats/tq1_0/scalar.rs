//! The reference kernel of TQ1_0.

use super::{BYTES, LEN};
use crate::formats::f16_at;

/// Whole blocks to f32.
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(LEN)) {
        let d = f16_at(block, 52);
        let mut out = out.iter_mut();
        for part in [0..32, 32..48, 48..52] {
            let trits = if part.len() == 4 { 4 } else { 5 };
            for t in 0..trits {
                for (&byte, w) in block[part.clone()].iter().zip(&mut out) {
                    let rest = byte.wrapping_mul(3u8.pow(t));
                    let trit = ((u16::from(rest) * 3) >> 8) as u8;
                    *w = d * (f32::from(trit) - 1.0);
                }
            }
        }
    }
}
