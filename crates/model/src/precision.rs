//! How precisely a batch is computed, and with which kernels.
//!
//! By default the phase decides: products of prompts are bound by arithmetic, and activations are
//! rounded to 14 bits there, or to 8 where a matrix tolerates it; decoding is bound by memory, and
//! activations keep 16. The kernel is the fastest for the rows that share a matrix, so that the
//! last bits of a result depend on the other rows of its batch, within the tolerance of the tier:
//! one or two rows of a prompt (four on AVX2) that have a matrix to themselves keep 16 bits as
//! well where that takes no longer.
//!
//! With `reproducible`, every row of every phase is computed as in decoding, by one kernel: its
//! bits depend on its own sequence and nothing else. Prompts are then about as slow as decoding in
//! batches of four.

use cachalot_kernels::{ActBits, Kernel, Matrix};

use crate::seam::{Batch, Phase};

/// How precisely a batch is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    /// The phase of the batch: of a mixed one, prefill.
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

    /// A matrix, with the activations and the kernel that it gets.
    pub(crate) fn exacting(self, matrix: Matrix<'_>) -> Matrix<'_> {
        self.with(matrix, ActBits::Fourteen)
    }

    /// The same of a matrix that tolerates activations of 8 bits: feed-forward networks and the
    /// output of attention.
    pub(crate) fn tolerant(self, matrix: Matrix<'_>) -> Matrix<'_> {
        self.with(matrix, ActBits::Eight)
    }

    fn with(self, matrix: Matrix<'_>, prefill: ActBits) -> Matrix<'_> {
        match (self.reproducible, self.phase) {
            (true, _) => matrix.with_activations(ActBits::Sixteen).with_kernel(Kernel::Gemv),
            (false, Phase::Decode) => matrix.with_activations(ActBits::Sixteen),
            (false, Phase::Prefill) => matrix.with_activations(prefill),
        }
    }
}
