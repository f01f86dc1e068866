//! How precisely a batch is computed, and with which kernels.
//!
//! By default the phase decides: products of prompts are bound by arithmetic, and matrices that
//! tolerate it get activations of 8 bits there; decoding is bound by memory, and gets 16. Kernels
//! may differ with the number of rows that share a matrix, so that the bits of a result depend on the
//! other rows of its batch, within the tolerance of the tier.
//!
//! With `reproducible`, every row of every phase is computed as in decoding, in products of at most
//! [`GROUP`] rows, and attends alone: its bits depend on its own sequence and nothing else. Prompts are
//! then about as slow as decoding.

use cachalot_kernels::{ActBits, Matrix, Tokens};

use crate::seam::{Batch, Phase};

/// Rows that share a product if results are to be reproducible. Kernels for so few rows compute each
/// row in the same way, however many there are.
const GROUP: usize = 4;

/// How precisely a batch is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    /// The phase of the batch.
    pub phase: Phase,
    /// Whether each row's bits are independent of all other sequences, and of how its own sequence
    /// was divided.
    pub reproducible: bool,
}

impl Precision {
    /// That of a batch.
    pub(crate) fn of(batch: &Batch<'_>, reproducible: bool) -> Self {
        Self { phase: batch.phase(), reproducible }
    }

    /// A matrix that tolerates activations of 8 bits, with those of the phase.
    pub(crate) fn tolerant(self, matrix: Matrix<'_>) -> Matrix<'_> {
        let is_tolerant = self.phase == Phase::Prefill && !self.reproducible;
        matrix.with_activations(if is_tolerant { ActBits::Eight } else { ActBits::Sixteen })
    }

    /// The rows that are multiplied together.
    pub(crate) fn groups(self, tokens: Tokens<'_>) -> impl Iterator<Item = Tokens<'_>> {
        let len = tokens.len();
        let size = if self.reproducible { GROUP } else { len.max(1) };
        (0..len).step_by(size).map(move |first| {
            let count = size.min(len - first);
            match tokens {
                Tokens::Range { start, .. } => Tokens::Range { start: start + first, len: count },
                Tokens::List(list) => Tokens::List(&list[first..first + count]),
            }
        })
    }
}
