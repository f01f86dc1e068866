//! Experts that do not all fit into memory: some are kept, others are read when they are picked.
//!
//! What is computed is what [`Resident`](super::resident::Resident) computes, bit for bit; only when
//! differs. A few tokens, as in decoding, have their experts computed in whatever order they land, and
//! outputs are added up in the order of experts at the end. Many tokens, as in a prompt, want so many
//! experts that keeping all outputs would take more memory than it is worth: they go through a layer's
//! experts in order, some are read ahead while others are computed, and each is read once.

use std::path::PathBuf;

use cachalot_kernels::{Columns, Cpu, GateUp, Inputs, Matrix, Product, Weighted};
use cachalot_store::{CacheOptions, ExpertCache, Monitor, Reader, SLICES_MAX, Stack, Weights};

use super::ARCH;
use super::config::Config;
use super::dense::{self, MlpScratch};
use crate::bind::{Binder, Elsewhere};
use crate::scratch::{emptied, grown};
use crate::{Error, Experts, Group, Mlp, Picks};

/// Rows of outputs that are kept until they are added up.
const OUTPUTS_MAX: usize = 64;
/// Experts that are read ahead of computing in a prompt: enough to keep a drive busy meanwhile.
const AHEAD_MAX: usize = 16;
/// Experts of a prompt that are computed together.
const TOGETHER_MAX: usize = 8;

/// Experts of each token that are guessed for the next layer, the likeliest of its router.
const GUESSES: usize = 6;

/// [`Experts`] over an [`ExpertCache`].
#[derive(Debug)]
pub struct Streamed {
    first: usize,
    layers: Vec<Layer>,
    cache: ExpertCache,
    /// Whether routers shall prefer what is in memory.
    prefers_cached: bool,
    /// Picked experts of the present layer that the cache was asked for, in ascending order.
    requested: usize,
    inner: Inputs, // [rows, width]
    gates: Vec<GateUp<'static>>,
    products: Vec<Product<'static>>,
    downs: Vec<Weighted<'static>>,
    outputs: Vec<f32>,          // [rows, hidden]
    places: Vec<Option<usize>>, // [picked experts]: where the outputs of each begin
    shared: MlpScratch,
    shared_outputs: Vec<f32>, // [tokens, hidden]
}

/// The routed experts of one layer.
#[derive(Debug)]
struct Layer {
    gate_up: GateAndUp,
    down: Elsewhere, // [hidden, width] each
}

/// Two slices in most files, one in those of newer converters.
#[derive(Debug)]
enum GateAndUp {
    Apart(Elsewhere, Elsewhere), // [width, hidden] each
    Merged(Elsewhere),           // [gate width + up width, hidden]
}

/// The matrices of one expert.
struct Expert<'a> {
    gate: Matrix<'a>, // [width, hidden]
    up: Matrix<'a>,   // [width, hidden]
    down: Matrix<'a>, // [hidden, width]
}

impl Layer {
    fn bind(
        binder: Binder<'_>,
        layer: usize,
        (count, width, hidden): (usize, usize, usize),
    ) -> Result<(Self, Vec<Stack>), Error> {
        let name = |part: &str| format!("blk.{layer}.ffn_{part}_exps.weight");
        let (down, down_stack) = binder.experts_elsewhere(&name("down"), count, hidden, width)?;
        let merged = name("gate_up");
        let (gate_up, mut stacks) = if binder.has(&merged) {
            let (both, stack) = binder.experts_elsewhere(&merged, count, 2 * width, hidden)?;
            (GateAndUp::Merged(both), vec![stack])
        } else {
            let (gate, first) = binder.experts_elsewhere(&name("gate"), count, width, hidden)?;
            let (up, second) = binder.experts_elsewhere(&name("up"), count, width, hidden)?;
            (GateAndUp::Apart(gate, up), vec![first, second])
        };
        stacks.push(down_stack);
        Ok((Self { gate_up, down }, stacks))
    }

    /// The matrices of an expert whose slices these are, for a batch of so many tokens.
    fn expert<'a>(
        &self,
        index: usize,
        slices: [&'a [u8]; SLICES_MAX],
        tokens: usize,
    ) -> Expert<'a> {
        match &self.gate_up {
            GateAndUp::Apart(gate, up) => Expert {
                gate: gate.matrix(index, slices[0], tokens),
                up: up.matrix(index, slices[1], tokens),
                down: self.down.matrix(index, slices[2], tokens),
            },
            GateAndUp::Merged(both) => {
                let (both, width) = (both.matrix(index, slices[0], tokens), self.down.cols());
                Expert {
                    gate: both.slice(0, width),
                    up: both.slice(width, width),
                    down: self.down.matrix(index, slices[1], tokens),
                }
            }
        }
    }
}

impl Streamed {
    /// Experts of all layers that have them, over a cache.
    ///
    /// # Errors
    /// If the model has no experts, a tensor is missing or has another shape or format than it
    /// should, or there is no memory for the cache.
    pub fn bind(
        weights: &Weights,
        config: &Config,
        reader: Reader,
        options: &CacheOptions,
    ) -> Result<Self, Error> {
        let experts = config.experts.as_ref().ok_or(Error::NoExperts)?;
        let binder = Binder::new(weights, ARCH);
        let first = config.dense_layers;
        let shape = (experts.count, experts.width, config.hidden);
        let bound = (first..config.layers).map(|layer| Layer::bind(binder, layer, shape));
        let bound: Vec<_> = bound.collect::<Result<_, _>>()?;
        let (layers, stacks): (Vec<_>, Vec<_>) = bound.into_iter().unzip();
        Ok(Self {
            first,
            layers,
            cache: ExpertCache::new(stacks, reader, options)?,
            prefers_cached: false,
            requested: 0,
            inner: Inputs::new(),
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

    /// As [`ExpertCache::remember`].
    pub fn remember(&mut self, path: PathBuf) {
        self.cache.remember(path);
    }

    /// From now on, routers prefer experts that are in memory to others that they like little better:
    /// fewer reads, and other results than the model's.
    pub fn prefer_cached(&mut self) {
        self.prefers_cached = true;
    }

    /// Whether the cache's memory is safe from being swapped out.
    pub fn is_locked(&self) -> bool {
        self.cache.is_locked()
    }

    /// Asks the cache for picked experts up to number `end`, as far as there is room.
    fn request_up_to(&mut self, end: usize, layer: usize, picks: &Picks) {
        let Self { cache, requested, .. } = self;
        for group in picks.groups().take(end).skip(*requested) {
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
        x: &mut Inputs,
        picks: &Picks,
        shared: Option<Mlp<'_>>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let hidden = self.layers[layer].down.rows();
        if let Some(mlp) = shared {
            let outputs = grown(&mut self.shared_outputs, x.rows() * hidden);
            dense::compute(cpu, mlp, x, &mut self.shared, outputs);
        }
        self.places.clear();
        self.places.extend(picks.groups().map(|_| None));
        let mut rows = 0;
        while let Some(group) = next_group(picks, &self.places) {
            // One at least is there after this; those that land meanwhile go along.
            self.cache.poll();
            let place = |group: &Group<'_>| self.cache.is_ready(layer, group.expert);
            if !picks.groups().zip(&self.places).any(|(g, at)| at.is_none() && place(&g)) {
                self.cache.wait(layer, group.expert)?;
            }
            rows = self.compute_ready((cpu, layer), x, picks, rows);
        }
        for (group, place) in picks.groups().zip(&self.places) {
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
        x: &mut Inputs,
        picks: &Picks,
        before: usize,
    ) -> usize {
        let Self { layers, cache, inner, gates, products, outputs, places, .. } = self;
        let (weights, cache) = (&layers[layer], &*cache);
        let (hidden, width) = (weights.down.rows(), weights.down.cols());
        let mut list: Vec<GateUp<'_>> = std::mem::take(gates);
        let mut downs: Vec<Product<'_>> = std::mem::take(products);
        let mut rows = 0;
        for (group, place) in picks.groups().zip(places) {
            if place.is_some() || !cache.is_ready(layer, group.expert) {
                continue;
            }
            let slices = cache.slices(layer, group.expert);
            let Expert { gate, up, down } = weights.expert(group.expert, slices, x.rows());
            let len = group.tokens.len();
            list.push(GateUp { gate, up, columns: Columns::List(group.tokens) });
            downs.push(Product { matrix: down, columns: Columns::Range { start: rows, len } });
            *place = Some(before + rows);
            rows += len;
        }
        cpu.gate_up(x, &list, inner.reset(rows, width));
        let outputs = grown(outputs, (before + rows) * hidden);
        cpu.multiply(inner, &downs, &mut outputs[before * hidden..]);
        (*gates, *products) = (emptied(list), emptied(downs));
        before + rows
    }

    /// Computes many tokens: expert after expert, the shared one last.
    fn apply_many(
        &mut self,
        (cpu, layer): (&Cpu, usize),
        x: &mut Inputs,
        picks: &Picks,
        shared: Option<Mlp<'_>>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let count = picks.groups().count();
        let ahead = self.ahead(layer);
        let mut done = 0;
        while done < count {
            self.request_up_to(count.min(done + ahead), layer, picks);
            if self.requested == done {
                // All memory waits for reads that nobody wants any more.
                self.cache.wait_any()?;
                continue;
            }
            if let Some(group) = picks.groups().nth(done) {
                self.cache.wait(layer, group.expert)?;
            }
            let end = self.requested.min(done + TOGETHER_MAX);
            let ready = picks.groups().take(end).skip(done);
            let ready = ready.take_while(|group| self.cache.is_ready(layer, group.expert)).count();
            self.add_run((cpu, layer), x, picks, (done, ready), out);
            for group in picks.groups().skip(done).take(ready) {
                self.cache.release(layer, group.expert);
            }
            done += ready;
        }
        if let Some(mlp) = shared {
            dense::add(cpu, mlp, x, &mut self.shared, out);
        }
        Ok(())
    }

    /// Adds the outputs of `count` picked experts from number `first` on, which are all there.
    fn add_run(
        &mut self,
        (cpu, layer): (&Cpu, usize),
        x: &mut Inputs,
        picks: &Picks,
        (first, count): (usize, usize),
        out: &mut [f32],
    ) {
        let Self { layers, cache, inner, gates, downs, .. } = self;
        let weights = &layers[layer];
        let mut list: Vec<GateUp<'_>> = std::mem::take(gates);
        let mut weighted: Vec<Weighted<'_>> = std::mem::take(downs);
        let mut rows = 0;
        for group in picks.groups().skip(first).take(count) {
            let slices = cache.slices(layer, group.expert);
            let Expert { gate, up, down } = weights.expert(group.expert, slices, x.rows());
            let Group { tokens, weights, .. } = group;
            let columns = Columns::Range { start: rows, len: tokens.len() };
            list.push(GateUp { gate, up, columns: Columns::List(tokens) });
            weighted.push(Weighted { matrix: down, columns, targets: tokens, weights });
            rows += tokens.len();
        }
        cpu.gate_up(x, &list, inner.reset(rows, weights.down.cols()));
        cpu.add_weighted(inner, &weighted, out);
        (*gates, *downs) = (emptied(list), emptied(weighted));
    }
}

/// The first picked expert that was not computed.
fn next_group<'a>(picks: &'a Picks, places: &[Option<usize>]) -> Option<Group<'a>> {
    picks.groups().zip(places).find(|(_, place)| place.is_none()).map(|(group, _)| group)
}

/// Adds `weight` times `what` to `out`, as [`Cpu::add_weighted`] does.
fn add(out: &mut [f32], weight: f32, what: &[f32]) {
    for (o, v) in out.iter_mut().zip(what) {
        *o += weight * v;
    }
}

impl Experts for Streamed {
    fn request(&mut self, layer: usize, picks: &Picks) {
        let layer = layer - self.first;
        let tokens = picks.tokens();
        if layer == 0 {
            self.cache.advance(tokens);
        }
        for token in 0..tokens {
            for &expert in picks.of(token).0 {
                self.cache.touch(layer, expert as usize, tokens - 1 - token);
            }
        }
        self.cache.begin_layer();
        // Those that are there shall not leave for those that are not, but for some room to go on.
        let ahead = self.ahead(layer);
        let mut room = self.cache.capacity_for(layer) - ahead;
        for group in picks.groups() {
            if room > 0 && self.cache.keep(layer, group.expert) {
                room -= 1;
            }
        }
        self.requested = 0;
        let count = picks.groups().count();
        let first = if tokens * picks.of(0).0.len() <= OUTPUTS_MAX { count } else { ahead };
        self.request_up_to(first.min(count), layer, picks);
        self.cache.end_guesses(layer);
        if let Some(replaced) = picks.replaced() {
            self.cache.note_routing(tokens * picks.of(0).0.len(), replaced);
        }
    }

    fn hint(&mut self, layer: usize, guesses: &Picks) {
        for token in 0..guesses.tokens() {
            for &expert in guesses.of(token).0.iter().take(GUESSES) {
                self.cache.guess(layer - self.first, expert as usize);
            }
        }
    }

    fn wants_hints(&self) -> bool {
        self.cache.wants_guesses()
    }

    fn wants_preference(&self) -> bool {
        self.prefers_cached
    }

    fn is_at_hand(&self, layer: usize, expert: usize) -> bool {
        self.cache.has(layer - self.first, expert)
    }

    fn apply(
        &mut self,
        cpu: &Cpu,
        layer: usize,
        x: &mut Inputs,
        picks: &Picks,
        shared: Option<Mlp<'_>>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let layer = layer - self.first;
        let rows: usize = picks.groups().map(|group| group.tokens.len()).sum();
        let all_requested = self.requested == picks.groups().count();
        if rows <= OUTPUTS_MAX && all_requested {
            self.apply_few((cpu, layer), x, picks, shared, out)
        } else {
            self.apply_many((cpu, layer), x, picks, shared, out)
        }
    }
}
