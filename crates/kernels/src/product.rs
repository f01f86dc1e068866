//! Products of matrices with inputs: the work lists that a layer is made of.
//!
//! A list is one parallel region however many matrices it has. Tasks are runs of rows; each output
//! is summed by one task in a fixed order, so results do not depend on the number of threads.
//! Few columns go through the tier's `gemv`, straight from the file's layout; many go through
//! unpacked panels ([`crate::isa::amx`], [`crate::isa::avx512::panel`], [`crate::isa::avx2::bytes`],
//! [`crate::isa::avx2::words`]).

use crate::block::{self, Columns, RowRange};
use crate::buffer::Shared;
use crate::cpu::Tier;
use crate::inputs::Inputs;
use crate::matrix::Matrix;
use crate::ops;
use crate::pool::{Pool, Scratch};

/// The processor: its threads and the instructions to use.
#[derive(Debug)]
pub struct Cpu {
    pool: Pool,
    tier: Tier,
}

/// A matrix and the inputs to multiply it with.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// `[rows, cols]`.
    pub matrix: Matrix<'a>,
    /// Which of the inputs.
    pub columns: Columns<'a>,
}

/// Gate and up of one expert, `silu(gate · x) * (up · x)`, and the inputs it gets.
#[derive(Clone, Copy, Debug)]
pub struct GateUp<'a> {
    /// `[rows, cols]`.
    pub gate: Matrix<'a>,
    /// `[rows, cols]`, of the same shape.
    pub up: Matrix<'a>,
    /// Which of the inputs.
    pub columns: Columns<'a>,
}

/// A matrix, the inputs to multiply it with, and where the products are added with what weight.
#[derive(Clone, Copy, Debug)]
pub struct Weighted<'a> {
    /// `[rows, cols]`.
    pub matrix: Matrix<'a>,
    /// The inputs: as many as `targets`.
    pub columns: Columns<'a>,
    /// The output row for each input.
    pub targets: &'a [u32],
    /// The factor for each input.
    pub weights: &'a [f32],
}

impl Cpu {
    /// A processor with `threads` threads (the caller's included) using `tier`.
    pub fn new(threads: usize, tier: Tier) -> Self {
        Self { pool: Pool::new(threads), tier }
    }

    /// The threads.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The instructions in use.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Multiplies each matrix with its columns of `inputs`. `out` holds the products one after
    /// the other, each `[columns, rows]`.
    ///
    /// # Panics
    /// If shapes do not agree; they are checked here once, not in the loops.
    pub fn multiply(&self, inputs: &mut Inputs, products: &[Product<'_>], out: &mut [f32]) {
        let total = products.iter().map(|p| p.columns.len() * p.matrix.rows()).sum::<usize>();
        assert_eq!(out.len(), total, "outputs of {} products", products.len());
        for product in products {
            block::prepare(self, inputs, &product.matrix, product.columns);
        }
        let out = Shared::new(out);
        let shape = |p: &Product<'_>| (p.matrix.rows(), p.columns.len());
        self.each_run(products, shape, &|scratch, product, run, at| {
            let columns = product.columns;
            let rows = product.matrix.rows();
            let values = block::compute(self.tier, &product.matrix, run, inputs, columns, scratch);
            for c in 0..columns.len() {
                // SAFETY: this task alone writes these rows of this product.
                let out = unsafe { out.slice(at + c * rows + run.start, run.len) };
                out.copy_from_slice(&values[c * run.len..][..run.len]);
            }
        });
    }

    /// `silu(gate · x) * (up · x)` for each list entry; `out` as in [`Cpu::multiply`].
    ///
    /// # Panics
    /// If shapes do not agree.
    pub fn gate_up(&self, inputs: &mut Inputs, list: &[GateUp<'_>], out: &mut [f32]) {
        let total = list.iter().map(|g| g.columns.len() * g.gate.rows()).sum::<usize>();
        assert_eq!(out.len(), total, "outputs of {} gates", list.len());
        for entry in list {
            assert_eq!(
                (entry.gate.rows(), entry.gate.cols()),
                (entry.up.rows(), entry.up.cols()),
                "gate and up"
            );
            block::prepare(self, inputs, &entry.gate, entry.columns);
            block::prepare(self, inputs, &entry.up, entry.columns);
        }
        let out = Shared::new(out);
        let shape = |g: &GateUp<'_>| (g.gate.rows(), g.columns.len());
        self.each_run(list, shape, &|scratch, entry, run, at| {
            let (columns, rows) = (entry.columns, entry.gate.rows());
            let n = columns.len() * run.len;
            let mut kept = std::mem::take(&mut scratch.kept);
            let gate = block::compute(self.tier, &entry.gate, run, inputs, columns, scratch);
            kept.resize(n).copy_from_slice(&gate[..n]);
            let up = block::compute(self.tier, &entry.up, run, inputs, columns, scratch);
            ops::silu_mul(self.tier, &mut kept, &up[..n]);
            for c in 0..columns.len() {
                // SAFETY: this task alone writes these rows of this entry.
                let out = unsafe { out.slice(at + c * rows + run.start, run.len) };
                out.copy_from_slice(&kept[c * run.len..][..run.len]);
            }
            scratch.kept = kept;
        });
    }

    /// Adds `weight · (matrix · column)` to row `target` of `out` `[outputs, rows]`, entry after
    /// entry in the order of the list.
    ///
    /// # Panics
    /// If shapes do not agree.
    pub fn add_weighted(&self, inputs: &mut Inputs, list: &[Weighted<'_>], out: &mut [f32]) {
        let Some(first) = list.first() else { return };
        let rows = first.matrix.rows();
        assert_eq!(out.len() % rows, 0, "outputs are rows of {rows}");
        let mut columns = 0;
        for entry in list {
            assert_eq!(entry.matrix.rows(), rows, "matrices of one height");
            assert_eq!(entry.columns.len(), entry.targets.len(), "a target for each column");
            assert_eq!(entry.columns.len(), entry.weights.len(), "a weight for each column");
            columns = columns.max(entry.columns.len());
            block::prepare(self, inputs, &entry.matrix, entry.columns);
        }
        let out = Shared::new(out);
        let size = block::run_rows(self, rows, columns);
        self.pool.run(rows.div_ceil(size), &|scratch, i| {
            let run = RowRange { start: i * size, len: size.min(rows - i * size) };
            for entry in list {
                let Weighted { matrix, columns, targets, weights } = entry;
                let values = block::compute(self.tier, matrix, run, inputs, *columns, scratch);
                let pairs = targets.iter().zip(*weights).enumerate();
                for (c, (&target, &weight)) in pairs {
                    // SAFETY: this task alone writes these columns of the outputs.
                    let out = unsafe { out.slice(target as usize * rows + run.start, run.len) };
                    for (o, v) in out.iter_mut().zip(&values[c * run.len..][..run.len]) {
                        *o += weight * v;
                    }
                }
            }
        });
    }

    /// Calls `task` for runs of rows of every entry, with the entry's place in the outputs.
    fn each_run<T: Sync>(
        &self,
        list: &[T],
        shape: impl Fn(&T) -> (usize, usize) + Sync, // (rows, columns)
        task: &(dyn Fn(&mut Scratch, &T, RowRange, usize) + Sync),
    ) {
        let size = |entry: &T| {
            let (rows, columns) = shape(entry);
            block::run_rows(self, rows, columns)
        };
        let runs = |entry: &T| shape(entry).0.div_ceil(size(entry));
        let count = list.iter().map(runs).sum();
        self.pool.run(count, &|scratch, mut i| {
            let mut at = 0;
            for entry in list {
                let ((rows, columns), n) = (shape(entry), runs(entry));
                if i < n {
                    let start = i * size(entry);
                    let run = RowRange { start, len: size(entry).min(rows - start) };
                    return task(scratch, entry, run, at);
                }
                i -= n;
                at += rows * columns;
            }
        });
    }
}
