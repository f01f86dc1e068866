//! The reference kernel of F16.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::{BYTES, RUN};
use crate::formats::u16_at;

/// Widens; exact.
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    let mut numbers = [f16::ZERO; RUN];
    for (bytes, out) in bytes.chunks(RUN * BYTES).zip(out.chunks_mut(RUN)) {
        let numbers = &mut numbers[..out.len()];
        for (number, bytes) in numbers.iter_mut().zip(bytes.chunks_exact(BYTES)) {
            *number = f16::from_bits(u16_at(bytes, 0));
        }
        numbers.convert_to_f32_slice(out);
    }
}
