//! Experts that do not all fit into memory: some are resident, others are read when they are
//! chosen.
//!
//! The results are those of [`Resident`](super::resident::Resident), bit for bit; only the order of
//! work differs. If the outputs of all chosen experts fit into a buffer, as in decoding, experts
//! are computed in whatever order their reads complete, and outputs are added up in the order of
//! experts at the end. The chosen experts of long prompts are computed in order, while the next
//! ones are read, and each is read once.

use std::path::PathBuf;
use std::sync::Arc;

use cachalot_kernels::{Activations, Cpu, GateUp, Inputs, Product, Tokens, Weighted, recycle};
use cachalot_store::{CacheOptions, ExpertCache, Monitor, Reader, SLICES_MAX, Weights};

use super::{ExpertMatrices, ExpertShape, ExpertTensors, TensorShape};
use crate::bind::{Binder, StreamedMatrix};
use crate::mlp::{MlpScratch, MlpWeights};
use crate::scratch::ensure_len;
use crate::seam::{ExpertCall, Experts, FailedRows, Residency};
use crate::{Error, ExpertBatch, Routing};

/// Bytes of outputs that are kept until they are added up.
const OUTPUTS_MAX: usize = 32 << 20;
/// Experts that are read ahead of computing in a prompt: enough to keep a drive busy.
const AHEAD_MAX: usize = 16;
/// Experts of a prompt that are computed together.
const TOGETHER_MAX: usize = 8;
/// Experts of each row that are prefetched for the next layer, the most probable ones.
const PREFETCHED: usize = 6;

/// [`Experts`] on this processor over an [`ExpertCache`].
#[derive(Debug)]
pub struct Streamed {
    cpu: Arc<Cpu>,
    shape: ExpertShape,
    layers: Vec<ExpertTensors<StreamedMatrix>>,
    shared: Vec<MlpWeights>, // [layers], or none
    cache: ExpertCache,
    is_preferred: bool,
    /// Chosen experts of the current layer that the cache was asked for, in ascending order.
    requested: usize,
    inner: Activations, // [rows, width]
    gates: Vec<GateUp<'static>>,
    products: Vec<Product<'static>>,
    downs: Vec<Weighted<'static>>,
    outputs: Vec<f32>,    // [rows, hidden]
    progress: Vec<State>, // [chosen experts]
    shared_scratch: MlpScratch,
    shared_outputs: Vec<f32>, // [rows, hidden]
}

/// The state of a chosen expert in the current layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    /// Its first row of outputs.
    Computed(usize),
    Failed,
}

impl Streamed {
    /// Binds the experts of the layers of `shape`, over a cache.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape or format than it should, or there is no memory
    /// for the cache.
    pub fn bind(
        weights: &Weights,
        cpu: &Arc<Cpu>,
        shape: &ExpertShape,
        reader: Reader,
        options: &CacheOptions,
    ) -> Result<Self, Error> {
        let binder = Binder::new(weights);
        let mut stacks = Vec::new();
        let mut layers = Vec::new();
        for layer in shape.layers.clone() {
            let mut slices = Vec::with_capacity(SLICES_MAX);
            let bind = |TensorShape { name, count, rows, cols }: TensorShape<'_>| {
                let (matrix, stack) = binder.streamed_experts(name, count, rows, cols)?;
                slices.push(stack);
                Ok(matrix)
            };
            layers.push(ExpertTensors::bind(binder, layer, shape, bind)?);
            stacks.push(slices);
        }
        Ok(Self {
            cpu: Arc::clone(cpu),
            shape: shape.clone(),
            layers,
            shared: super::shared(binder, shape)?,
            cache: ExpertCache::new(stacks, reader, options)?,
            is_preferred: false,
            requested: 0,
            inner: Activations::new(),
            gates: Vec::new(),
            products: Vec::new(),
            downs: Vec::new(),
            outputs: Vec::new(),
            progress: Vec::new(),
            shared_scratch: MlpScratch::default(),
            shared_outputs: Vec::new(),
        })
    }

    /// A handle to watch the cache.
    pub fn monitor(&self) -> Monitor {
        self.cache.monitor()
    }

    /// As [`ExpertCache::load_expert_stats`].
    pub fn load_expert_stats(&mut self, path: PathBuf) {
        self.cache.load_expert_stats(path);
    }

    /// From now on, routers prefer resident experts to others that score little better: fewer
    /// reads, and other results than the model's.
    pub fn route_cache_aware(&mut self) {
        self.is_preferred = true;
    }

    /// Whether the cache's memory is locked, so that it cannot be swapped out.
    pub fn is_locked(&self) -> bool {
        self.cache.is_locked()
    }

    /// A layer as the cache counts it.
    fn index(&self, layer: usize) -> usize {
        layer - self.shape.layers.start
    }

    /// Asks the cache for chosen experts up to number `end`, as far as there are frames.
    fn request_up_to(&mut self, end: usize, layer: usize, routing: &Routing) {
        let Self { cache, requested, .. } = self;
        for batch in routing.batches().take(end).skip(*requested) {
            if !cache.request(layer, batch.expert) {
                return;
            }
            *requested += 1;
        }
    }

    /// How many experts are requested before they are needed.
    fn ahead(&self, layer: usize) -> usize {
        (self.cache.capacity_for(layer) / 2).clamp(1, AHEAD_MAX)
    }

    /// Whether the outputs of all chosen experts are kept until they are added up.
    fn keeps_outputs(&self, routing: &Routing) -> bool {
        let rows: usize = routing.batches().map(|batch| batch.rows.len()).sum();
        rows * self.shape.hidden * size_of::<f32>() <= OUTPUTS_MAX
    }

    /// Computes the shared expert first, then experts in the order in which reads complete.
    fn finish_in_any_order(
        &mut self,
        call: &ExpertCall<'_>,
        x: &mut Activations,
        out: &mut [f32],
    ) -> Result<Vec<FailedRows>, Error> {
        let (layer, hidden, routing) = (self.index(call.layer), self.shape.hidden, call.routing);
        let has_shared = self.includes_shared();
        if let Some(shared) = self.shared.get(layer) {
            let mlp = shared.mlp(call.precision);
            let outputs = ensure_len(&mut self.shared_outputs, out.len());
            let inner = self.shared_scratch.gate_up(&self.cpu, mlp, Inputs::from(&mut *x));
            inner.compute(&self.cpu, outputs);
        }
        self.progress.clear();
        self.progress.extend(routing.batches().map(|_| State::Waiting));
        let mut failed = Failures::default();
        let mut rows = 0;
        while let Some(batch) = next_batch(routing, &self.progress) {
            self.cache.poll();
            let is_ready = |expert| self.cache.is_ready(layer, expert);
            let any_ready = routing.batches().zip(&self.progress);
            let any_ready = { any_ready }
                .any(|(batch, state)| *state == State::Waiting && is_ready(batch.expert));
            // At least one is ready after this; others that are complete by then are computed, too.
            if !any_ready && !self.wait(layer, &batch, &mut failed) {
                let at = self.progress.iter().position(|state| *state == State::Waiting);
                at.into_iter().for_each(|at| self.progress[at] = State::Failed);
                continue;
            }
            rows = self.compute_ready(call, x, rows);
        }
        for (batch, state) in routing.batches().zip(&self.progress) {
            let State::Computed(at) = *state else { continue };
            let outputs = self.outputs[at * hidden..].chunks_exact(hidden);
            for ((&row, &weight), output) in batch.rows.iter().zip(batch.weights).zip(outputs) {
                add(&mut out[row as usize * hidden..][..hidden], weight, output);
            }
        }
        if has_shared {
            add(out, 1.0, &self.shared_outputs[..out.len()]);
        }
        self.cache.idle();
        Ok(failed.rows)
    }

    /// Waits for an expert; `false` if it has failed.
    fn wait(&mut self, layer: usize, batch: &ExpertBatch<'_>, failed: &mut Failures) -> bool {
        if let Some(error) = &failed.stalled {
            self.cache.poll();
            if !self.cache.is_ready(layer, batch.expert) {
                let error = Arc::clone(error);
                failed.rows.push(FailedRows { rows: batch.rows.to_vec(), error });
                return false;
            }
        }
        match self.cache.wait(layer, batch.expert) {
            Ok(()) => true,
            Err(error) => {
                failed.push(batch, error);
                false
            }
        }
    }

    /// Computes the experts that are ready and were not computed; there are `before` rows of
    /// outputs. Returns how many there are then.
    fn compute_ready(
        &mut self,
        call: &ExpertCall<'_>,
        x: &mut Activations,
        before: usize,
    ) -> usize {
        let &ExpertCall { precision, routing, .. } = call;
        let layer = self.index(call.layer);
        let Self { cpu, shape, layers, cache, inner, outputs, progress, .. } = self;
        let (tensors, cache) = (&layers[layer], &*cache);
        let mut gates: Vec<GateUp<'_>> = recycle(std::mem::take(&mut self.gates));
        let mut downs: Vec<Product<'_>> = recycle(std::mem::take(&mut self.products));
        let mut rows = 0;
        for (batch, state) in routing.batches().zip(progress) {
            if *state != State::Waiting || !cache.is_ready(layer, batch.expert) {
                continue;
            }
            let slices = cache.slices(layer, batch.expert);
            let view = |matrix: &StreamedMatrix, at: usize| {
                precision.tolerant(matrix.matrix(batch.expert, slices[at]))
            };
            let ExpertMatrices { gate, up, down } = tensors.matrices(view);
            let len = batch.rows.len();
            gates.push(GateUp { gate, up, tokens: Tokens::List(batch.rows) });
            downs.push(Product { matrix: down, tokens: Tokens::Range { start: rows, len } });
            *state = State::Computed(before + rows);
            rows += len;
        }
        cpu.gate_up(x, &gates, inner.reset(rows, shape.width));
        let outputs = ensure_len(outputs, (before + rows) * shape.hidden);
        cpu.multiply(inner, &downs, &mut outputs[before * shape.hidden..]);
        (self.gates, self.products) = (recycle(gates), recycle(downs));
        before + rows
    }

    /// Computes experts in ascending order, the shared one last.
    fn finish_in_order(
        &mut self,
        call: &ExpertCall<'_>,
        x: &mut Activations,
        out: &mut [f32],
    ) -> Result<Vec<FailedRows>, Error> {
        let (layer, routing) = (self.index(call.layer), call.routing);
        let count = routing.batches().count();
        let ahead = self.ahead(layer);
        let mut failed = Failures::default();
        let mut done = 0;
        while done < count {
            self.request_up_to(count.min(done + ahead), layer, routing);
            if self.requested == done {
                // All frames are being read into for experts that are not needed any more.
                let Err(error) = self.cache.wait_any() else { continue };
                let left = routing.batches().skip(done);
                let rows = left.flat_map(|batch| batch.rows.iter().copied()).collect();
                failed.rows.push(FailedRows { rows, error: Arc::new(Error::Store(error)) });
                break;
            }
            let Some(batch) = routing.batches().nth(done) else { break };
            if !self.wait(layer, &batch, &mut failed) {
                done += 1;
                continue;
            }
            let end = self.requested.min(done + TOGETHER_MAX);
            let ready = routing.batches().take(end).skip(done);
            let ready = ready.take_while(|batch| self.cache.is_ready(layer, batch.expert)).count();
            self.add_run(call, x, Run { first: done, count: ready }, out);
            for batch in routing.batches().skip(done).take(ready) {
                self.cache.release(layer, batch.expert);
            }
            done += ready;
        }
        if let Some(shared) = self.shared.get(layer) {
            let (mlp, scratch) = (shared.mlp(call.precision), &mut self.shared_scratch);
            scratch.gate_up(&self.cpu, mlp, Inputs::from(x)).add(&self.cpu, out);
        }
        Ok(failed.rows)
    }

    /// Adds the outputs of some chosen experts, which are all ready.
    fn add_run(&mut self, call: &ExpertCall<'_>, x: &mut Activations, run: Run, out: &mut [f32]) {
        let &ExpertCall { precision, routing, .. } = call;
        let layer = self.index(call.layer);
        let Self { cpu, shape, layers, cache, inner, .. } = self;
        let tensors = &layers[layer];
        let mut gates: Vec<GateUp<'_>> = recycle(std::mem::take(&mut self.gates));
        let mut downs: Vec<Weighted<'_>> = recycle(std::mem::take(&mut self.downs));
        let mut rows = 0;
        for batch in routing.batches().skip(run.first).take(run.count) {
            let slices = cache.slices(layer, batch.expert);
            let view = |matrix: &StreamedMatrix, at: usize| {
                precision.tolerant(matrix.matrix(batch.expert, slices[at]))
            };
            let ExpertMatrices { gate, up, down } = tensors.matrices(view);
            let ExpertBatch { rows: targets, weights, .. } = batch;
            let tokens = Tokens::Range { start: rows, len: targets.len() };
            gates.push(GateUp { gate, up, tokens: Tokens::List(targets) });
            downs.push(Weighted { matrix: down, tokens, targets, weights });
            rows += targets.len();
        }
        cpu.gate_up(x, &gates, inner.reset(rows, shape.width));
        cpu.add_weighted(inner, &downs, out);
        (self.gates, self.downs) = (recycle(gates), recycle(downs));
    }
}

/// Chosen experts that follow each other.
#[derive(Clone, Copy)]
struct Run {
    first: usize,
    count: usize,
}

/// Rows that have failed. A drive that stalls is waited for once in a layer.
#[derive(Default)]
struct Failures {
    rows: Vec<FailedRows>,
    stalled: Option<Arc<Error>>,
}

impl Failures {
    fn push(&mut self, batch: &ExpertBatch<'_>, error: cachalot_store::Error) {
        let is_stalled = matches!(error, cachalot_store::Error::Stalled { .. });
        let error = Arc::new(Error::Store(error));
        self.rows.push(FailedRows { rows: batch.rows.to_vec(), error: Arc::clone(&error) });
        self.stalled = is_stalled.then_some(error);
    }
}

/// The first chosen expert that is waiting.
fn next_batch<'a>(routing: &'a Routing, progress: &[State]) -> Option<ExpertBatch<'a>> {
    let mut batches = routing.batches().zip(progress);
    batches.find(|(_, state)| **state == State::Waiting).map(|(batch, _)| batch)
}

/// Adds `weight` times `what` to `out`, as [`Cpu::add_weighted`] does.
fn add(out: &mut [f32], weight: f32, what: &[f32]) {
    for (o, v) in out.iter_mut().zip(what) {
        *o += weight * v;
    }
}

impl Experts for Streamed {
    fn begin(&mut self, call: &ExpertCall<'_>, _: &Activations) -> Result<(), Error> {
        let (layer, routing) = (self.index(call.layer), call.routing);
        let rows = routing.rows();
        if layer == 0 {
            self.cache.advance(rows);
        }
        for row in 0..rows {
            for &expert in routing.of(row).0 {
                self.cache.touch(layer, expert as usize, rows - 1 - row);
            }
        }
        self.cache.begin_layer();
        // Resident experts are not evicted for others of this layer, but for some frames to go on.
        let ahead = self.ahead(layer);
        let mut frames = self.cache.capacity_for(layer) - ahead;
        for batch in routing.batches() {
            if frames > 0 && self.cache.keep(layer, batch.expert) {
                frames -= 1;
            }
        }
        self.requested = 0;
        let count = routing.batches().count();
        let first = if self.keeps_outputs(routing) { count } else { ahead };
        self.request_up_to(first.min(count), layer, routing);
        self.cache.end_prefetch(layer);
        if let Some(replaced) = routing.replaced() {
            self.cache.note_routing(rows * self.shape.used, replaced);
        }
        Ok(())
    }

    fn finish(
        &mut self,
        call: &ExpertCall<'_>,
        x: &mut Activations,
        out: &mut [f32],
    ) -> Result<Vec<FailedRows>, Error> {
        let all_requested = self.requested == call.routing.batches().count();
        if all_requested && self.keeps_outputs(call.routing) {
            self.finish_in_any_order(call, x, out)
        } else {
            self.finish_in_order(call, x, out)
        }
    }

    fn includes_shared(&self) -> bool {
        !self.shared.is_empty()
    }

    fn prefetch(&mut self, layer: usize, guess: &Routing) {
        let index = self.index(layer);
        for row in 0..guess.rows() {
            for &expert in guess.of(row).0.iter().take(PREFETCHED) {
                self.cache.prefetch(index, expert as usize);
            }
        }
    }

    fn residency(&self) -> Option<&dyn Residency> {
        Some(self)
    }
}

impl Residency for Streamed {
    fn is_resident(&self, layer: usize, expert: usize) -> bool {
        self.cache.has(self.index(layer), expert)
    }

    fn wants_prefetch(&self) -> bool {
        self.cache.wants_prefetch()
    }

    fn is_preferred(&self) -> bool {
        self.is_preferred
    }
}
