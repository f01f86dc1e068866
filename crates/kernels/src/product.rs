//! Products of matrices with activations: the work lists that a layer is made of.
//!
//! A list is one parallel region however many matrices it has. A task is some rows of a matrix
//! times some tokens; each output is summed by one task in a fixed order that depends neither on
//! how the work is divided nor on the other tokens, so results do not depend on the number of
//! threads. Few tokens go through the tier's gemv, straight from the file's layout; many go through
//! unpacked panels ([`crate::isa::amx`], [`crate::isa::avx512::panel`], [`crate::isa::avx2::i8`],
//! [`crate::isa::avx2::i14`]).

use crate::activations::Activations;
use crate::affinity;
use crate::block::{self, Division, Part, Tokens};
use crate::buffer::Shared;
use crate::cpu::Tier;
use crate::matrix::Matrix;
use crate::ops;
use crate::pool::{Pool, Scratch};

/// The processor: its threads and the instructions to use.
#[derive(Debug)]
pub struct Cpu {
    pool: Pool,
    tier: Tier,
}

/// A matrix and the activations to multiply it with.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// `[rows, cols]`.
    pub matrix: Matrix<'a>,
    /// Which of the activations.
    pub tokens: Tokens<'a>,
}

/// Gate and up of one expert, `silu(gate · x) * (up · x)`, and the activations it gets.
#[derive(Clone, Copy, Debug)]
pub struct GateUp<'a> {
    /// `[rows, cols]`.
    pub gate: Matrix<'a>,
    /// `[rows, cols]`, of the same shape.
    pub up: Matrix<'a>,
    /// Which of the activations.
    pub tokens: Tokens<'a>,
}

/// A matrix, the activations to multiply it with, and where the products are added with what
/// weight.
#[derive(Clone, Copy, Debug)]
pub struct Weighted<'a> {
    /// `[rows, cols]`.
    pub matrix: Matrix<'a>,
    /// The activations: as many as `targets`.
    pub tokens: Tokens<'a>,
    /// The output row for each token.
    pub targets: &'a [u32],
    /// The factor for each token.
    pub weights: &'a [f32],
}

/// The outputs of a list entry: `[tokens, rows]`.
#[derive(Clone, Copy)]
struct OutputShape {
    tokens: usize,
    rows: usize,
    is_gemv: bool,
}

/// Whether threads stay on CPUs of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pinning {
    /// Where there is a thread for every core that this process may use, and no thread more than
    /// CPUs.
    #[default]
    Auto,
    /// Never.
    Off,
}

impl Cpu {
    /// A processor with `threads` threads (the caller's included) using `tier`, unpinned.
    pub fn new(threads: usize, tier: Tier) -> Self {
        Self::with_pinning(threads, tier, Pinning::Off)
    }

    /// A processor whose worker threads may stay on CPUs of their own.
    pub fn with_pinning(threads: usize, tier: Tier, pinning: Pinning) -> Self {
        let cpus = match pinning {
            Pinning::Auto => affinity::cpus(threads),
            Pinning::Off => None,
        };
        Self { pool: Pool::new(threads, cpus.as_deref()), tier }
    }

    /// A processor that computes nothing: it divides work as if it had `threads` threads, and
    /// counts the tasks of each parallel region ([`Pool::take_counts`]).
    pub fn counting(threads: usize, tier: Tier) -> Self {
        Self { pool: Pool::counting(threads), tier }
    }

    /// The threads.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The instructions in use.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Multiplies each matrix with its tokens of `activations`. `out` holds the products one after
    /// the other, each `[tokens, rows]`.
    ///
    /// # Panics
    /// If shapes do not agree; they are checked here once, not in the loops.
    pub fn multiply(
        &self,
        activations: &mut Activations,
        products: &[Product<'_>],
        out: &mut [f32],
    ) {
        let total = products.iter().map(|p| p.tokens.len() * p.matrix.rows()).sum::<usize>();
        assert_eq!(out.len(), total, "outputs of {} products", products.len());
        for product in products {
            block::prepare(self, activations, &product.matrix, product.tokens);
        }
        let out = Shared::new(out);
        let shape = |p: &Product<'_>| self.shape(&p.matrix, p.tokens);
        self.for_each_part(products, shape, &|scratch, product, part, at| {
            let Product { matrix, tokens } = product;
            let values = block::compute(self.tier, matrix, activations, *tokens, &part, scratch);
            for (t, values) in part.tokens.clone().zip(values.chunks_exact(part.rows.len())) {
                let to = at + t * matrix.rows() + part.rows.start;
                // SAFETY: this task alone writes these rows of these tokens of this product.
                unsafe { out.slice(to, values.len()) }.copy_from_slice(values);
            }
        });
    }

    /// `silu(gate · x) * (up · x)` for each list entry; `out` as in [`Cpu::multiply`].
    ///
    /// # Panics
    /// If shapes do not agree.
    pub fn gate_up(&self, activations: &mut Activations, list: &[GateUp<'_>], out: &mut [f32]) {
        let total = list.iter().map(|g| g.tokens.len() * g.gate.rows()).sum::<usize>();
        assert_eq!(out.len(), total, "outputs of {} gates", list.len());
        for entry in list {
            assert_eq!(
                (entry.gate.rows(), entry.gate.cols()),
                (entry.up.rows(), entry.up.cols()),
                "gate and up"
            );
            block::prepare(self, activations, &entry.gate, entry.tokens);
            block::prepare(self, activations, &entry.up, entry.tokens);
        }
        let out = Shared::new(out);
        let shape = |g: &GateUp<'_>| self.shape(&g.gate, g.tokens);
        self.for_each_part(list, shape, &|scratch, entry, part, at| {
            let GateUp { gate, up, tokens } = entry;
            let mut gates = std::mem::take(&mut scratch.kept);
            let values = block::compute(self.tier, gate, activations, *tokens, &part, scratch);
            gates.resize(values.len()).copy_from_slice(values);
            let up = block::compute(self.tier, up, activations, *tokens, &part, scratch);
            ops::silu_mul(self.tier, &mut gates, up);
            for (t, values) in part.tokens.clone().zip(gates.chunks_exact(part.rows.len())) {
                let to = at + t * gate.rows() + part.rows.start;
                // SAFETY: this task alone writes these rows of these tokens of this entry.
                unsafe { out.slice(to, values.len()) }.copy_from_slice(values);
            }
            scratch.kept = gates;
        });
    }

    /// Adds `weight · (matrix · token)` to row `target` of `out` `[outputs, rows]`, entry after
    /// entry in the order of the list.
    ///
    /// # Panics
    /// If shapes do not agree.
    pub fn add_weighted(
        &self,
        activations: &mut Activations,
        list: &[Weighted<'_>],
        out: &mut [f32],
    ) {
        let Some(first) = list.first() else { return };
        let rows = first.matrix.rows();
        assert_eq!(out.len() % rows, 0, "outputs are rows of {rows}");
        let mut most = OutputShape { tokens: 0, rows, is_gemv: true };
        for entry in list {
            assert_eq!(entry.matrix.rows(), rows, "matrices of one height");
            assert_eq!(entry.tokens.len(), entry.targets.len(), "a target for each token");
            assert_eq!(entry.tokens.len(), entry.weights.len(), "a weight for each token");
            let shape = self.shape(&entry.matrix, entry.tokens);
            most.tokens = most.tokens.max(shape.tokens);
            most.is_gemv &= shape.is_gemv;
            block::prepare(self, activations, &entry.matrix, entry.tokens);
        }
        let out = Shared::new(out);
        // Several tokens may have one target, so that only rows can be divided.
        let division = Division { tokens: most.tokens.max(1), ..self.division(rows, most) };
        self.pool.run(division.tasks(rows, 1), &|scratch, i| {
            for entry in list {
                let Weighted { matrix, tokens, targets, weights } = entry;
                let part = Part { tokens: 0..tokens.len(), ..division.part(i, rows, 1) };
                let values =
                    block::compute(self.tier, matrix, activations, *tokens, &part, scratch);
                let values = values.chunks_exact(part.rows.len());
                for ((&target, &weight), values) in targets.iter().zip(*weights).zip(values) {
                    let to = target as usize * rows + part.rows.start;
                    // SAFETY: this task alone writes these rows of the outputs.
                    let out = unsafe { out.slice(to, values.len()) };
                    ops::add_scaled(self.tier, out, values, weight);
                }
            }
        });
    }

    fn shape(&self, matrix: &Matrix<'_>, tokens: Tokens<'_>) -> OutputShape {
        let is_gemv = block::is_gemv(self.tier, matrix, tokens.len());
        OutputShape { tokens: tokens.len(), rows: matrix.rows(), is_gemv }
    }

    /// How an entry of a list whose matrices have `all_rows` rows divides into tasks.
    fn division(&self, all_rows: usize, shape: OutputShape) -> Division {
        Division::of(self.pool.threads(), all_rows, shape.tokens, shape.is_gemv)
    }

    /// Calls `task` for parts of every entry, with the entry's place in the outputs.
    fn for_each_part<T: Sync>(
        &self,
        list: &[T],
        shape: impl Fn(&T) -> OutputShape + Sync,
        task: &(dyn Fn(&mut Scratch, &T, Part, usize) + Sync),
    ) {
        let all_rows = list.iter().map(|entry| shape(entry).rows).sum();
        let division = |shape: OutputShape| self.division(all_rows, shape);
        let tasks = |shape: OutputShape| division(shape).tasks(shape.rows, shape.tokens);
        let count = list.iter().map(|entry| tasks(shape(entry))).sum();
        self.pool.run(count, &|scratch, mut i| {
            let mut at = 0;
            for entry in list {
                let shape = shape(entry);
                let n = tasks(shape);
                if i < n {
                    let part = division(shape).part(i, shape.rows, shape.tokens);
                    return task(scratch, entry, part, at);
                }
                i -= n;
                at += shape.rows * shape.tokens;
            }
        });
    }
}
