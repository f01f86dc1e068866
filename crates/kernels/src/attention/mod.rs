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
use crate::format::Format;
use crate::product::Cpu;
use online::{State, Visible};

/// Cache rows of one task when the cache is split.
const RUN: usize = 256;
/// Cache rows decoded at a time.
const TILE: usize = 64;
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
    fn decode(&self, start: usize, n: usize, out: &mut [f32]) {
        let row_bytes = self.row_bytes();
        self.format.decode(&self.bytes[start * row_bytes..][..n * row_bytes], out);
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
            let tile = scratch.row.resize(TILE * cache.width);
            let scores = scratch.values.resize(TILE);
            for start in (run * run_len..end).step_by(TILE) {
                let n = TILE.min(end - start);
                let tile = &mut tile[..n * cache.width];
                cache.decode(start, n, tile);
                for r in 0..block {
                    let token = (first_row + r) / heads;
                    let visible = (past + token + 1).saturating_sub(start).min(n);
                    let q = &q[(first_row + r) * cache.width..][..cache.width];
                    let keys = Visible { count: visible, stride: cache.width, rows: tile };
                    online::absorbed_row(cpu.tier(), q, keys, scale, scores, &mut state.row(r));
                }
            }
        });
        self.merge(cpu, runs, rows, cache.values, out);
    }

    /// Joins the runs of every query row, in order, and divides by the sums.
    fn merge(&self, cpu: &Cpu, runs: usize, rows: usize, values: usize, out: &mut [f32]) {
        let out = Shared::new(out);
        let size = rows.div_ceil(cpu.pool().threads() * 2).max(1);
        cpu.pool().run(rows.div_ceil(size), &|_, i| {
            for row in i * size..rows.min((i + 1) * size) {
                // SAFETY: each row is merged by one task.
                let out = unsafe { out.slice(row * values, values) };
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
    pub fn chunk(
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
            let keys = scratch.row.resize(n * key);
            let values = scratch.kept.resize(n * value);
            for j in 0..n {
                let from = &kv[(j * heads + h) * wide..][..wide];
                keys[j * key..][..nope].copy_from_slice(&from[..nope]);
                keys[j * key + nope..][..rope].copy_from_slice(&k_rope[j * rope..][..rope]);
                values[j * value..][..value].copy_from_slice(&from[nope..]);
            }
            let scores = scratch.values.resize(n);
            for t in 0..tokens {
                let count = (past + t + 1).saturating_sub(first).min(n);
                let at = t * heads + h;
                // SAFETY: each task has its own head.
                let mut state = unsafe {
                    State {
                        maxima: maxima.slice(at, 1),
                        sums: sums.slice(at, 1),
                        outputs: outputs.slice(at * value, value),
                    }
                };
                let keys = Visible { count, stride: key, rows: keys };
                let q = &q[at * key..][..key];
                online::expanded_row(cpu.tier(), q, keys, values, scale, scores, &mut state.row(0));
            }
        });
    }

    /// Ends the expanded form: `out` is `[tokens, heads, value]`.
    ///
    /// # Panics
    /// If `out` has another length.
    pub fn finish(&mut self, cpu: &Cpu, out: &mut [f32]) {
        let rows = self.tokens * self.heads;
        assert_eq!(out.len(), rows * self.value, "outputs");
        self.merge(cpu, 1, rows, self.value, out);
    }
}

#[cfg(test)]
mod tests;
