//! Experts that are all in memory: a layer of them is two work lists, whatever was picked.

use std::ops::Range;

use cachalot_kernels::{Columns, Cpu, GateUp, Inputs, Matrix, Weighted};
use cachalot_store::Weights;

use super::ARCH;
use super::config::Config;
use super::dense::{self, MlpScratch};
use crate::bind::{Binder, Weight};
use crate::scratch::{Everyone, emptied};
use crate::{Error, Experts, Mlp, Picks};

/// [`Experts`] whose bytes are at hand, be it in memory or in a mapping.
#[derive(Debug)]
pub struct Resident {
    first: usize,
    layers: Vec<Option<Layer>>,
    inner: Inputs, // [picks and shared tokens, width]
    gates: Vec<GateUp<'static>>,
    downs: Vec<Weighted<'static>>,
    everyone: Everyone,
    apart: MlpScratch,
}

/// The routed experts of one layer.
#[derive(Debug)]
struct Layer {
    gate_up: GateAndUp,
    down: Weight, // [experts][hidden, width]
}

/// Two tensors in most files, one in those of newer converters.
#[derive(Debug)]
enum GateAndUp {
    Apart(Weight, Weight), // [experts][width, hidden] each
    Merged(Weight),        // [experts][gate width + up width, hidden]
}

impl Layer {
    fn bind(binder: Binder<'_>, layer: usize, config: &Config) -> Result<Option<Self>, Error> {
        let Some(experts) = &config.experts else { return Ok(None) };
        if layer < config.dense_layers {
            return Ok(None);
        }
        let (count, width, hidden) = (experts.count, experts.width, config.hidden);
        let name = |part: &str| format!("blk.{layer}.ffn_{part}_exps.weight");
        let merged = name("gate_up");
        let gate_up = if binder.has(&merged) {
            GateAndUp::Merged(binder.experts(&merged, count, 2 * width, hidden)?)
        } else {
            let part = |part| binder.experts(&name(part), count, width, hidden);
            GateAndUp::Apart(part("gate")?, part("up")?)
        };
        let down = binder.experts(&name("down"), count, hidden, width)?;
        Ok(Some(Self { gate_up, down }))
    }

    /// Gate and up of one expert, for a batch of so many tokens.
    fn gate_up(&self, expert: usize, tokens: usize) -> (Matrix<'_>, Matrix<'_>) {
        match &self.gate_up {
            GateAndUp::Apart(gate, up) => {
                (gate.get(expert).coarse(tokens), up.get(expert).coarse(tokens))
            }
            GateAndUp::Merged(both) => {
                let (both, width) = (both.get(expert).coarse(tokens), both.rows() / 2);
                (both.slice(0, width), both.slice(width, width))
            }
        }
    }
}

impl Resident {
    /// Binds the experts of `layers`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape or format than it should.
    pub fn bind(weights: &Weights, config: &Config, layers: Range<usize>) -> Result<Self, Error> {
        let binder = Binder::new(weights, ARCH);
        let first = layers.start;
        let layers =
            layers.map(|layer| Layer::bind(binder, layer, config)).collect::<Result<_, _>>();
        Ok(Self {
            first,
            layers: layers?,
            inner: Inputs::new(),
            gates: Vec::new(),
            downs: Vec::new(),
            everyone: Everyone::default(),
            apart: MlpScratch::default(),
        })
    }
}

impl Experts for Resident {
    fn request(&mut self, _layer: usize, _picks: &Picks) {}

    fn apply(
        &mut self,
        cpu: &Cpu,
        layer: usize,
        x: &mut Inputs,
        picks: &Picks,
        shared: Option<Mlp<'_>>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let Some(Some(weights)) = self.layers.get(layer - self.first) else {
            unreachable!("layer {layer} was bound with its experts")
        };
        let tokens = x.rows();
        let everyone = Columns::Range { start: 0, len: tokens };
        let width = weights.down.cols();
        // A shared expert of another width has inputs of its own, and needs lists of its own.
        let (joined, apart) = match shared {
            Some(mlp) if mlp.gate.rows() == width => (Some(mlp), None),
            other => (None, other),
        };

        let mut gates: Vec<GateUp<'_>> = std::mem::take(&mut self.gates);
        for group in picks.groups() {
            let (gate, up) = weights.gate_up(group.expert, tokens);
            gates.push(GateUp { gate, up, columns: Columns::List(group.tokens) });
        }
        gates.extend(joined.map(|mlp| GateUp { gate: mlp.gate, up: mlp.up, columns: everyone }));
        let total = gates.iter().map(|entry| entry.columns.len()).sum();
        cpu.gate_up(x, &gates, self.inner.reset(total, width));
        self.gates = emptied(gates);

        let mut downs: Vec<Weighted<'_>> = std::mem::take(&mut self.downs);
        let mut start = 0;
        for group in picks.groups() {
            let columns = Columns::Range { start, len: group.tokens.len() };
            let matrix = weights.down.get(group.expert).coarse(tokens);
            let (targets, weights) = (group.tokens, group.weights);
            downs.push(Weighted { matrix, columns, targets, weights });
            start += group.tokens.len();
        }
        let (targets, ones) = self.everyone.of(tokens);
        downs.extend(joined.map(|mlp| {
            let columns = Columns::Range { start, len: tokens };
            Weighted { matrix: mlp.down, columns, targets, weights: ones }
        }));
        cpu.add_weighted(&mut self.inner, &downs, out);
        self.downs = emptied(downs);

        if let Some(mlp) = apart {
            dense::add(cpu, mlp, x, &mut self.apart, out);
        }
        Ok(())
    }
}
