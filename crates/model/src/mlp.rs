//! The feed-forward network of layers without experts, and of the shared expert.

use cachalot_kernels::{Activations, Cpu, GateUp, Inputs, Matrix, Product, Tokens, Weighted};

use crate::bind::{Binder, Weight};
use crate::scratch::AllRows;
use crate::{Error, Precision};

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

    /// The shared expert of a layer.
    pub(crate) fn shared(
        binder: Binder<'_>,
        layer: usize,
        hidden: usize,
        width: usize,
    ) -> Result<Self, Error> {
        let name = |part: &str| format!("blk.{layer}.ffn_{part}_shexp.weight");
        Self::bind(binder, name, hidden, width)
    }

    /// Its matrices.
    pub(crate) fn mlp(&self, precision: Precision) -> Mlp<'_> {
        Mlp {
            gate: precision.tolerant(self.gate.matrix()),
            up: precision.tolerant(self.up.matrix()),
            down: precision.tolerant(self.down.matrix()),
        }
    }
}

/// The memory of a feed-forward network.
#[derive(Debug, Default)]
pub(crate) struct MlpScratch {
    inner: Activations, // [rows, width]
    all_rows: AllRows,
}

/// The hidden states of a network, `[rows, width]`, and what is left to do.
pub(crate) struct Inner<'a> {
    mlp: Mlp<'a>,
    inner: &'a mut Activations,
    all_rows: &'a mut AllRows,
}

impl MlpScratch {
    /// The hidden states of the network for each row of `x` `[rows, hidden]`.
    pub(crate) fn gate_up<'a>(&'a mut self, cpu: &Cpu, mlp: Mlp<'a>, x: Inputs<'_>) -> Inner<'a> {
        let Self { inner, all_rows } = self;
        let tokens = Tokens::Range { start: 0, len: x.rows() };
        let out = inner.reset(x.rows(), mlp.gate.rows());
        cpu.gate_up(x, &[GateUp { gate: mlp.gate, up: mlp.up, tokens }], out);
        Inner { mlp, inner, all_rows }
    }
}

impl Inner<'_> {
    /// Adds the network's output for each row to `out` `[rows, hidden]`.
    pub(crate) fn add(self, cpu: &Cpu, out: &mut [f32]) {
        let Self { mlp, inner, all_rows } = self;
        let tokens = Tokens::Range { start: 0, len: inner.rows() };
        let (targets, weights) = all_rows.of(inner.rows());
        let down = Weighted { matrix: mlp.down, tokens, targets, weights };
        cpu.add_weighted(inner, &[down], out);
    }

    /// Writes the network's output for each row to `out` `[rows, hidden]`.
    pub(crate) fn compute(self, cpu: &Cpu, out: &mut [f32]) {
        let tokens = Tokens::Range { start: 0, len: self.inner.rows() };
        cpu.multiply(self.inner, &[Product { matrix: self.mlp.down, tokens }], out);
    }
}
