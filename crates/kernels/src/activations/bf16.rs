//! Activations as bf16, for AMX tiles.

use super::{Parts, write_in_order};
use crate::buffer::Aligned;
use crate::isa::{BLOCK, Order};
use crate::ops::{simd, to_bf16};

/// Rows that a tile takes at a time.
const TILE: usize = 16;

/// bf16 activations in one order.
#[derive(Debug, Default)]
pub(super) struct Bf16 {
    numbers: Aligned<u16>, // [rows to a multiple of 16, blocks, 256]
}

impl Bf16 {
    /// Room for the blocks of `rows` rows, and of those missing from the last tile, which takes
    /// whole groups of rows.
    pub(super) fn blocks(&mut self, rows: usize, of_row: usize) -> Parts<'_, u16> {
        Parts::new(&mut self.numbers, rows.next_multiple_of(TILE) * of_row, BLOCK)
    }

    /// All rows, one after the other.
    pub(super) fn numbers(&self) -> &[u16] {
        &self.numbers
    }
}

simd! {
    /// Converts up to 256 numbers.
    pub(super) fn convert(Tier, floats: &[f32], order: &Order, out: &mut [u16]) {
        let mut numbers = [[0u16; 4]; BLOCK / 4];
        for (n, &x) in numbers.as_flattened_mut().iter_mut().zip(floats) {
            *n = to_bf16(x);
        }
        write_in_order(&numbers, order, out);
    }
}

#[cfg(test)]
mod tests {
    use crate::activations::Activations;
    use crate::cpu::Tier;
    use crate::isa::NATURAL;

    #[test]
    fn changed_rows_are_converted_anew_and_nan_stays() {
        let mut activations = Activations::new();
        for value in [1.0, -2.0, f32::INFINITY, f32::NAN] {
            activations.reset(1, 32).fill(value);
            activations.want_bf16(&NATURAL);
            let encoder = activations.encoder();
            // SAFETY: this thread alone encodes.
            unsafe { encoder.encode(Tier::detect(), 0) };
            let memory = encoder.into();
            activations.encoded(memory);
            let found = f32::from_bits(u32::from(activations.bf16(&NATURAL)[31]) << 16);
            assert!(found == value || found.is_nan() && value.is_nan(), "{found} for {value}");
        }
    }
}
