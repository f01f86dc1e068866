//! Experts that are all in memory: a layer of them is two work lists, whatever was picked.

use cachalot_kernels::{ActBits, Activations, Cpu, GateUp, Tokens, Weighted};
use cachalot_store::Weights;

use super::{ExpertMatrices, ExpertShape, ExpertTensors, TensorShape};
use crate::bind::{Binder, Weight};
use crate::mlp::{self, MlpScratch};
use crate::scratch::{AllRows, recycle};
use crate::{Error, Experts, Mlp, Routing};

/// [`Experts`] whose bytes are at hand, be it in memory or in a mapping.
#[derive(Debug)]
pub struct Resident {
    first: usize,
    width: usize,
    layers: Vec<ExpertTensors<Weight>>,
    inner: Activations, // [routing and shared tokens, width]
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
    pub fn bind(weights: &Weights, shape: &ExpertShape) -> Result<Self, Error> {
        let binder = Binder::new(weights);
        let layer = |layer| {
            ExpertTensors::bind(binder, layer, shape, |TensorShape { name, count, rows, cols }| {
                binder.experts(name, count, rows, cols)
            })
        };
        Ok(Self {
            first: shape.layers.start,
            width: shape.width,
            layers: shape.layers.clone().map(layer).collect::<Result<_, _>>()?,
            inner: Activations::new(),
            gates: Vec::new(),
            downs: Vec::new(),
            all_rows: AllRows::default(),
            separate: MlpScratch::default(),
        })
    }
}

impl Experts for Resident {
    fn request(&mut self, _layer: usize, _picks: &Routing) {}

    fn apply(
        &mut self,
        cpu: &Cpu,
        layer: usize,
        x: &mut Activations,
        routing: &Routing,
        shared: Option<Mlp<'_>>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let tokens = x.rows();
        let (tensors, width) = (&self.layers[layer - self.first], self.width);
        let expert = |expert: usize| {
            tensors.matrices(|weight, _| {
                weight.get(expert).with_activations(ActBits::for_batch(tokens))
            })
        };
        let all_rows = Tokens::Range { start: 0, len: tokens };
        // A shared expert of another width has inputs of its own, and needs lists of its own.
        let (fused, separate) = match shared {
            Some(mlp) if mlp.gate.rows() == width => (Some(mlp), None),
            other => (None, other),
        };

        let mut gates: Vec<GateUp<'_>> = std::mem::take(&mut self.gates);
        for group in routing.batches() {
            let ExpertMatrices { gate, up, .. } = expert(group.expert);
            gates.push(GateUp { gate, up, tokens: Tokens::List(group.tokens) });
        }
        gates.extend(fused.map(|mlp| GateUp { gate: mlp.gate, up: mlp.up, tokens: all_rows }));
        let total = gates.iter().map(|entry| entry.tokens.len()).sum();
        cpu.gate_up(x, &gates, self.inner.reset(total, width));
        self.gates = recycle(gates);

        let mut downs: Vec<Weighted<'_>> = std::mem::take(&mut self.downs);
        let mut start = 0;
        for group in routing.batches() {
            let columns = Tokens::Range { start, len: group.tokens.len() };
            let matrix = expert(group.expert).down;
            let (targets, weights) = (group.tokens, group.weights);
            downs.push(Weighted { matrix, tokens: columns, targets, weights });
            start += group.tokens.len();
        }
        let (targets, ones) = self.all_rows.of(tokens);
        downs.extend(fused.map(|mlp| {
            let columns = Tokens::Range { start, len: tokens };
            Weighted { matrix: mlp.down, tokens: columns, targets, weights: ones }
        }));
        cpu.add_weighted(&mut self.inner, &downs, out);
        self.downs = recycle(downs);

        if let Some(mlp) = separate {
            mlp::add(cpu, mlp, x, &mut self.separate, out);
        }
        Ok(())
    }
}
