//! The feed-forward network of layers without experts, and of the shared expert.

use cachalot_kernels::{Activations, Cpu, GateUp, Matrix, Product, Tokens, Weighted};

use crate::bind::{Binder, Weight};
use crate::scratch::{AllRows, recycle};
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
    gates: Vec<GateUp<'static>>,
    products: Vec<Product<'static>>,
    downs: Vec<Weighted<'static>>,
    all_rows: AllRows,
}

impl MlpScratch {
    /// Leaves the hidden states of the network in `inner`.
    fn gate_up(&mut self, cpu: &Cpu, mlp: Mlp<'_>, precision: Precision, x: &mut Activations) {
        let all = Tokens::Range { start: 0, len: x.rows() };
        let mut gates: Vec<GateUp<'_>> = recycle(std::mem::take(&mut self.gates));
        let groups = precision.groups(all);
        gates.extend(groups.map(|tokens| GateUp { gate: mlp.gate, up: mlp.up, tokens }));
        cpu.gate_up(x, &gates, self.inner.reset(x.rows(), mlp.gate.rows()));
        self.gates = recycle(gates);
    }
}

/// Adds the network's output for each row of `x` `[rows, hidden]` to `out` `[rows, hidden]`.
pub(crate) fn add(
    cpu: &Cpu,
    mlp: Mlp<'_>,
    precision: Precision,
    x: &mut Activations,
    scratch: &mut MlpScratch,
    out: &mut [f32],
) {
    scratch.gate_up(cpu, mlp, precision, x);
    let mut downs: Vec<Weighted<'_>> = recycle(std::mem::take(&mut scratch.downs));
    let (targets, ones) = scratch.all_rows.of(x.rows());
    DownList { precision, start: 0, downs: &mut downs }.push(mlp.down, targets, ones);
    cpu.add_weighted(&mut scratch.inner, &downs, out);
    scratch.downs = recycle(downs);
}

/// Writes the network's output for each row of `x` `[rows, hidden]` to `out` `[rows, hidden]`.
pub(crate) fn compute(
    cpu: &Cpu,
    mlp: Mlp<'_>,
    precision: Precision,
    x: &mut Activations,
    scratch: &mut MlpScratch,
    out: &mut [f32],
) {
    scratch.gate_up(cpu, mlp, precision, x);
    let mut products: Vec<Product<'_>> = recycle(std::mem::take(&mut scratch.products));
    let groups = precision.groups(Tokens::Range { start: 0, len: x.rows() });
    products.extend(groups.map(|tokens| Product { matrix: mlp.down, tokens }));
    cpu.multiply(&mut scratch.inner, &products, out);
    scratch.products = recycle(products);
}

/// Down projections of one work list, whose inputs follow each other.
pub(crate) struct DownList<'l, 'a> {
    pub(crate) precision: Precision,
    /// The first row of inputs of the next one.
    pub(crate) start: usize,
    pub(crate) downs: &'l mut Vec<Weighted<'a>>,
}

impl<'a> DownList<'_, 'a> {
    /// Adds the products of `matrix` with the next inputs, to be added to these rows.
    pub(crate) fn push(&mut self, matrix: Matrix<'a>, targets: &'a [u32], weights: &'a [f32]) {
        let mut at = 0;
        let all = Tokens::Range { start: self.start, len: targets.len() };
        for tokens in self.precision.groups(all) {
            let end = at + tokens.len();
            let (targets, weights) = (&targets[at..end], &weights[at..end]);
            self.downs.push(Weighted { matrix, tokens, targets, weights });
            at = end;
        }
        self.start += at;
    }
}
