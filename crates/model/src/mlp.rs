//! The feed-forward network of layers without experts, and of the shared expert.

use cachalot_kernels::{Activations, Cpu, GateUp, Matrix, Product, Tokens, Weighted};

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

impl MlpScratch {
    /// Leaves the hidden states of the network in `inner`.
    fn gate_up(&mut self, cpu: &Cpu, mlp: Mlp<'_>, x: &mut Activations) -> Tokens<'static> {
        let tokens = Tokens::Range { start: 0, len: x.rows() };
        let inner = self.inner.reset(x.rows(), mlp.gate.rows());
        cpu.gate_up(x, &[GateUp { gate: mlp.gate, up: mlp.up, tokens }], inner);
        tokens
    }
}

/// Adds the network's output for each row of `x` `[rows, hidden]` to `out` `[rows, hidden]`.
pub(crate) fn add(
    cpu: &Cpu,
    mlp: Mlp<'_>,
    x: &mut Activations,
    scratch: &mut MlpScratch,
    out: &mut [f32],
) {
    let tokens = scratch.gate_up(cpu, mlp, x);
    let (targets, weights) = scratch.all_rows.of(x.rows());
    let down = Weighted { matrix: mlp.down, tokens, targets, weights };
    cpu.add_weighted(&mut scratch.inner, &[down], out);
}

/// Writes the network's output for each row of `x` `[rows, hidden]` to `out` `[rows, hidden]`.
pub(crate) fn compute(
    cpu: &Cpu,
    mlp: Mlp<'_>,
    x: &mut Activations,
    scratch: &mut MlpScratch,
    out: &mut [f32],
) {
    let tokens = scratch.gate_up(cpu, mlp, x);
    cpu.multiply(&mut scratch.inner, &[Product { matrix: mlp.down, tokens }], out);
}
