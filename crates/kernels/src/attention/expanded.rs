//! The expanded form: every head attends to keys and values of its own.
//!
//! A call is one region. Some rows of a sequence's cache at a time are read, then expanded to keys
//! and values of all heads, then attended to: three phases each, and one at the end of a sequence.

use super::online::{self, ROWS, Scoring, State, Tile};
use super::{AttentionSegment, Heads, check_segments};
use crate::activations::{Activations, Encoder};
use crate::block::{self, Division, Tokens};
use crate::buffer::{Aligned, Shared};
use crate::inputs::{RowTask, SharedActivations};
use crate::isa::floats::{Shape, Strided, StridedMut, transpose};
use crate::matrix::{Kernel, Matrix};
use crate::pool::Scratch;
use crate::product::Cpu;
use std::ops::Range;

/// Cache rows that are expanded at a time: 64 MiB of keys and values on R1.
pub const EXPANDED_ROWS: usize = 512;

/// Tokens whose query rows, of one head, go along the cache together.
const TOKENS: usize = 36;
/// Tasks that each thread should have, of those that attend and of loops over rows.
const TASKS_PER_THREAD: usize = 2;
const ROW_TASKS_PER_THREAD: usize = 4;

/// Sizes of one head.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExpandedShape {
    /// Part of key and query without rotation.
    pub nope: usize,
    /// Rotated part.
    pub rope: usize,
    /// Value.
    pub value: usize,
}

/// What attends to what.
pub struct Expanded<'a> {
    /// `[rows, heads, nope + rope]`, as they were projected; `rotate` changes those of segments.
    pub queries: &'a mut [f32],
    /// Rotates the queries of a row.
    pub rotate: &'a RowTask<'a>,
    /// The heads.
    pub heads: Heads,
    /// Sizes of one head.
    pub shape: ExpandedShape,
    /// What makes keys and values of latents: `[heads · (nope + value), latent]`.
    pub matrix: Matrix<'a>,
    /// The sequences, in the order of their rows.
    pub segments: &'a [AttentionSegment<'a>],
}

/// The memory of the expanded form.
#[derive(Debug, Default)]
pub struct Expansion {
    steps: Vec<Step>,
    counts: Vec<usize>,    // tasks of each step
    latents: Activations,  // [EXPANDED_ROWS, latent]
    kv: Aligned<f32>,      // [EXPANDED_ROWS, heads, nope + value]
    k_rope: Aligned<f32>,  // [EXPANDED_ROWS, rope]
    maxima: Aligned<f32>,  // [heads, tokens]
    sums: Aligned<f32>,    // [heads, tokens]
    outputs: Aligned<f32>, // [heads, tokens, value]
}

/// A phase of the region.
#[derive(Clone, Copy, Debug)]
struct Step {
    kind: Kind,
    segment: usize,
    /// Rows of its cache.
    first: usize,
    count: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Read,
    Expand,
    Attend,
    Normalize,
}

/// What all tasks of a call know.
struct Call<'a> {
    cpu: &'a Cpu,
    heads: Heads,
    shape: ExpandedShape,
    matrix: Matrix<'a>,
    rotate: &'a RowTask<'a>,
    segments: &'a [AttentionSegment<'a>],
    queries: Shared<'a, f32>,
    rows: Encoder<'a>,
    kv: Shared<'a, f32>,
    k_rope: Shared<'a, f32>,
    maxima: Shared<'a, f32>,
    sums: Shared<'a, f32>,
    outputs: Shared<'a, f32>,
    out: Shared<'a, f32>,
}

/// Attends to keys and values of every head: the rows of all segments, of `out`
/// `[rows, heads, value]`.
///
/// # Panics
/// If shapes do not agree.
pub fn expanded(cpu: &Cpu, what: Expanded<'_>, memory: &mut Expansion, out: &mut [f32]) {
    let Expanded { queries, rotate, heads, shape, matrix, segments } = what;
    let ExpandedShape { nope, rope, value } = shape;
    let Some(AttentionSegment { latent, .. }) = segments.first() else { return };
    let (width, values) = (latent.width, latent.values);
    let rows = queries.len() / (heads.count * (nope + rope));
    assert_eq!(queries.len(), rows * heads.count * (nope + rope), "queries");
    assert_eq!(out.len(), rows * heads.count * value, "outputs");
    assert_eq!(width, values + rope, "latents with rotated keys");
    assert_eq!(matrix.rows(), heads.count * (nope + value), "keys and values of all heads");
    check_segments(segments, rows);
    let longest = segments.iter().map(|segment| segment.rows.len()).max().unwrap_or(0);
    let most = segments.iter().map(AttentionSegment::seen).max().unwrap_or(0).min(EXPANDED_ROWS);
    // One kernel, however many rows the last piece of a cache has.
    let matrix = matrix.with_kernel(Kernel::Gemm);
    let Expansion { steps, counts, latents, kv, k_rope, maxima, sums, outputs } = memory;
    latents.reset(most, values);
    block::want(cpu.tier(), latents, &matrix, Tokens::Range { start: 0, len: most });
    let latents = std::ptr::from_mut(latents);
    let call = Call {
        cpu,
        heads,
        shape,
        matrix,
        rotate,
        segments,
        queries: Shared::new(queries),
        // SAFETY: nothing else uses the latents before the region ends, except products after the
        // rows that they read have been written.
        rows: unsafe { (*latents).encoder() },
        kv: Shared::new(kv.resize(most * matrix.rows())),
        k_rope: Shared::new(k_rope.resize(most * rope)),
        maxima: Shared::new(maxima.resize(longest * heads.count)),
        sums: Shared::new(sums.resize(longest * heads.count)),
        outputs: Shared::new(outputs.resize(longest * heads.count * value)),
        out: Shared::new(out),
    };
    list_steps(segments, steps);
    counts.clear();
    counts.extend(steps.iter().map(|step| call.tasks(step)));
    let shared = SharedActivations(latents);
    cpu.pool().run_phases(counts, &|scratch, phase, i| {
        let step = &steps[phase];
        match step.kind {
            Kind::Read => call.read(step, i, scratch),
            // SAFETY: the rows that the product reads have been written.
            Kind::Expand => call.expand(unsafe { shared.get() }, step.count, i, scratch),
            Kind::Attend => call.attend(step, i, scratch),
            Kind::Normalize => call.normalize(step, i),
        }
    });
    let encoded = call.rows.into();
    // SAFETY: the region has ended.
    unsafe { (*latents).encoded(encoded) };
}

/// The phases for these segments, in order.
fn list_steps(segments: &[AttentionSegment<'_>], steps: &mut Vec<Step>) {
    steps.clear();
    for (segment, all) in segments.iter().enumerate().filter(|(_, all)| !all.rows.is_empty()) {
        for first in (0..all.seen()).step_by(EXPANDED_ROWS) {
            let count = EXPANDED_ROWS.min(all.seen() - first);
            let kinds = [Kind::Read, Kind::Expand, Kind::Attend];
            steps.extend(kinds.map(|kind| Step { kind, segment, first, count }));
        }
        steps.push(Step { kind: Kind::Normalize, segment, first: 0, count: 0 });
    }
}

impl Call<'_> {
    fn tasks(&self, step: &Step) -> usize {
        let tokens = self.segments[step.segment].rows.len();
        match step.kind {
            Kind::Read if step.first == 0 => self.row_tasks(step.count) + self.row_tasks(tokens),
            Kind::Read => self.row_tasks(step.count),
            Kind::Expand => self.division(step.count).tasks(self.matrix.rows(), step.count),
            Kind::Attend => self.heads.count * tokens.div_ceil(self.tokens_of_task(tokens)),
            Kind::Normalize => self.row_tasks(tokens * self.heads.count),
        }
    }

    /// Tasks of a loop over `count` rows, and the rows of task `i`.
    fn row_tasks(&self, count: usize) -> usize {
        count.min(self.cpu.pool().threads() * ROW_TASKS_PER_THREAD)
    }

    fn rows_of(&self, count: usize, i: usize) -> Range<usize> {
        let tasks = self.row_tasks(count);
        i * count / tasks..(i + 1) * count / tasks
    }

    fn division(&self, n: usize) -> Division {
        Division::of(self.cpu.pool().threads(), self.matrix.rows(), n, false)
    }

    /// Tokens of a task that attends. It gathers its head's keys and values, so that tokens are
    /// divided only if heads are too few.
    fn tokens_of_task(&self, tokens: usize) -> usize {
        let wanted = self.cpu.pool().threads() * TASKS_PER_THREAD;
        tokens.div_ceil(wanted.div_ceil(self.heads.count.max(1))).next_multiple_of(TOKENS)
    }

    /// Reads some rows of the cache, or, at its beginning, rotates the queries of some tokens.
    fn read(&self, step: &Step, i: usize, scratch: &mut Scratch) {
        let AttentionSegment { rows, latent, .. } = &self.segments[step.segment];
        let (tier, reads) = (self.cpu.tier(), self.row_tasks(step.count));
        if i >= reads {
            let width = self.heads.count * (self.shape.nope + self.shape.rope);
            for row in self.rows_of(rows.len(), i - reads).map(|token| rows.start + token) {
                // SAFETY: each row is in one task.
                (self.rotate)(row, unsafe { self.queries.slice(row * width, width) });
            }
            return;
        }
        let (values, rope) = (latent.values, self.shape.rope);
        let row = scratch.row.resize(latent.width);
        for r in self.rows_of(step.count, i) {
            latent.row(tier, step.first + r, row);
            let of_row = self.rows.blocks_of_row();
            // SAFETY: each row is in one task, which encodes it afterwards.
            unsafe {
                self.rows.rows(r, 1).copy_from_slice(&row[..values]);
                self.k_rope.slice(r * rope, rope).copy_from_slice(&row[values..]);
                (r * of_row..(r + 1) * of_row).for_each(|block| self.rows.encode(tier, block));
            }
        }
    }

    /// Some keys and values of some of `n` rows.
    fn expand(&self, latents: &Activations, n: usize, i: usize, scratch: &mut Scratch) {
        let (matrix, tokens) = (&self.matrix, Tokens::Range { start: 0, len: n });
        let part = self.division(n).part(i, matrix.rows(), n);
        let values = block::compute(self.cpu.tier(), matrix, latents, tokens, &part, scratch);
        for (row, values) in part.tokens.zip(values.chunks_exact(part.rows.len())) {
            let to = row * matrix.rows() + part.rows.start;
            // SAFETY: this task alone writes these keys and values of these rows.
            unsafe { self.kv.slice(to, values.len()) }.copy_from_slice(values);
        }
    }

    /// One head, and some tokens, attend to some rows of the cache.
    fn attend(&self, step: &Step, i: usize, scratch: &mut Scratch) {
        let &Step { first, count: n, segment, .. } = step;
        let AttentionSegment { rows, past, .. } = &self.segments[segment];
        let ExpandedShape { nope, rope, value } = self.shape;
        let (tokens, heads, key) = (rows.len(), self.heads.count, nope + rope);
        let of_task = self.tokens_of_task(tokens);
        let groups = tokens.div_ceil(of_task);
        let (h, from) = (i / groups, i % groups * of_task);
        let (head, scores) = self.head(n, h, scratch);
        let scores = scores.resize(TOKENS * ROWS);
        // SAFETY: queries have been rotated.
        let queries = unsafe { self.queries.view(rows.start * heads * key, tokens * heads * key) };
        for t in (from..tokens.min(from + of_task)).step_by(TOKENS) {
            let (block, at) = (TOKENS.min(tokens - t), h * tokens + t);
            // SAFETY: each task has its own head and tokens.
            let mut state = unsafe {
                State {
                    maxima: self.maxima.slice(at, block),
                    sums: self.sums.slice(at, block),
                    outputs: self.outputs.slice(at * value, block * value),
                }
            };
            if first == 0 {
                state.clear();
            }
            let q = Strided { numbers: &queries[(t * heads + h) * key..], stride: heads * key };
            let end = past + t + 1;
            let seen = (end - 1 + block).saturating_sub(first).min(n);
            for start in (0..seen).step_by(ROWS) {
                let tile = Tile {
                    count: ROWS.min(n - start),
                    keys: &head.keys[start * key..][..ROWS * key],
                    values: Strided { numbers: &head.values[start * value..], stride: value },
                };
                let visible = |r: usize| (end + r).saturating_sub(first + start);
                let scoring = Scoring { visible: &visible, scale: self.heads.scale };
                let scores = &mut scores[..block * ROWS];
                online::add(self.cpu.tier(), q, tile, scoring, scores, &mut state);
            }
        }
    }

    /// Gathers the keys, transposed, and the values of head `h` in `n` rows.
    fn head<'s>(
        &self,
        n: usize,
        h: usize,
        scratch: &'s mut Scratch,
    ) -> (Head<'s>, &'s mut Aligned<f32>) {
        let ExpandedShape { nope, rope, value } = self.shape;
        let (heads, wide, key) = (self.heads.count, nope + value, nope + rope);
        // SAFETY: both have been written.
        let (kv, k_rope) =
            unsafe { (self.kv.view(0, n * heads * wide), self.k_rope.view(0, n * rope)) };
        let Scratch { transposed, kept, values: scores, .. } = scratch;
        let keys = transposed.resize(n.div_ceil(ROWS) * ROWS * key);
        let values = kept.resize(n * value);
        for (j, values) in values.chunks_exact_mut(value).enumerate() {
            values.copy_from_slice(&kv[(j * heads + h) * wide + nope..][..value]);
        }
        for (tile, keys) in keys.chunks_exact_mut(ROWS * key).enumerate() {
            let (first, rows) = (tile * ROWS, ROWS.min(n - tile * ROWS));
            let own = Strided { numbers: &kv[(first * heads + h) * wide..], stride: heads * wide };
            let shared = Strided { numbers: &k_rope[first * rope..], stride: rope };
            let (to_own, to_shared) = keys.split_at_mut(ROWS * nope);
            let to_own = StridedMut { numbers: to_own, stride: ROWS };
            let to_shared = StridedMut { numbers: to_shared, stride: ROWS };
            transpose(self.cpu.tier(), own, Shape { rows, cols: nope }, to_own);
            transpose(self.cpu.tier(), shared, Shape { rows, cols: rope }, to_shared);
        }
        (Head { keys, values }, scores)
    }

    /// Divides some outputs by their sums.
    fn normalize(&self, step: &Step, i: usize) {
        let rows = &self.segments[step.segment].rows;
        let (heads, value) = (self.heads.count, self.shape.value);
        for output in self.rows_of(rows.len() * heads, i) {
            let from = output % heads * rows.len() + output / heads;
            let to = rows.start * heads + output;
            // SAFETY: sums and outputs have been written; each output is in one task.
            let (sum, values, out) = unsafe {
                (
                    self.sums.view(from, 1)[0],
                    self.outputs.view(from * value, value),
                    self.out.slice(to * value, value),
                )
            };
            let scale = 1.0 / sum;
            out.iter_mut().zip(values).for_each(|(o, v)| *o = v * scale);
        }
    }
}

/// The keys and values of one head, brought together.
struct Head<'a> {
    keys: &'a [f32],   // [tiles][key][ROWS]
    values: &'a [f32], // [rows, value]
}
