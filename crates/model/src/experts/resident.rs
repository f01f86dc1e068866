//! Experts that are all in memory: a layer of them is two work lists, however many were chosen.

use std::sync::Arc;

use cachalot_kernels::{Activations, Cpu, GateUp, Tokens, Weighted, recycle};
use cachalot_store::Weights;

use super::{ExpertMatrices, ExpertShape, ExpertTensors, TensorShape};
use crate::Error;
use crate::bind::{Binder, Weight};
use crate::mlp::{MlpScratch, MlpWeights};
use crate::scratch::AllRows;
use crate::seam::{ExpertCall, Experts, FailedRows};

/// [`Experts`] on this processor whose bytes are in memory, or mapped.
#[derive(Debug)]
pub struct Resident {
    cpu: Arc<Cpu>,
    first: usize,
    width: usize,
    layers: Vec<ExpertTensors<Weight>>,
    shared: Vec<MlpWeights>, // [layers], or none
    inner: Activations,      // [chosen experts and shared rows, width]
    gates: Vec<GateUp<'static>>,
    downs: Vec<Weighted<'static>>,
    all_rows: AllRows,
    separate: MlpScratch,
}

impl Resident {
    /// Binds the experts of the layers of `shape`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape or format than it should.
    pub fn bind(weights: &Weights, cpu: &Arc<Cpu>, shape: &ExpertShape) -> Result<Self, Error> {
        let binder = Binder::new(weights);
        let layer = |layer| {
            ExpertTensors::bind(binder, layer, shape, |TensorShape { name, count, rows, cols }| {
                binder.experts(name, count, rows, cols)
            })
        };
        Ok(Self {
            cpu: Arc::clone(cpu),
            first: shape.layers.start,
            width: shape.width,
            layers: shape.layers.clone().map(layer).collect::<Result<_, _>>()?,
            shared: super::shared(binder, shape)?,
            inner: Activations::new(),
            gates: Vec::new(),
            downs: Vec::new(),
            all_rows: AllRows::default(),
            separate: MlpScratch::default(),
        })
    }
}

impl Experts for Resident {
    fn begin(&mut self, _: &ExpertCall<'_>, _: &Activations) -> Result<(), Error> {
        Ok(())
    }

    fn finish(
        &mut self,
        call: &ExpertCall<'_>,
        x: &mut Activations,
        out: &mut [f32],
    ) -> Result<Vec<FailedRows>, Error> {
        let &ExpertCall { layer, precision, routing } = call;
        let Self { cpu, layers, shared, inner, all_rows, .. } = self;
        let rows = routing.rows();
        let (tensors, width) = (&layers[layer - self.first], self.width);
        let expert = |index| tensors.matrices(|weight, _| precision.tolerant(weight.get(index)));
        // A shared expert of another width has hidden states of its own, and needs separate lists.
        let shared = shared.get(layer - self.first).map(|shared| shared.mlp(precision));
        let (fused, separate) = match shared {
            Some(mlp) if mlp.gate.rows() == width => (Some(mlp), None),
            other => (None, other),
        };
        let all = Tokens::Range { start: 0, len: rows };

        let mut gates: Vec<GateUp<'_>> = recycle(std::mem::take(&mut self.gates));
        let mut total = 0;
        for batch in routing.batches() {
            let ExpertMatrices { gate, up, .. } = expert(batch.expert);
            gates.push(GateUp { gate, up, tokens: Tokens::List(batch.rows) });
            total += batch.rows.len();
        }
        if let Some(mlp) = fused {
            gates.push(GateUp { gate: mlp.gate, up: mlp.up, tokens: all });
            total += rows;
        }
        cpu.gate_up(&mut *x, &gates, inner.reset(total, width));
        self.gates = recycle(gates);

        let mut downs: Vec<Weighted<'_>> = recycle(std::mem::take(&mut self.downs));
        let mut start = 0;
        for batch in routing.batches() {
            let (targets, weights) = (batch.rows, batch.weights);
            let tokens = Tokens::Range { start, len: targets.len() };
            let matrix = expert(batch.expert).down;
            downs.push(Weighted { matrix, tokens, targets, weights });
            start += targets.len();
        }
        if let Some(mlp) = fused {
            let (targets, weights) = all_rows.of(rows);
            let tokens = Tokens::Range { start, len: rows };
            downs.push(Weighted { matrix: mlp.down, tokens, targets, weights });
        }
        cpu.add_weighted(inner, &downs, out);
        self.downs = recycle(downs);

        if let Some(mlp) = separate {
            self.separate.gate_up(cpu, mlp, x.into()).add(cpu, out);
        }
        Ok(Vec::new())
    }

    fn includes_shared(&self) -> bool {
        !self.shared.is_empty()
    }
}
