//! The feed-forward network of layers without experts, and of the shared expert.

use cachalot_kernels::{Columns, Cpu, GateUp, Inputs, Product, Weighted};

use crate::bind::{Binder, Weight};
use crate::scratch::Everyone;
use crate::{Error, Mlp};

/// Bound weights of an [`Mlp`].
#[derive(Debug)]
pub(crate) struct Dense {
    gate: Weight, // [width, hidden]
    up: Weight,   // [width, hidden]
    down: Weight, // [hidden, width]
}

impl Dense {
    /// Binds `blk.{layer}.ffn_{gate,up,down}{suffix}.weight`.
    pub(crate) fn bind(
        binder: Binder<'_>,
        (layer, suffix): (usize, &str),
        hidden: usize,
        width: usize,
    ) -> Result<Self, Error> {
        let name = |part: &str| format!("blk.{layer}.ffn_{part}{suffix}.weight");
        Ok(Self {
            gate: binder.matrix(&name("gate"), width, hidden)?,
            up: binder.matrix(&name("up"), width, hidden)?,
            down: binder.matrix(&name("down"), hidden, width)?,
        })
    }

    /// Its matrices for a batch of so many tokens.
    pub(crate) fn mlp(&self, tokens: usize) -> Mlp<'_> {
        Mlp {
            gate: self.gate.matrix().coarse(tokens),
            up: self.up.matrix().coarse(tokens),
            down: self.down.matrix().coarse(tokens),
        }
    }
}

/// What a feed-forward network works with.
#[derive(Debug, Default)]
pub(crate) struct MlpScratch {
    inner: Inputs, // [tokens, width]
    everyone: Everyone,
}

/// Adds the network's output for each row of `x` `[tokens, hidden]` to `out` `[tokens, hidden]`.
pub(crate) fn add(
    cpu: &Cpu,
    mlp: Mlp<'_>,
    x: &mut Inputs,
    scratch: &mut MlpScratch,
    out: &mut [f32],
) {
    let tokens = x.rows();
    let columns = Columns::Range { start: 0, len: tokens };
    let inner = scratch.inner.reset(tokens, mlp.gate.rows());
    cpu.gate_up(x, &[GateUp { gate: mlp.gate, up: mlp.up, columns }], inner);
    let (targets, weights) = scratch.everyone.of(tokens);
    let down = Weighted { matrix: mlp.down, columns, targets, weights };
    cpu.add_weighted(&mut scratch.inner, &[down], out);
}

/// Writes the network's output for each row of `x` `[tokens, hidden]` to `out` `[tokens, hidden]`.
pub(crate) fn compute(
    cpu: &Cpu,
    mlp: Mlp<'_>,
    x: &mut Inputs,
    scratch: &mut MlpScratch,
    out: &mut [f32],
) {
    let columns = Columns::Range { start: 0, len: x.rows() };
    let inner = scratch.inner.reset(x.rows(), mlp.gate.rows());
    cpu.gate_up(x, &[GateUp { gate: mlp.gate, up: mlp.up, columns }], inner);
    cpu.multiply(&mut scratch.inner, &[Product { matrix: mlp.down, columns }], out);
}
