//! Experts that do not all fit into memory: some are kept, others are read when they are picked.
//!
//! What is computed is what [`Resident`](super::resident::Resident) computes, bit for bit; only when
//! differs. A few tokens, as in decoding, have their experts computed in whatever order they land, and
//! outputs are added up in the order of experts at the end. Many tokens, as in a prompt, want so many
//! experts that keeping all outputs would take more memory than it is worth: they go through a layer's
//! experts in order, some are read ahead while others are computed, and each is read once.

use std::path::PathBuf;

use cachalot_kernels::{Activations, Cpu, GateUp, Product, Tokens, Weighted};
use cachalot_store::{CacheOptions, ExpertCache, Monitor, Reader, SLICES_MAX, Weights};

use super::{ExpertMatrices, ExpertShape, ExpertTensors, TensorShape};
use crate::bind::{Binder, StreamedMatrix};
use crate::mlp::{self, MlpScratch};
use crate::scratch::{ensure_len, recycle};
use crate::{Error, ExpertBatch, Experts, Mlp, Routing};

/// Rows of outputs that are kept until they are added up.
const OUTPUTS_MAX: usize = 64;
/// Experts that are read ahead of computing in a prompt: enough to keep a drive busy meanwhile.
const AHEAD_MAX: usize = 16;
/// Experts of a prompt that are computed together.
const TOGETHER_MAX: usize = 8;

/// Experts of each token that are guessed for the next layer, the likeliest of its router.
const PREFETCHES: usize = 6;

/// [`Experts`] over an [`ExpertCache`].
#[derive(Debug)]
pub struct Streamed {
    first: usize,
    shape: ExpertShape,
    layers: Vec<ExpertTensors<StreamedMatrix>>,
    cache: ExpertCache,
    /// Whether routers shall prefer what is in memory.
    is_cache_aware: bool,
    /// Picked experts of the present layer that the cache was asked for, in ascending order.
    requested: usize,
    inner: Activations, // [rows, width]
    gates: Vec<GateUp<'static>>,
    products: Vec<Product<'static>>,
    downs: Vec<Weighted<'static>>,
    outputs: Vec<f32>,          // [rows, hidden]
    places: Vec<Option<usize>>, // [picked experts]: where the outputs of each begin
    shared: MlpScratch,
    shared_outputs: Vec<f32>, // [tokens, hidden]
}

impl Streamed {
    /// Experts of all layers that have them, over a cache.
    ///
    /// # Errors
    /// If the model has no experts, a tensor is missing or has another shape or format than it
    /// should, or there is no memory for the cache.
    pub fn bind(
        weights: &Weights,
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
            first: shape.layers.start,
            shape: shape.clone(),
            layers,
            cache: ExpertCache::new(stacks, reader, options)?,
            is_cache_aware: false,
            requested: 0,
            inner: Activations::new(),
            gates: Vec::new(),
            products: Vec::new(),
            downs: Vec::new(),
            outputs: Vec::new(),
            places: Vec::new(),
            shared: MlpScratch::default(),
            shared_outputs: Vec::new(),
        })
    }

    /// A way to watch the cache.
    pub fn monitor(&self) -> Monitor {
        self.cache.monitor()
    }

    /// As [`ExpertCache::load_expert_stats`].
    pub fn load_expert_stats(&mut self, path: PathBuf) {
        self.cache.load_expert_stats(path);
    }

    /// From now on, routers prefer experts that are in memory to others that they like little better:
    /// fewer reads, and other results than the model's.
    pub fn route_cache_aware(&mut self) {
        self.is_cache_aware = true;
    }

    /// Whether the cache's memory is safe from being swapped out.
    pub fn is_locked(&self) -> bool {
        self.cache.is_locked()
    }

    /// Asks the cache for picked experts up to number `end`, as far as there is room.
    fn request_up_to(&mut self, end: usize, layer: usize, routing: &Routing) {
        let Self { cache, requested, .. } = self;
        for group in routing.batches().take(end).skip(*requested) {
            if !cache.request(layer, group.expert) {
                return;
            }
            *requested += 1;
        }
    }

    /// How many experts are asked for before they are needed.
    fn ahead(&self, layer: usize) -> usize {
        (self.cache.capacity_for(layer) / 2).clamp(1, AHEAD_MAX)
    }

    /// Computes a few tokens: shared expert first, then whatever is there.
    fn apply_few(
        &mut self,
        (cpu, layer): (&Cpu, usize),
        x: &mut Activations,
        routing: &Routing,
        shared: Option<Mlp<'_>>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let hidden = self.shape.hidden;
        if let Some(mlp) = shared {
            let outputs = ensure_len(&mut self.shared_outputs, x.rows() * hidden);
            mlp::compute(cpu, mlp, x, &mut self.shared, outputs);
        }
        self.places.clear();
        self.places.extend(routing.batches().map(|_| None));
        let mut rows = 0;
        while let Some(group) = next_group(routing, &self.places) {
            // One at least is there after this; those that land meanwhile go along.
            self.cache.poll();
            let place = |group: &ExpertBatch<'_>| self.cache.is_ready(layer, group.expert);
            if !routing.batches().zip(&self.places).any(|(g, at)| at.is_none() && place(&g)) {
                self.cache.wait(layer, group.expert)?;
            }
            rows = self.compute_ready((cpu, layer), x, routing, rows);
        }
        for (group, place) in routing.batches().zip(&self.places) {
            let outputs = place.map(|at| &self.outputs[at * hidden..]).unwrap_or_default();
            for ((&token, &weight), output) in
                group.tokens.iter().zip(group.weights).zip(outputs.chunks_exact(hidden))
            {
                add(&mut out[token as usize * hidden..][..hidden], weight, output);
            }
        }
        if shared.is_some() {
            add(out, 1.0, &self.shared_outputs[..out.len()]);
        }
        self.cache.idle();
        Ok(())
    }

    /// Computes those experts that are there and were not computed; there are `before` rows of
    /// outputs. Returns how many there are then.
    fn compute_ready(
        &mut self,
        (cpu, layer): (&Cpu, usize),
        x: &mut Activations,
        routing: &Routing,
        before: usize,
    ) -> usize {
        let Self { shape, layers, cache, inner, gates, products, outputs, places, .. } = self;
        let (tensors, cache) = (&layers[layer], &*cache);
        let (hidden, width) = (shape.hidden, shape.width);
        let mut list: Vec<GateUp<'_>> = std::mem::take(gates);
        let mut downs: Vec<Product<'_>> = std::mem::take(products);
        let mut rows = 0;
        for (group, place) in routing.batches().zip(places) {
            if place.is_some() || !cache.is_ready(layer, group.expert) {
                continue;
            }
            let slices = cache.slices(layer, group.expert);
            let view = |matrix: &StreamedMatrix, at: usize| {
                matrix.matrix(group.expert, slices[at], x.rows())
            };
            let ExpertMatrices { gate, up, down } = tensors.matrices(view);
            let len = group.tokens.len();
            list.push(GateUp { gate, up, tokens: Tokens::List(group.tokens) });
            downs.push(Product { matrix: down, tokens: Tokens::Range { start: rows, len } });
            *place = Some(before + rows);
            rows += len;
        }
        cpu.gate_up(x, &list, inner.reset(rows, width));
        let outputs = ensure_len(outputs, (before + rows) * hidden);
        cpu.multiply(inner, &downs, &mut outputs[before * hidden..]);
        (*gates, *products) = (recycle(list), recycle(downs));
        before + rows
    }

    /// Computes many tokens: expert after expert, the shared one last.
    fn apply_many(
        &mut self,
        (cpu, layer): (&Cpu, usize),
        x: &mut Activations,
        routing: &Routing,
        shared: Option<Mlp<'_>>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let count = routing.batches().count();
        let ahead = self.ahead(layer);
        let mut done = 0;
        while done < count {
            self.request_up_to(count.min(done + ahead), layer, routing);
            if self.requested == done {
                // All memory waits for reads that nobody wants any more.
                self.cache.wait_any()?;
                continue;
            }
            if let Some(group) = routing.batches().nth(done) {
                self.cache.wait(layer, group.expert)?;
            }
            let end = self.requested.min(done + TOGETHER_MAX);
            let ready = routing.batches().take(end).skip(done);
            let ready = ready.take_while(|group| self.cache.is_ready(layer, group.expert)).count();
            self.add_run((cpu, layer), x, routing, (done, ready), out);
            for group in routing.batches().skip(done).take(ready) {
                self.cache.release(layer, group.expert);
            }
            done += ready;
        }
        if let Some(mlp) = shared {
            mlp::add(cpu, mlp, x, &mut self.shared, out);
        }
        Ok(())
    }

    /// Adds the outputs of `count` picked experts from number `first` on, which are all there.
    fn add_run(
        &mut self,
        (cpu, layer): (&Cpu, usize),
        x: &mut Activations,
        routing: &Routing,
        (first, count): (usize, usize),
        out: &mut [f32],
    ) {
        let Self { shape, layers, cache, inner, gates, downs, .. } = self;
        let tensors = &layers[layer];
        let mut list: Vec<GateUp<'_>> = std::mem::take(gates);
        let mut weighted: Vec<Weighted<'_>> = std::mem::take(downs);
        let mut rows = 0;
        for group in routing.batches().skip(first).take(count) {
            let slices = cache.slices(layer, group.expert);
            let view = |matrix: &StreamedMatrix, at: usize| {
                matrix.matrix(group.expert, slices[at], x.rows())
            };
            let ExpertMatrices { gate, up, down } = tensors.matrices(view);
            let ExpertBatch { tokens, weights, .. } = group;
            let columns = Tokens::Range { start: rows, len: tokens.len() };
            list.push(GateUp { gate, up, tokens: Tokens::List(tokens) });
            weighted.push(Weighted { matrix: down, tokens: columns, targets: tokens, weights });
            rows += tokens.len();
        }
        cpu.gate_up(x, &list, inner.reset(rows, shape.width));
        cpu.add_weighted(inner, &weighted, out);
        (*gates, *downs) = (recycle(list), recycle(weighted));
    }
}

/// The first picked expert that was not computed.
fn next_group<'a>(routing: &'a Routing, places: &[Option<usize>]) -> Option<ExpertBatch<'a>> {
    routing.batches().zip(places).find(|(_, place)| place.is_none()).map(|(group, _)| group)
}

/// Adds `weight` times `what` to `out`, as [`Cpu::add_weighted`] does.
fn add(out: &mut [f32], weight: f32, what: &[f32]) {
    for (o, v) in out.iter_mut().zip(what) {
        *o += weight * v;
    }
}

impl Experts for Streamed {
    fn request(&mut self, layer: usize, routing: &Routing) {
        let layer = layer - self.first;
        let tokens = routing.tokens();
        if layer == 0 {
            self.cache.advance(tokens);
        }
        for token in 0..tokens {
            for &expert in routing.of(token).0 {
                self.cache.touch(layer, expert as usize, tokens - 1 - token);
            }
        }
        self.cache.begin_layer();
        // Those that are there shall not leave for those that are not, but for some room to go on.
        let ahead = self.ahead(layer);
        let mut room = self.cache.capacity_for(layer) - ahead;
        for group in routing.batches() {
            if room > 0 && self.cache.keep(layer, group.expert) {
                room -= 1;
            }
        }
        self.requested = 0;
        let count = routing.batches().count();
        let first = if tokens * routing.of(0).0.len() <= OUTPUTS_MAX { count } else { ahead };
        self.request_up_to(first.min(count), layer, routing);
        self.cache.end_prefetch(layer);
        if let Some(replaced) = routing.replaced() {
            self.cache.note_routing(tokens * routing.of(0).0.len(), replaced);
        }
    }

    fn prefetch(&mut self, layer: usize, prefetches: &Routing) {
        for token in 0..prefetches.tokens() {
            for &expert in prefetches.of(token).0.iter().take(PREFETCHES) {
                self.cache.prefetch(layer - self.first, expert as usize);
            }
        }
    }

    fn wants_prefetch(&self) -> bool {
        self.cache.wants_prefetch()
    }

    fn is_cache_aware(&self) -> bool {
        self.is_cache_aware
    }

    fn is_resident(&self, layer: usize, expert: usize) -> bool {
        self.cache.has(layer - self.first, expert)
    }

    fn apply(
        &mut self,
        cpu: &Cpu,
        layer: usize,
        x: &mut Activations,
        routing: &Routing,
        shared: Option<Mlp<'_>>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let layer = layer - self.first;
        let rows: usize = routing.batches().map(|group| group.tokens.len()).sum();
        let all_requested = self.requested == routing.batches().count();
        if rows <= OUTPUTS_MAX && all_requested {
            self.apply_few((cpu, layer), x, routing, shared, out)
        } else {
            self.apply_many((cpu, layer), x, routing, shared, out)
        }
    }
}
