//! A layer's mixture of experts: router, routed experts, shared expert.

use std::sync::Arc;

use cachalot_kernels::{Activations, Cpu, Inputs};

use super::config::Config;
use super::router::{Choice, Router, RouterScratch};
use crate::bind::Binder;
use crate::mlp::{MlpScratch, MlpWeights};
use crate::scratch::ensure_len;
use crate::seam::{Batch, ExpertCall, Experts, Phase, Rows};
use crate::{Error, Precision, Routing};

/// Router and shared expert of one layer; the routed ones are in an [`Experts`].
#[derive(Debug)]
pub(crate) struct Moe {
    router: Router,
    shared: Option<MlpWeights>,
}

/// The next layer's router, and the norm before it: they predict its experts.
#[derive(Clone, Copy)]
pub(crate) struct NextRouter<'a> {
    norm: Norm<'a>,
    router: &'a Router,
}

/// The norm before a layer's router and experts.
#[derive(Clone, Copy)]
pub(crate) struct Norm<'a> {
    pub(crate) weight: &'a [f32], // [hidden]
    pub(crate) epsilon: f32,
}

impl Norm<'_> {
    /// Row `row` of `hidden`, normalized.
    pub(crate) fn row(&self, cpu: &Cpu, hidden: &[f32], row: usize, out: &mut [f32]) {
        let x = &hidden[row * out.len()..][..out.len()];
        cpu.rms_norm(x, self.weight, self.epsilon, out);
    }
}

/// What a layer of experts needs besides its weights.
pub(crate) struct MoeStep<'a> {
    pub(crate) cpu: &'a Cpu,
    pub(crate) batch: &'a Batch<'a>,
    pub(crate) precision: Precision,
    /// The layer, counted from the model's first.
    pub(crate) layer: usize,
    pub(crate) norm: Norm<'a>,
    pub(crate) next: Option<NextRouter<'a>>,
    pub(crate) experts: &'a mut dyn Experts,
}

/// The memory of a layer of experts.
#[derive(Debug, Default)]
pub(crate) struct MoeScratch {
    router: RouterScratch,
    routing: Routing,
    prefetch_x: Activations, // [rows, hidden]
    prefetched: Routing,
    shared: MlpScratch,
    shared_outputs: Vec<f32>, // [rows, hidden]
}

impl Moe {
    pub(crate) fn bind(binder: Binder<'_>, layer: usize, config: &Config) -> Result<Self, Error> {
        let Some(experts) = &config.experts else { return Err(Error::NoExperts) };
        let router = Router::bind(binder, layer, config.hidden, experts)?;
        let width = experts.width * experts.shared;
        let shared = (width > 0)
            .then(|| MlpWeights::shared(binder, layer, config.hidden, width))
            .transpose()?;
        Ok(Self { router, shared })
    }

    /// As the next layer's, after its `norm`.
    pub(crate) fn next_router<'a>(&'a self, norm: Norm<'a>) -> NextRouter<'a> {
        NextRouter { norm, router: &self.router }
    }

    /// Adds the outputs of the experts for the normalized hidden states to the hidden states. `x`
    /// is their memory.
    pub(crate) fn forward(
        &self,
        step: &mut MoeStep<'_>,
        x: &mut Activations,
        scratch: &mut MoeScratch,
        rows: &mut Rows,
    ) -> Result<(), Error> {
        let &mut MoeStep { cpu, batch, precision, layer, .. } = step;
        self.route(step, x, scratch, rows);
        let call = ExpertCall { layer, precision, routing: &scratch.routing };
        step.experts.begin(&call, x)?;
        if let Some(next) = step.next {
            prefetch(
                step,
                next,
                &mut scratch.prefetch_x,
                &mut scratch.router,
                rows,
                &mut scratch.prefetched,
            );
        }
        let shared = self.shared.as_ref().filter(|_| !step.experts.includes_shared());
        if let Some(shared) = shared {
            let out = ensure_len(&mut scratch.shared_outputs, rows.hidden.len());
            let inner = scratch.shared.gate_up(cpu, shared.mlp(precision), x.into());
            inner.compute(cpu, out);
        }
        let failed = step.experts.finish(&call, x, &mut rows.hidden)?;
        if shared.is_some() {
            let (outputs, width) = (&scratch.shared_outputs, x.cols());
            cpu.for_rows(&mut rows.hidden, width, |row, hidden| {
                let output = &outputs[row * width..][..width];
                hidden.iter_mut().zip(output).for_each(|(hidden, output)| *hidden += output);
            });
        }
        for failed in failed {
            let rows_failed = failed.rows.iter().map(|&row| row as usize);
            rows.fail(batch, rows_failed, &Arc::clone(&failed.error));
        }
        Ok(())
    }

    /// Normalizes the hidden states to `x`, and chooses their experts.
    fn route(&self, step: &MoeStep<'_>, x: &mut Activations, s: &mut MoeScratch, rows: &Rows) {
        let is_decode = step.batch.phase() == Phase::Decode;
        let residency = step.experts.residency().filter(|r| is_decode && r.is_preferred());
        let is_resident = residency.map(|r| move |expert| r.is_resident(step.layer, expert));
        let skipped = |row: usize| rows.has_row_failed(step.batch, row);
        let choice = Choice {
            precision: step.precision,
            preferred: is_resident.as_ref().map(|is| is as &dyn Fn(usize) -> bool),
            skipped: if rows.failures().is_empty() { None } else { Some(&skipped) },
        };
        let &MoeStep { cpu, norm, .. } = step;
        let normed = |row: usize, out: &mut [f32]| norm.row(cpu, &rows.hidden, row, out);
        let x = Inputs::made(x, [step.batch.rows(), norm.weight.len()], &normed);
        self.router.choose(cpu, choice, x, &mut s.router, &mut s.routing);
    }
}

/// Predicts the next layer's experts from the hidden states before this layer's experts.
fn prefetch(
    step: &mut MoeStep<'_>,
    next: NextRouter<'_>,
    x: &mut Activations,
    router: &mut RouterScratch,
    rows: &Rows,
    routing: &mut Routing,
) {
    let is_decode = step.batch.phase() == Phase::Decode;
    let is_wanted = step.experts.residency().is_some_and(|r| r.wants_prefetch());
    if is_decode && is_wanted {
        let cpu = step.cpu;
        let normed = |row: usize, out: &mut [f32]| next.norm.row(cpu, &rows.hidden, row, out);
        let x = Inputs::made(x, [step.batch.rows(), next.norm.weight.len()], &normed);
        let choice = Choice { precision: step.precision, preferred: None, skipped: None };
        next.router.choose(step.cpu, choice, x, router, routing);
        step.experts.prefetch(step.layer + 1, routing);
    }
}
