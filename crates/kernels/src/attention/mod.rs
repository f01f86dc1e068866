//! Multi-head latent attention over a cache of latents (DeepSeek-V2, arXiv 2405.04434, section 2.1).
//!
//! Two forms of the same sum:
//!
//! - *absorbed*: the key projection has been multiplied into the query, so all heads share one key
//!   row, latent and rotated part, and the value is the latent itself. Little memory, much
//!   arithmetic: for decode and short batches.
//! - *expanded*: keys and values of every head, a run of the cache at a time. A third of the
//!   arithmetic: for long batches.
//!
//! Softmax runs along: each run of cache rows updates a maximum, a sum and a weighted value per query
//! row. With few tokens the cache is split into runs of [`RUN`] rows that are merged in order; with
//! many, query rows are split instead. Which of the two depends on the number of tokens alone, so
//! results do not depend on the number of threads.

mod online;
#[cfg(target_arch = "x86_64")]
mod tiles;

use crate::buffer::{Aligned, Shared};
use crate::cpu::Tier;
use crate::format::Format;
use crate::isa::floats::{Shape, Strided, StridedMut, transpose, widen_f16};
use crate::product::Cpu;
use online::{ROWS, State, Tile};

/// Cache rows of one task when the cache is split.
const RUN: usize = 256;
/// Tokens whose query rows, of one head, go along the cache together in the expanded form.
const TOKENS: usize = 36;
/// Query rows of a task when they are split.
const BLOCK: usize = 512;
/// Tokens from which on query rows are split rather than the cache.
const MANY_TOKENS: usize = 9;

/// Rows of a latent cache: `[len, width]`, each row the latent (`values` numbers) and then the shared
/// rotated key.
#[derive(Clone, Copy, Debug)]
pub struct Latent<'a> {
    /// F32, F16 or Q8_0.
    pub format: Format,
    /// `len` rows of `format.row_bytes(width)`.
    pub bytes: &'a [u8],
    /// Numbers in a row.
    pub width: usize,
    /// Numbers of it that are the value.
    pub values: usize,
}

/// What queries have in common.
#[derive(Clone, Copy, Debug)]
pub struct Queries {
    /// Heads of each token.
    pub heads: usize,
    /// Cache rows before the first token: token `t` stands at position `past + t`.
    pub past: usize,
    /// Factor on the scores.
    pub scale: f32,
}

/// Sizes of one head in the expanded form.
#[derive(Clone, Copy, Debug)]
pub struct ExpandedShape {
    /// Part of key and query without rotation.
    pub nope: usize,
    /// Rotated part.
    pub rope: usize,
    /// Value.
    pub value: usize,
}

/// The memory of attention, kept from call to call.
#[derive(Debug, Default)]
pub struct Attention {
    // Query rows are [tokens, heads], or [heads, tokens] in the expanded form.
    maxima: Aligned<f32>,  // [runs, query rows]
    sums: Aligned<f32>,    // [runs, query rows]
    outputs: Aligned<f32>, // [runs, query rows, values]
    tokens: usize,
    heads: usize,
    value: usize,
}

impl Latent<'_> {
    fn row_bytes(&self) -> usize {
        self.format.row_bytes(self.width).unwrap_or(0)
    }

    /// Decodes rows `start..start + n` into `out`, `[n, width]`.
    fn decode(&self, tier: Tier, start: usize, n: usize, out: &mut [f32]) {
        let row_bytes = self.row_bytes();
        let bytes = &self.bytes[start * row_bytes..][..n * row_bytes];
        match self.format {
            Format::F16 => widen_f16(tier, bytes, out),
            _ => self.format.decode(bytes, out),
        }
    }
}

impl Attention {
    /// No memory yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Absorbed form: `out[t, h] = softmax(scale · q[t, h] · cacheᵀ) · cache[.., ..values]`.
    ///
    /// `q` is `[tokens, heads, width]`, `out` `[tokens, heads, values]`; token `t` sees the first
    /// `past + t + 1` rows of the cache.
    ///
    /// # Panics
    /// If shapes do not agree or the cache has fewer rows than the last token sees.
    pub fn absorbed(
        &mut self,
        cpu: &Cpu,
        q: &[f32],
        Queries { heads, past, scale }: Queries,
        cache: Latent<'_>,
        out: &mut [f32],
    ) {
        let rows = q.len() / cache.width;
        let tokens = rows / heads;
        assert_eq!(q.len(), tokens * heads * cache.width, "queries");
        assert_eq!(out.len(), rows * cache.values, "outputs");
        let seen = past + tokens;
        assert!(cache.bytes.len() >= seen * cache.row_bytes(), "cache rows");
        let runs = if tokens < MANY_TOKENS { seen.div_ceil(RUN) } else { 1 };
        let run_len = if tokens < MANY_TOKENS { RUN } else { seen };
        // A task takes all heads of some tokens: the cache is decoded once for them.
        let block = if tokens < MANY_TOKENS { rows } else { heads * (BLOCK / heads).max(1) };
        let maxima = Shared::new(self.maxima.resize(runs * rows));
        let sums = Shared::new(self.sums.resize(runs * rows));
        let outputs = Shared::new(self.outputs.resize(runs * rows * cache.values));
        let blocks = rows.div_ceil(block);
        cpu.pool().run(runs * blocks, &|scratch, i| {
            let (run, first_row) = (i / blocks, i % blocks * block);
            let block = block.min(rows - first_row);
            let at = run * rows + first_row;
            // SAFETY: each task has its own run and query rows.
            let mut state = unsafe {
                State {
                    maxima: maxima.slice(at, block),
                    sums: sums.slice(at, block),
                    outputs: outputs.slice(at * cache.values, block * cache.values),
                }
            };
            state.clear();
            let end = seen.min((run + 1) * run_len).min(past + (first_row + block).div_ceil(heads));
            #[cfg(target_arch = "x86_64")]
            if tiles::apply(cpu.tier(), block, &cache) {
                let q = &q[first_row * cache.width..][..block * cache.width];
                let seen = |r: usize| past + (first_row + r) / heads + 1;
                let rows = (&cache, run * run_len..end);
                return tiles::add(cpu.tier(), q, rows, &seen, scale, scratch, &mut state);
            }
            let q = Strided { numbers: &q[first_row * cache.width..], stride: cache.width };
            let rows = scratch.row.resize(ROWS * cache.width);
            let keys = scratch.transposed.resize(ROWS * cache.width);
            let scores = scratch.values.resize(ROWS * block);
            for start in (run * run_len..end).step_by(ROWS) {
                let count = ROWS.min(end - start);
                cache.decode(cpu.tier(), start, count, &mut rows[..count * cache.width]);
                let values = Strided { numbers: rows, stride: cache.width };
                let to = StridedMut { numbers: &mut *keys, stride: ROWS };
                transpose(cpu.tier(), values, Shape { rows: count, cols: cache.width }, to);
                let tile = Tile { count, keys, values };
                let visible = |r: usize| (past + (first_row + r) / heads + 1).saturating_sub(start);
                online::add(cpu.tier(), q, tile, &visible, scale, scores, &mut state);
            }
        });
        self.merge(cpu, runs, rows, (out, cache.values), &|row| row);
    }

    /// Joins the runs of every query row, in order, and divides by the sums. Each goes to a `place` of its own.
    fn merge(
        &self,
        cpu: &Cpu,
        runs: usize,
        rows: usize,
        (out, values): (&mut [f32], usize),
        place: &(dyn Fn(usize) -> usize + Sync),
    ) {
        let out = Shared::new(out);
        let size = rows.div_ceil(cpu.pool().threads() * 2).max(1);
        cpu.pool().run(rows.div_ceil(size), &|_, i| {
            for row in i * size..rows.min((i + 1) * size) {
                // SAFETY: each row is merged by one task.
                let out = unsafe { out.slice(place(row) * values, values) };
                let max = |run: usize| self.maxima[run * rows + row];
                let top = (0..runs).map(max).fold(f32::NEG_INFINITY, f32::max);
                out.fill(0.0);
                let mut sum = 0.0;
                for run in 0..runs {
                    let at = run * rows + row;
                    let weight =
                        if max(run) == f32::NEG_INFINITY { 0.0 } else { (max(run) - top).exp() };
                    sum += weight * self.sums[at];
                    let part = &self.outputs[at * values..][..values];
                    out.iter_mut().zip(part).for_each(|(o, p)| *o += weight * p);
                }
                let scale = 1.0 / sum;
                out.iter_mut().for_each(|o| *o *= scale);
            }
        });
    }

    /// Begins the expanded form for `tokens` x `heads` queries with values of `value` numbers.
    pub fn begin(&mut self, tokens: usize, heads: usize, value: usize) {
        (self.tokens, self.heads, self.value) = (tokens, heads, value);
        let rows = tokens * heads;
        let mut state = State {
            maxima: self.maxima.resize(rows),
            sums: self.sums.resize(rows),
            outputs: self.outputs.resize(rows * value),
        };
        state.clear();
    }

    /// Adds a run of the cache, in order: rows at positions `first..`.
    ///
    /// `q` is `[tokens, heads, nope + rope]`, `kv` `[rows, heads, nope + value]`, `k_rope`
    /// `[rows, rope]`; token `t` stands at position `past + t` and sees positions up to its own.
    ///
    /// # Panics
    /// If shapes do not agree with each other or with [`Attention::begin`].
    pub fn accumulate(
        &mut self,
        cpu: &Cpu,
        q: &[f32],
        (kv, k_rope): (&[f32], &[f32]),
        shape: ExpandedShape,
        first: usize,
        Queries { heads, past, scale }: Queries,
    ) {
        let ExpandedShape { nope, rope, value } = shape;
        let tokens = self.tokens;
        assert_eq!(heads, self.heads, "heads");
        let (wide, key) = (nope + value, nope + rope);
        let n = k_rope.len() / rope;
        assert_eq!(q.len(), tokens * heads * key, "queries");
        assert_eq!(kv.len(), n * heads * wide, "keys and values");
        assert_eq!(value, self.value, "values");
        let rows = tokens * heads;
        let maxima = Shared::new(self.maxima.resize(rows));
        let sums = Shared::new(self.sums.resize(rows));
        let outputs = Shared::new(self.outputs.resize(rows * value));
        cpu.pool().run(heads, &|scratch, h| {
            // The head's keys and values, brought together once for all tokens.
            let tiles = n.div_ceil(ROWS);
            let keys = scratch.transposed.resize(tiles * ROWS * key);
            let values = scratch.kept.resize(n * value);
            for (j, values) in values.chunks_exact_mut(value).enumerate() {
                values.copy_from_slice(&kv[(j * heads + h) * wide + nope..][..value]);
            }
            for (tile, keys) in keys.chunks_exact_mut(ROWS * key).enumerate() {
                let (first, count) = (tile * ROWS, ROWS.min(n - tile * ROWS));
                let from = (first * heads + h) * wide;
                let apart = Strided { numbers: &kv[from..], stride: heads * wide };
                let shared = Strided { numbers: &k_rope[first * rope..], stride: rope };
                let (own, rotated) = keys.split_at_mut(ROWS * nope);
                let own = StridedMut { numbers: own, stride: ROWS };
                transpose(cpu.tier(), apart, Shape { rows: count, cols: nope }, own);
                let rotated = StridedMut { numbers: rotated, stride: ROWS };
                transpose(cpu.tier(), shared, Shape { rows: count, cols: rope }, rotated);
            }
            let scores = scratch.values.resize(TOKENS * ROWS);
            for t in (0..tokens).step_by(TOKENS) {
                let (block, at) = (TOKENS.min(tokens - t), h * tokens + t);
                // SAFETY: each task has its own head.
                let mut state = unsafe {
                    State {
                        maxima: maxima.slice(at, block),
                        sums: sums.slice(at, block),
                        outputs: outputs.slice(at * value, block * value),
                    }
                };
                let q = Strided { numbers: &q[(t * heads + h) * key..], stride: heads * key };
                let seen = (past + t + block).saturating_sub(first).min(n);
                for start in (0..seen).step_by(ROWS) {
                    let tile = Tile {
                        count: ROWS.min(n - start),
                        keys: &keys[start * key..][..ROWS * key],
                        values: Strided { numbers: &values[start * value..], stride: value },
                    };
                    let visible = |r: usize| (past + t + r + 1).saturating_sub(first + start);
                    let scores = &mut scores[..block * ROWS];
                    online::add(cpu.tier(), q, tile, &visible, scale, scores, &mut state);
                }
            }
        });
    }

    /// Ends the expanded form: `out` is `[tokens, heads, value]`.
    ///
    /// # Panics
    /// If `out` has another length.
    pub fn normalize(&mut self, cpu: &Cpu, out: &mut [f32]) {
        let rows = self.tokens * self.heads;
        assert_eq!(out.len(), rows * self.value, "outputs");
        let (tokens, heads) = (self.tokens, self.heads);
        let place = |row: usize| row % tokens * heads + row / tokens;
        self.merge(cpu, 1, rows, (out, self.value), &place);
    }
}

#[cfg(test)]
mod tests;
