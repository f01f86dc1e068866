//! Products of matrices with activations: the work lists that a layer is made of.
//!
//! A list is one parallel region however many matrices it has, and makes what it multiplies in its
//! first phase ([`crate::inputs`]). A task is some rows of a matrix times some tokens; each output
//! is summed by one task in a fixed order that depends neither on how the work is divided nor on
//! the other tokens, so results do not depend on the number of threads. Few tokens go through the
//! tier's gemv, straight from the file's layout; many go through unpacked panels
//! ([`crate::isa::amx`], [`crate::isa::avx512::panel`], [`crate::isa::avx2::i8`],
//! [`crate::isa::avx2::i14`]).

use crate::activations::Activations;
use crate::affinity;
use crate::block::{self, Division, Part, Tokens};
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

/// What a task has of a list.
struct Entry {
    /// The entry's number.
    entry: usize,
    /// Some of its rows and tokens.
    part: Part,
    /// Outputs of the entries before it.
    at: usize,
}

/// A token of a product in a list.
struct Place {
    /// The product's number, and outputs of those before it.
    entry: usize,
    at: usize,
    /// The token's number in it, and the rows of its matrix.
    token: usize,
    rows: usize,
}

/// Makes the inputs of a token `[heads, cols]`, and begins its row `[heads, width]`:
/// `task(token, inputs, row)`.
pub type HeadTask<'a> = dyn Fn(usize, &mut [f32], &mut [f32]) + Sync + 'a;

/// Where products of heads go: `[rows, heads, width]`.
#[derive(Debug)]
pub struct Heads<'a> {
    /// All rows.
    pub numbers: &'a mut [f32],
    /// Numbers of a head, of which a product writes the first.
    pub width: usize,
    /// The row of each token, ascending.
    pub rows: &'a [u32],
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

    /// Multiplies each matrix with its tokens of the inputs. `out` holds the products one after the
    /// other, each `[tokens, rows]`.
    ///
    /// # Panics
    /// If shapes do not agree; they are checked here once, not in the loops.
    pub fn multiply<'a>(
        &self,
        inputs: impl Into<Inputs<'a>>,
        products: &[Product<'_>],
        out: &mut [f32],
    ) {
        let total = products.iter().map(|p| p.tokens.len() * p.matrix.rows()).sum::<usize>();
        assert_eq!(out.len(), total, "outputs of {} products", products.len());
        self.multiply_to(
            inputs.into(),
            products,
            Shared::new(out),
            &|Place { at, token, rows, .. }| at + token * rows,
        );
    }

    /// Products of a matrix of each head: token `t` of product `h` becomes the first numbers of
    /// head `h` in row `out.rows[t]`.
    ///
    /// If `make` is given, `make(t, inputs, row)` first writes the inputs of token `t`, one for
    /// each head, and what else belongs in its row `[heads, out.width]`; the inputs have been
    /// [reset](Activations::reset) to `[tokens · heads, ..]`.
    ///
    /// # Panics
    /// If shapes do not agree, or products have more or fewer tokens than `out`.
    pub fn multiply_heads(
        &self,
        inputs: &mut Activations,
        make: Option<&HeadTask<'_>>,
        products: &[Product<'_>],
        out: Heads<'_>,
    ) {
        let Heads { numbers, width, rows } = out;
        let (heads, tokens) = (products.len(), rows.len());
        let of_row = heads.saturating_mul(width);
        let all = numbers.len().checked_div(of_row).unwrap_or(0);
        assert_eq!(numbers.len(), all * of_row, "rows of {heads} x {width}");
        assert!(rows.is_sorted_by(|a, b| a < b), "each row is written once");
        assert!(rows.last().is_none_or(|&last| (last as usize) < all), "rows of {all}");
        for Product { matrix, tokens: t } in products {
            assert!(matrix.rows() <= width && t.len() == tokens, "a product of {tokens} tokens");
        }
        let out = Shared::new(numbers);
        let made = |t: usize, inputs: &mut [f32]| {
            // SAFETY: each token has a row of its own, and products begin afterwards.
            let row = unsafe { out.slice(rows[t] as usize * of_row, of_row) };
            make.into_iter().for_each(|make| make(t, inputs, row));
        };
        let shape = [inputs.rows(), inputs.cols()];
        let inputs = match make {
            Some(_) => Inputs::made_in_groups(inputs, tokens, shape, &made),
            None => inputs.into(),
        };
        self.multiply_to(inputs, products, out, &|Place { entry, token, .. }| {
            rows[token] as usize * of_row + entry * width
        });
    }

    /// Products whose first numbers for a token go where `place` says.
    fn multiply_to(
        &self,
        inputs: Inputs<'_>,
        products: &[Product<'_>],
        out: Shared<'_, f32>,
        place: &(dyn Fn(Place) -> usize + Sync),
    ) {
        for product in products {
            block::want(self.tier, inputs.activations, &product.matrix, product.tokens);
        }
        let shape = |p: &Product<'_>| self.shape(&p.matrix, p.tokens);
        self.for_each_part(inputs, products, shape, &|scratch, activations, product, part| {
            let Product { matrix, tokens } = product;
            let Part { rows, tokens: some } = &part.part;
            let values =
                block::compute(self.tier, matrix, activations, *tokens, &part.part, scratch);
            for (token, values) in some.clone().zip(values.chunks_exact(rows.len())) {
                let Entry { entry, at, .. } = part;
                let to = place(Place { entry, at, token, rows: matrix.rows() }) + rows.start;
                // SAFETY: this task alone writes these rows of these tokens of this product.
                unsafe { out.slice(to, values.len()) }.copy_from_slice(values);
            }
        });
    }

    /// `silu(gate · x) * (up · x)` for each list entry; `out` as in [`Cpu::multiply`].
    ///
    /// # Panics
    /// If shapes do not agree.
    pub fn gate_up<'a>(&self, inputs: impl Into<Inputs<'a>>, list: &[GateUp<'_>], out: &mut [f32]) {
        let inputs = inputs.into();
        let total = list.iter().map(|g| g.tokens.len() * g.gate.rows()).sum::<usize>();
        assert_eq!(out.len(), total, "outputs of {} gates", list.len());
        for entry in list {
            assert_eq!(
                (entry.gate.rows(), entry.gate.cols()),
                (entry.up.rows(), entry.up.cols()),
                "gate and up"
            );
            block::want(self.tier, inputs.activations, &entry.gate, entry.tokens);
            block::want(self.tier, inputs.activations, &entry.up, entry.tokens);
        }
        let out = Shared::new(out);
        let shape = |g: &GateUp<'_>| self.shape(&g.gate, g.tokens);
        self.for_each_part(inputs, list, shape, &|scratch, activations, entry, part| {
            let GateUp { gate, up, tokens } = entry;
            let Entry { part, at, .. } = part;
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
    pub fn add_weighted<'a>(
        &self,
        inputs: impl Into<Inputs<'a>>,
        list: &[Weighted<'_>],
        out: &mut [f32],
    ) {
        let inputs = inputs.into();
        let Some(first) = list.first() else { return inputs.then(self, 0, &|_, _, _| {}) };
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
            block::want(self.tier, inputs.activations, &entry.matrix, entry.tokens);
        }
        let out = Shared::new(out);
        // Several tokens may have one target, so that only rows can be divided.
        let division = Division { tokens: most.tokens.max(1), ..self.division(rows, most) };
        inputs.then(self, division.tasks(rows, 1), &|scratch, activations, i| {
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

    /// Makes the inputs, then calls `task` for parts of every entry.
    fn for_each_part<T: Sync>(
        &self,
        inputs: Inputs<'_>,
        list: &[T],
        shape: impl Fn(&T) -> OutputShape + Sync,
        task: &(dyn Fn(&mut Scratch, &Activations, &T, Entry) + Sync),
    ) {
        let all_rows = list.iter().map(|entry| shape(entry).rows).sum();
        let division = |shape: OutputShape| self.division(all_rows, shape);
        let tasks = |shape: OutputShape| division(shape).tasks(shape.rows, shape.tokens);
        let count = list.iter().map(|entry| tasks(shape(entry))).sum();
        inputs.then(self, count, &|scratch, activations, mut i| {
            let mut at = 0;
            for (index, entry) in list.iter().enumerate() {
                let shape = shape(entry);
                let n = tasks(shape);
                if i < n {
                    let part = division(shape).part(i, shape.rows, shape.tokens);
                    return task(scratch, activations, entry, Entry { entry: index, part, at });
                }
                i -= n;
                at += shape.rows * shape.tokens;
            }
        });
    }
}
