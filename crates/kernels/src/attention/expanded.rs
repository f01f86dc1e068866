//! The expanded form: every head attends to keys and values of its own.

use super::online::{self, ROWS, Scoring, State, Tile};
use super::{Attention, Heads};
use crate::buffer::Shared;
use crate::cpu::Tier;
use crate::isa::floats::{Shape, Strided, StridedMut, transpose};
use crate::pool::Scratch;
use crate::product::Cpu;

/// Tokens whose query rows, of one head, go along the cache together.
const TOKENS: usize = 36;
/// Tasks that each thread should have.
const TASKS_PER_THREAD: usize = 2;

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

/// The queries of one segment.
#[derive(Clone, Copy, Debug)]
pub struct ExpandedQueries<'a> {
    /// `[tokens, heads, nope + rope]`.
    pub q: &'a [f32],
    /// The heads.
    pub heads: Heads,
    /// Cache rows before the first token: token `t` is at position `past + t`, and sees positions
    /// up to its own.
    pub past: usize,
    /// Sizes of one head.
    pub shape: ExpandedShape,
}

/// Some rows of the cache, expanded.
#[derive(Clone, Copy, Debug)]
pub struct ExpandedRun<'a> {
    /// The position of the first row.
    pub first: usize,
    /// `[rows, heads, nope + value]`.
    pub kv: &'a [f32],
    /// `[rows, rope]`.
    pub k_rope: &'a [f32],
}

/// What [`Attention::begin`] was told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sizes {
    tokens: usize,
    heads: usize,
    value: usize,
}

/// The keys and values of one head, brought together.
struct Head<'a> {
    keys: &'a [f32],   // [tiles][key][ROWS]
    values: &'a [f32], // [rows, value]
}

impl ExpandedRun<'_> {
    /// Gathers the keys, transposed, and the values of head `h`.
    fn head<'s>(
        self,
        tier: Tier,
        h: usize,
        queries: &ExpandedQueries<'_>,
        scratch: &'s mut Scratch,
    ) -> (Head<'s>, &'s mut crate::buffer::Aligned<f32>) {
        let ExpandedShape { nope, rope, value } = queries.shape;
        let (heads, wide, key) = (queries.heads.count, nope + value, nope + rope);
        let n = self.k_rope.len() / rope;
        let Scratch { transposed, kept, values: scores, .. } = scratch;
        let keys = transposed.resize(n.div_ceil(ROWS) * ROWS * key);
        let values = kept.resize(n * value);
        for (j, values) in values.chunks_exact_mut(value).enumerate() {
            values.copy_from_slice(&self.kv[(j * heads + h) * wide + nope..][..value]);
        }
        for (tile, keys) in keys.chunks_exact_mut(ROWS * key).enumerate() {
            let (first, rows) = (tile * ROWS, ROWS.min(n - tile * ROWS));
            let own = &self.kv[(first * heads + h) * wide..];
            let own = Strided { numbers: own, stride: heads * wide };
            let shared = Strided { numbers: &self.k_rope[first * rope..], stride: rope };
            let (to_own, to_shared) = keys.split_at_mut(ROWS * nope);
            let to_own = StridedMut { numbers: to_own, stride: ROWS };
            let to_shared = StridedMut { numbers: to_shared, stride: ROWS };
            transpose(tier, own, Shape { rows, cols: nope }, to_own);
            transpose(tier, shared, Shape { rows, cols: rope }, to_shared);
        }
        (Head { keys, values }, scores)
    }
}

impl Attention {
    /// Begins the expanded form for `tokens` x `heads` queries with values of `value` numbers.
    pub fn begin(&mut self, tokens: usize, heads: usize, value: usize) {
        self.expanded = Sizes { tokens, heads, value };
        let rows = tokens * heads;
        let mut state = State {
            maxima: self.maxima.resize(rows),
            sums: self.sums.resize(rows),
            outputs: self.outputs.resize(rows * value),
        };
        state.clear();
    }

    /// Adds some rows of the cache, those of a segment in order.
    ///
    /// # Panics
    /// If shapes do not agree with each other or with [`Attention::begin`].
    pub fn accumulate(&mut self, cpu: &Cpu, queries: &ExpandedQueries<'_>, run: ExpandedRun<'_>) {
        let ExpandedShape { nope, rope, value } = queries.shape;
        let Sizes { tokens, heads, .. } = self.expanded;
        let (key, n) = (nope + rope, run.k_rope.len() / rope);
        assert_eq!((queries.heads.count, value), (heads, self.expanded.value), "heads and values");
        assert_eq!(queries.q.len(), tokens * heads * key, "queries");
        assert_eq!(run.k_rope.len(), n * rope, "rotated keys");
        assert_eq!(run.kv.len(), n * heads * (nope + value), "keys and values");
        let rows = tokens * heads;
        let maxima = Shared::new(self.maxima.resize(rows));
        let sums = Shared::new(self.sums.resize(rows));
        let outputs = Shared::new(self.outputs.resize(rows * value));
        // A task gathers its head's keys and values, so that tokens are divided only if heads are
        // too few.
        let groups = (cpu.pool().threads() * TASKS_PER_THREAD).div_ceil(heads.max(1));
        let of_group = tokens.div_ceil(groups).next_multiple_of(TOKENS);
        let groups = tokens.div_ceil(of_group);
        cpu.pool().run(heads * groups, &|scratch, i| {
            let (h, first) = (i / groups, i % groups * of_group);
            let (head, scores) = run.head(cpu.tier(), h, queries, scratch);
            let scores = scores.resize(TOKENS * ROWS);
            for t in (first..tokens.min(first + of_group)).step_by(TOKENS) {
                let (block, at) = (TOKENS.min(tokens - t), h * tokens + t);
                // SAFETY: each task has its own head and tokens.
                let mut state = unsafe {
                    State {
                        maxima: maxima.slice(at, block),
                        sums: sums.slice(at, block),
                        outputs: outputs.slice(at * value, block * value),
                    }
                };
                let q = &queries.q[(t * heads + h) * key..];
                let q = Strided { numbers: q, stride: heads * key };
                let seen = (queries.past + t + block).saturating_sub(run.first).min(n);
                for start in (0..seen).step_by(ROWS) {
                    let tile = Tile {
                        count: ROWS.min(n - start),
                        keys: &head.keys[start * key..][..ROWS * key],
                        values: Strided { numbers: &head.values[start * value..], stride: value },
                    };
                    let end = queries.past + t + 1;
                    let visible = |r: usize| (end + r).saturating_sub(run.first + start);
                    let scoring = Scoring { visible: &visible, scale: queries.heads.scale };
                    let scores = &mut scores[..block * ROWS];
                    online::add(cpu.tier(), q, tile, scoring, scores, &mut state);
                }
            }
        });
    }

    /// Ends the expanded form: `out` is `[tokens, heads, value]`.
    ///
    /// # Panics
    /// If `out` has another length.
    pub fn normalize(&mut self, cpu: &Cpu, out: &mut [f32]) {
        let Sizes { tokens, heads, value } = self.expanded;
        assert_eq!(out.len(), tokens * heads * value, "outputs");
        let (sums, outputs) = (&*self.sums, &*self.outputs);
        cpu.for_rows(out, value, |at, out| {
            let row = at % heads * tokens + at / heads;
            let scale = 1.0 / sums[row];
            let values = &outputs[row * value..][..value];
            out.iter_mut().zip(values).for_each(|(o, v)| *o = v * scale);
        });
    }
}
