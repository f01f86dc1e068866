//! The feed-forward network of layers without experts, and of the shared expert.

use cachalot_kernels::{ActBits, Activations, Cpu, GateUp, Matrix, Product, Tokens, Weighted};

use crate::Error;
use crate::bind::{Binder, Weight};
use crate::scratch::AllRows;

/// A gated feed-forward network: `down · (silu(gate · x) * (up · x))`.
#[derive(Clone, Copy, Debug)]
pub struct Mlp<'a> {
    /// `[width, hidden]`.
    pub gate: Matrix<'a>,
    /// `[width, hidden]`.
    pub up: Matrix<'a>,
    /// `[hidden, width]`.
    pub down: Matrix<'a>,
}

/// Bound weights of an [`Mlp`].
#[derive(Debug)]
pub(crate) struct MlpWeights {
    gate: Weight, // [width, hidden]
    up: Weight,   // [width, hidden]
    down: Weight, // [hidden, width]
}

impl MlpWeights {
    /// Binds the three tensors whose names `name` makes from `gate`, `up` and `down`.
    pub(crate) fn bind(
        binder: Binder<'_>,
        name: impl Fn(&str) -> String,
        hidden: usize,
        width: usize,
    ) -> Result<Self, Error> {
        Ok(Self {
            gate: binder.matrix(&name("gate"), width, hidden)?,
            up: binder.matrix(&name("up"), width, hidden)?,
            down: binder.matrix(&name("down"), hidden, width)?,
        })
    }

    /// Its matrices for a batch of so many tokens.
    pub(crate) fn mlp(&self, tokens: usize) -> Mlp<'_> {
        Mlp {
            gate: self.gate.matrix().with_activations(ActBits::for_batch(tokens)),
            up: self.up.matrix().with_activations(ActBits::for_batch(tokens)),
            down: self.down.matrix().with_activations(ActBits::for_batch(tokens)),
        }
    }
}

/// What a feed-forward network works with.
#[derive(Debug, Default)]
pub(crate) struct MlpScratch {
    inner: Activations, // [tokens, width]
    all_rows: AllRows,
}

/// Adds the network's output for each row of `x` `[tokens, hidden]` to `out` `[tokens, hidden]`.
pub(crate) fn add(
    cpu: &Cpu,
    mlp: Mlp<'_>,
    x: &mut Activations,
    scratch: &mut MlpScratch,
    out: &mut [f32],
) {
    let tokens = x.rows();
    let columns = Tokens::Range { start: 0, len: tokens };
    let inner = scratch.inner.reset(tokens, mlp.gate.rows());
    cpu.gate_up(x, &[GateUp { gate: mlp.gate, up: mlp.up, tokens: columns }], inner);
    let (targets, weights) = scratch.all_rows.of(tokens);
    let down = Weighted { matrix: mlp.down, tokens: columns, targets, weights };
    cpu.add_weighted(&mut scratch.inner, &[down], out);
}

/// Writes the network's output for each row of `x` `[tokens, hidden]` to `out` `[tokens, hidden]`.
pub(crate) fn compute(
    cpu: &Cpu,
    mlp: Mlp<'_>,
    x: &mut Activations,
    scratch: &mut MlpScratch,
    out: &mut [f32],
) {
    let columns = Tokens::Range { start: 0, len: x.rows() };
    let inner = scratch.inner.reset(x.rows(), mlp.gate.rows());
    cpu.gate_up(x, &[GateUp { gate: mlp.gate, up: mlp.up, tokens: columns }], inner);
    cpu.multiply(&mut scratch.inner, &[Product { matrix: mlp.down, tokens: columns }], out);
}
