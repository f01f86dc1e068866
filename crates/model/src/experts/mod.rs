//! Routed experts: where their weights are, for any architecture that has them.

pub(crate) mod resident;
pub(crate) mod streamed;
pub(crate) mod traced;

use std::ops::Range;

use cachalot_kernels::Matrix;
use cachalot_store::Weights;

use crate::Error;
use crate::bind::Binder;
use crate::mlp::MlpWeights;

/// Which layers have routed experts, and their sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpertShape {
    /// The layers, counted from the model's first.
    pub layers: Range<usize>,
    /// Experts of a layer.
    pub count: usize,
    /// Experts that a token uses in a layer.
    pub used: usize,
    /// Width of an expert.
    pub width: usize,
    /// Width of the shared expert; 0 if there is none.
    pub shared_width: usize,
    /// Width of the hidden state.
    pub hidden: usize,
}

/// Bytes of the slices of one expert in each layer: gate, up and down, or gate and up in one, and
/// down. A tensor that is missing has none.
pub fn slice_bytes(weights: &Weights, shape: &ExpertShape) -> Vec<Vec<usize>> {
    let of_layer = |layer| {
        let size = |part| {
            let tensor = weights.tensor(&format!("blk.{layer}.ffn_{part}_exps.weight"))?;
            Some((tensor.info.size / shape.count.max(1) as u64) as usize)
        };
        ["gate_up", "gate", "up", "down"].into_iter().filter_map(size).collect()
    };
    shape.layers.clone().map(of_layer).collect()
}

/// The shared experts of the layers, none if the model has none.
fn shared(binder: Binder<'_>, shape: &ExpertShape) -> Result<Vec<MlpWeights>, Error> {
    if shape.shared_width == 0 {
        return Ok(Vec::new());
    }
    let bind = |layer| MlpWeights::shared(binder, layer, shape.hidden, shape.shared_width);
    shape.layers.clone().map(bind).collect()
}

/// The routed experts of one layer, in tensors that are resident or streamed.
#[derive(Debug)]
pub(crate) struct ExpertTensors<W> {
    gate_up: GateUpTensors<W>,
    down: W, // [experts][hidden, width]
    width: usize,
}

/// Two tensors in most files, one in those of newer converters.
#[derive(Debug)]
enum GateUpTensors<W> {
    Separate(W, W), // [experts][width, hidden] each
    Fused(W),       // [experts][gate width + up width, hidden]
}

/// A tensor of equal matrices, one for each expert.
#[derive(Clone, Copy)]
struct TensorShape<'a> {
    name: &'a str,
    count: usize,
    rows: usize, // of each
    cols: usize,
}

/// The matrices of one expert.
struct ExpertMatrices<'a> {
    gate: Matrix<'a>, // [width, hidden]
    up: Matrix<'a>,   // [width, hidden]
    down: Matrix<'a>, // [hidden, width]
}

impl<W> ExpertTensors<W> {
    /// Binds the tensors of `layer` with `bind`, in the order of an expert's slices: gate and up,
    /// or both in one; down.
    fn bind(
        binder: Binder<'_>,
        layer: usize,
        shape: &ExpertShape,
        mut bind: impl FnMut(TensorShape<'_>) -> Result<W, Error>,
    ) -> Result<Self, Error> {
        let &ExpertShape { count, width, hidden, .. } = shape;
        let mut part = |part: &str, rows, cols| {
            let name = format!("blk.{layer}.ffn_{part}_exps.weight");
            bind(TensorShape { name: &name, count, rows, cols })
        };
        let gate_up = if binder.has(&format!("blk.{layer}.ffn_gate_up_exps.weight")) {
            GateUpTensors::Fused(part("gate_up", 2 * width, hidden)?)
        } else {
            GateUpTensors::Separate(part("gate", width, hidden)?, part("up", width, hidden)?)
        };
        Ok(Self { gate_up, down: part("down", hidden, width)?, width })
    }

    /// The matrices of one expert; `view` finds them in the tensor that holds slice `n` of an
    /// expert.
    fn matrices<'a>(&'a self, view: impl Fn(&'a W, usize) -> Matrix<'a>) -> ExpertMatrices<'a> {
        match &self.gate_up {
            GateUpTensors::Separate(gate, up) => {
                ExpertMatrices { gate: view(gate, 0), up: view(up, 1), down: view(&self.down, 2) }
            }
            GateUpTensors::Fused(both) => {
                let both = view(both, 0);
                ExpertMatrices {
                    gate: both.slice(0, self.width),
                    up: both.slice(self.width, self.width),
                    down: view(&self.down, 1),
                }
            }
        }
    }
}
