//! Activations as bf16, for AMX tiles.

use super::{Parts, Source, write_in_order};
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
    pub(super) fn derive(&mut self, source: Source<'_>, order: &Order) {
        // Tiles read whole groups of rows.
        let of_row = source.cols.div_ceil(BLOCK);
        let padded = source.rows.next_multiple_of(TILE) * of_row;
        let numbers = Parts::new(&mut self.numbers, padded, BLOCK);
        source.for_each_block(&|block, floats| {
            // SAFETY: each block is written by one task.
            let numbers = unsafe { numbers.of(block) };
            convert(source.tier, floats, order, numbers);
        });
    }

    /// All rows, one after the other.
    pub(super) fn numbers(&self) -> &[u16] {
        &self.numbers
    }
}

simd! {
    /// Converts up to 256 numbers.
    fn convert(Tier, floats: &[f32], order: &Order, out: &mut [u16]) {
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
    use crate::pool::Pool;

    #[test]
    fn changed_rows_are_converted_anew_and_nan_stays() {
        let (mut activations, pool) = (Activations::new(), Pool::new(1, None));
        for value in [1.0, -2.0, f32::INFINITY, f32::NAN] {
            activations.reset(1, 32).fill(value);
            activations.convert_bf16(&pool, Tier::detect(), &NATURAL);
            let found = f32::from_bits(u32::from(activations.bf16(&NATURAL)[31]) << 16);
            assert!(found == value || found.is_nan() && value.is_nan(), "{found} for {value}");
        }
    }
}
