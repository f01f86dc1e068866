//! The absorbed form: one work list over segments, query rows and runs of the cache.
//!
//! The cache of a query row divides into *runs*, whose length follows from the row's position, and
//! eight runs are a *span*. A span's result is that of its runs, merged in order; the row's that of
//! its spans, merged in order. Which tasks compute them does not matter to a single bit: a task
//! takes a block of query rows along the whole cache, or along a span, or along a run, and the rest
//! is merged afterwards. Blocks and what they take are chosen so that all threads have work: large
//! blocks, because a task decodes what it reads of the cache for all its rows, along the whole
//! cache, because nothing is then left to merge, as far as there are enough of them.

use super::online::{self, ROWS, RowState, Scoring, State, Tile};
#[cfg(target_arch = "x86_64")]
use super::tiles;
use super::{Attention, AttentionSegment, Heads, Latent, check_segments};
use crate::buffer::Shared;
use crate::cpu::Tier;
use crate::isa::floats::Strided;
use crate::ops::simd;
use crate::pool::Scratch;
use crate::product::Cpu;
use std::ops::Range;

/// Runs of a span.
const SPAN: usize = 8;
/// Most query rows of a block, and fewest unless there are fewer; with AMX, whole tiles.
const BLOCK_MAX: usize = 512;
const BLOCK_MIN: usize = 2;
#[cfg(target_arch = "x86_64")]
const BLOCK_MIN_AMX: usize = crate::isa::amx::TILE;
/// Blocks from which on decoding what they read of the cache is more than a tenth of the work.
const BLOCK_SMALL: usize = 64;
/// Tasks that each thread should have; twice as many where blocks are not small.
const TASKS_PER_THREAD: usize = 2;
/// Values of a row whose parts are merged by one task, at least.
const MERGE_VALUES_MIN: usize = 64;
/// Most bytes of results that wait to be merged.
const PARTIAL_BYTES_MAX: usize = 64 << 20;

/// The cache rows of a run, for a token at this position: few runs, so that little is merged, but
/// enough for many threads. There are never more than 64.
fn run_len(position: usize) -> usize {
    match position {
        0..512 => 64,
        512..1024 => 128,
        _ => (position + 1).div_ceil(64).next_power_of_two().max(256),
    }
}

/// The first position behind `position` whose runs have another length.
fn next_run_len(position: usize) -> usize {
    match position {
        0..512 => 512,
        512..1024 => 1024,
        _ => run_len(position) * 64,
    }
}

/// How much of the cache a task takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Unit {
    #[default]
    All,
    Span,
    Run,
}

/// Query rows of one segment whose runs have one length.
#[derive(Clone, Copy, Debug)]
struct Block {
    segment: usize,
    /// The first row's number among all query rows, `[tokens, heads]`.
    first: usize,
    rows: usize,
    /// Position and head of the first row.
    position: usize,
    head: usize,
    heads: usize,
    run_len: usize,
    /// Where the block's partial results begin: `[parts, rows]`.
    partial: usize,
}

impl Block {
    /// The cache rows that row `r` sees.
    fn seen(&self, r: usize) -> usize {
        self.position + (self.head + r) / self.heads + 1
    }

    /// The cache rows that the last row sees.
    fn end(&self) -> usize {
        self.seen(self.rows - 1)
    }

    fn runs(&self) -> usize {
        self.end().div_ceil(self.run_len)
    }

    /// How many tasks it is.
    fn parts(&self, unit: Unit) -> usize {
        match unit {
            Unit::All => 1,
            Unit::Span => self.runs().div_ceil(SPAN),
            Unit::Run => self.runs(),
        }
    }
}

/// A block along a part of the cache.
#[derive(Clone, Copy, Debug)]
struct Item {
    block: usize,
    part: usize,
}

/// What is to be done for one call.
#[derive(Debug, Default)]
pub(super) struct WorkList {
    unit: Unit,
    blocks: Vec<Block>,
    items: Vec<Item>,
    /// Rows of partial results, unless the unit is `All`.
    partial_rows: usize,
}

/// What decides how work is divided.
#[derive(Clone, Copy, Debug)]
struct Limits {
    tasks_min: usize,
    block_min: usize,
    partial_rows_max: usize,
}

impl WorkList {
    fn plan(&mut self, segments: &[AttentionSegment<'_>], heads: usize, limits: Limits) {
        let mut finest = Unit::All;
        for unit in [Unit::All, Unit::Span, Unit::Run] {
            self.divide(segments, heads, BLOCK_MAX, unit);
            if unit != Unit::All && self.partial_rows > limits.partial_rows_max {
                break;
            }
            finest = unit;
            if self.items.len() >= 2 * limits.tasks_min {
                return;
            }
        }
        let mut block = BLOCK_MAX;
        loop {
            self.divide(segments, heads, block, finest);
            let factor = if block > BLOCK_SMALL { 2 } else { 1 };
            if self.items.len() >= factor * limits.tasks_min || block <= limits.block_min {
                return;
            }
            block /= 2;
        }
    }

    /// Divides query rows into blocks of up to `size`, and these into tasks.
    fn divide(&mut self, segments: &[AttentionSegment<'_>], heads: usize, size: usize, unit: Unit) {
        self.unit = unit;
        self.blocks.clear();
        self.items.clear();
        self.partial_rows = 0;
        for (index, segment) in segments.iter().enumerate() {
            let mut token = 0;
            while token < segment.rows.len() {
                let position = segment.past + token;
                let end = (next_run_len(position) - segment.past).min(segment.rows.len());
                let first = (segment.rows.start + token) * heads;
                for row in (0..(end - token) * heads).step_by(size) {
                    self.add(Block {
                        segment: index,
                        first: first + row,
                        rows: size.min((end - token) * heads - row),
                        position: position + row / heads,
                        head: row % heads,
                        heads,
                        run_len: run_len(position),
                        partial: self.partial_rows,
                    });
                }
                token = end;
            }
        }
    }

    fn add(&mut self, block: Block) {
        let (index, parts) = (self.blocks.len(), block.parts(self.unit));
        self.items.extend((0..parts).map(|part| Item { block: index, part }));
        if self.unit != Unit::All {
            self.partial_rows += parts * block.rows;
        }
        self.blocks.push(block);
    }
}

/// A block of query rows, its sequence's cache, and how to go along it.
struct Job<'a> {
    tier: Tier,
    block: Block,
    q: &'a [f32], // [block.rows, width]
    latent: Latent<'a>,
    scale: f32,
    tiles: bool,
}

impl Job<'_> {
    /// Folds some parts of the cache, in order, into `state`, which is empty.
    fn fold(
        &self,
        parts: Range<usize>,
        scratch: &mut Scratch,
        state: &mut State<'_>,
        add: &dyn Fn(usize, &mut Scratch, &mut State<'_>),
    ) {
        let (rows, values) = (self.block.rows, self.latent.values);
        for part in parts.clone() {
            if part == parts.start {
                add(part, scratch, state);
                continue;
            }
            let mut memory = scratch.states.pop().unwrap_or_default();
            let mut next = in_memory(memory.resize(rows * (values + 2)), rows);
            next.clear();
            add(part, scratch, &mut next);
            state.merge(self.tier, &next);
            scratch.states.push(memory);
        }
    }

    /// All of the cache.
    fn all(&self, scratch: &mut Scratch, state: &mut State<'_>) {
        let spans = self.block.runs().div_ceil(SPAN);
        self.fold(0..spans, scratch, state, &|i, scratch, state| self.span(i, scratch, state));
    }

    /// Span `index` of the cache.
    fn span(&self, index: usize, scratch: &mut Scratch, state: &mut State<'_>) {
        let runs = index * SPAN..self.block.runs().min((index + 1) * SPAN);
        self.fold(runs, scratch, state, &|i, scratch, state| self.run(i, scratch, state));
    }

    /// Run `index` of the cache.
    fn run(&self, index: usize, scratch: &mut Scratch, state: &mut State<'_>) {
        let start = index * self.block.run_len;
        let rows = start..self.block.end().min(start + self.block.run_len);
        #[cfg(target_arch = "x86_64")]
        if self.tiles {
            let seen = |r: usize| self.block.seen(r);
            let cache = tiles::CacheRows { latent: &self.latent, rows, seen: &seen };
            return tiles::add(self.tier, self.q, cache, self.scale, scratch, state);
        }
        let (width, tier) = (self.latent.width, self.tier);
        let q = Strided { numbers: self.q, stride: width };
        let page = scratch.row.resize(ROWS * width);
        let keys = scratch.transposed.resize(ROWS * width);
        let scores = scratch.values.resize(ROWS * self.block.rows);
        for start in rows.clone().step_by(ROWS) {
            let count = ROWS.min(rows.end - start);
            self.latent.decode_transposed(tier, start, count, page, keys);
            let values = Strided { numbers: page, stride: width };
            let tile = Tile { count, keys, values };
            let visible = |r: usize| self.block.seen(r).saturating_sub(start);
            let scoring = Scoring { visible: &visible, scale: self.scale };
            online::add(tier, q, tile, scoring, scores, state);
        }
    }
}

/// A state of `rows` rows in one buffer.
fn in_memory(memory: &mut [f32], rows: usize) -> State<'_> {
    let (maxima, rest) = memory.split_at_mut(rows);
    let (sums, outputs) = rest.split_at_mut(rows);
    State { maxima, sums, outputs }
}

impl Attention {
    /// Absorbed form: `out[t, h] = softmax(scale · q[t, h] · cacheᵀ) · cache[.., ..values]`, for
    /// the rows of all segments in one work list.
    ///
    /// `queries` is `[rows, heads, width]`, `out` `[rows, heads, values]`; rows in no segment are
    /// not written. An output depends on its own row's query, position and cache alone, to the bit.
    ///
    /// # Panics
    /// If shapes do not agree, a segment has rows that do not exist or fewer cache rows than its
    /// last token sees, or two segments have rows in common.
    pub fn absorbed(
        &mut self,
        cpu: &Cpu,
        queries: &[f32],
        heads: Heads,
        segments: &[AttentionSegment<'_>],
        out: &mut [f32],
    ) {
        let Some(first) = segments.first() else { return };
        let (width, values) = (first.latent.width, first.latent.values);
        let rows = queries.len() / (heads.count * width);
        assert_eq!(queries.len(), rows * heads.count * width, "queries");
        assert_eq!(out.len(), rows * heads.count * values, "outputs");
        check_segments(segments, rows);
        let tier = cpu.tier();
        let tiles = uses_tiles(tier, heads.count, values);
        let threads = cpu.pool().threads();
        let limits = Limits {
            tasks_min: if threads == 1 { 0 } else { threads * TASKS_PER_THREAD },
            block_min: block_min(tiles),
            partial_rows_max: PARTIAL_BYTES_MAX / ((values + 2) * size_of::<f32>()),
        };
        self.list.plan(segments, heads.count, limits);
        let rows = self.list.partial_rows;
        let partial = SharedState::new(
            self.maxima.resize(rows),
            self.sums.resize(rows),
            self.outputs.resize(rows * values),
        );
        let list = &self.list;
        let merging = Merging::of(list, values, threads);
        let out = Shared::new(out);
        cpu.pool().run_phases(&[list.items.len(), merging.tasks()], &|scratch, phase, i| {
            if phase == 1 {
                // SAFETY: the parts have been written, and this task alone has these outputs.
                return unsafe { merging.run(tier, i, &partial, out, scratch) };
            }
            let Item { block, part } = list.items[i];
            let block = list.blocks[block];
            let q = &queries[block.first * width..][..block.rows * width];
            let latent = segments[block.segment].latent;
            let job = Job { tier, block, q, latent, scale: heads.scale, tiles };
            if list.unit == Unit::All {
                let mut memory = std::mem::take(&mut scratch.softmax);
                let (maxima, sums) = memory.resize(2 * block.rows).split_at_mut(block.rows);
                // SAFETY: this task alone writes these rows.
                let outputs = unsafe { out.slice(block.first * values, block.rows * values) };
                let mut state = State { maxima, sums, outputs };
                state.clear();
                job.all(scratch, &mut state);
                state.normalize(tier);
                scratch.softmax = memory;
                return;
            }
            // SAFETY: this task alone writes this part of this block.
            let mut state =
                unsafe { partial.rows(block.partial + part * block.rows, block.rows, values) };
            state.clear();
            match list.unit {
                Unit::Span => job.span(part, scratch, &mut state),
                _ => job.run(part, scratch, &mut state),
            }
        });
    }
}

/// How the partial results of query rows are merged, in the order and by the spans in which one
/// task would have computed them. A task has some rows, or some values of one.
struct Merging<'a> {
    list: &'a WorkList,
    values: usize,
    /// Rows of a task, and values of each.
    size: usize,
    width: usize,
}

impl<'a> Merging<'a> {
    fn of(list: &'a WorkList, values: usize, threads: usize) -> Self {
        let rows = list.blocks.iter().map(|block| block.rows).sum::<usize>().max(1);
        let wanted = threads * TASKS_PER_THREAD;
        let size = rows.div_ceil(wanted).max(1);
        let width = values.div_ceil(wanted.div_ceil(rows)).next_multiple_of(MERGE_VALUES_MIN);
        Self { list, values, size, width }
    }

    /// Groups of values of a row.
    fn groups(&self) -> usize {
        self.values.div_ceil(self.width)
    }

    fn tasks_of(&self, block: &Block) -> usize {
        block.rows.div_ceil(self.size) * self.groups()
    }

    fn tasks(&self) -> usize {
        if self.list.unit == Unit::All {
            return 0;
        }
        self.list.blocks.iter().map(|block| self.tasks_of(block)).sum()
    }

    /// Task `i`.
    ///
    /// # Safety
    /// No thread writes partial results, and no other has this task.
    unsafe fn run(
        &self,
        tier: Tier,
        mut i: usize,
        partial: &SharedState<'_>,
        out: Shared<'_, f32>,
        scratch: &mut Scratch,
    ) {
        let mut blocks = self.list.blocks.iter();
        let Some(block) = blocks.find(|block| {
            let is_here = i < self.tasks_of(block);
            if !is_here {
                i -= self.tasks_of(block);
            }
            is_here
        }) else {
            return;
        };
        let (first, from) = (i / self.groups() * self.size, i % self.groups() * self.width);
        let columns = from..self.values.min(from + self.width);
        for row in first..block.rows.min(first + self.size) {
            let to = (block.first + row) * self.values + from;
            // SAFETY: this task alone writes these values of these rows.
            let out = unsafe { out.slice(to, columns.len()) };
            let parts = Parts { list: self.list, values: self.values, partial, block, row };
            merge_row(tier, &parts, columns.clone(), scratch, out);
        }
    }
}

/// The partial results of one row.
struct Parts<'a> {
    list: &'a WorkList,
    values: usize,
    partial: &'a SharedState<'a>,
    block: &'a Block,
    row: usize,
}

impl Parts<'_> {
    /// Those of part `part`, and some of its values.
    #[inline(always)]
    fn get(&self, part: usize, columns: &Range<usize>) -> (RowState, &[f32]) {
        let at = self.block.partial + part * self.block.rows + self.row;
        // SAFETY: `Merging::run` is called when no thread writes them any more.
        unsafe {
            let (max, sum) = (self.partial.maxima.view(at, 1)[0], self.partial.sums.view(at, 1)[0]);
            let outputs = at * self.values + columns.start;
            (RowState { max, sum }, self.partial.outputs.view(outputs, columns.len()))
        }
    }
}

simd! {
    /// Some outputs of a row.
    fn merge_row(
        Tier,
        parts: &Parts<'_>,
        columns: Range<usize>,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) {
        let (span, count) = match parts.list.unit {
            Unit::Run => (SPAN, parts.block.parts(Unit::Run)),
            unit => (1, parts.block.parts(unit)),
        };
        let of_span = scratch.softmax.resize(columns.len());
        let mut all = RowState { max: f32::NEG_INFINITY, sum: 0.0 };
        for first in (0..count).step_by(span) {
            // All are merged into the first span, and a span into its first run.
            let to = if first == 0 { &mut *out } else { &mut *of_span };
            let (mut state, outputs) = parts.get(first, &columns);
            to.copy_from_slice(outputs);
            for next in first + 1..count.min(first + span) {
                let (next, outputs) = parts.get(next, &columns);
                state.merge(to, next, outputs);
            }
            if first == 0 {
                all = state;
            } else {
                all.merge(out, state, of_span);
            }
        }
        let scale = 1.0 / all.sum;
        out.iter_mut().for_each(|o| *o *= scale);
    }
}

/// Whether AMX tiles compute attention: where all blocks are whole tiles, whatever their size.
fn uses_tiles(tier: Tier, heads: usize, values: usize) -> bool {
    #[cfg(target_arch = "x86_64")]
    return tiles::apply(tier, heads, values);
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (tier, heads, values);
        false
    }
}

fn block_min(tiles: bool) -> usize {
    #[cfg(target_arch = "x86_64")]
    if tiles {
        return BLOCK_MIN_AMX;
    }
    let _ = tiles;
    BLOCK_MIN
}

/// Partial results that several tasks write, each its own rows.
struct SharedState<'a> {
    maxima: Shared<'a, f32>,
    sums: Shared<'a, f32>,
    outputs: Shared<'a, f32>,
}

impl<'a> SharedState<'a> {
    fn new(maxima: &'a mut [f32], sums: &'a mut [f32], outputs: &'a mut [f32]) -> Self {
        Self { maxima: Shared::new(maxima), sums: Shared::new(sums), outputs: Shared::new(outputs) }
    }

    /// `count` rows from `first` on.
    ///
    /// # Safety
    /// No two states that live at the same time may have a row in common.
    unsafe fn rows(&self, first: usize, count: usize, values: usize) -> State<'a> {
        // SAFETY: by contract.
        unsafe {
            State {
                maxima: self.maxima.slice(first, count),
                sums: self.sums.slice(first, count),
                outputs: self.outputs.slice(first * values, count * values),
            }
        }
    }
}
