//! The absorbed form on AMX tiles: all query rows of a block against 64 cache rows at a time.
//!
//! With 128 heads on one key row, decode at depth is arithmetic, not memory, and tiles do it some
//! twenty times faster than f32 lanes. Numbers are split into a high and a low bf16, and the
//! product of the two low parts dropped: about 16 bits, more than an f16 cache has.
//!
//! ```text
//! queries  [2][block][padded width]   scores [block][64]   weights [2][block][64]
//! keys     panels of 16 cache rows    values panels of 16 value numbers
//! ```

use std::ops::Range;

use crate::cpu::Tier;
use crate::isa::Sums;
use crate::isa::amx::{self, STEP, TILE, TileInputs, TileShape};
use crate::isa::floats::StridedMut;
use crate::ops::{simd, to_bf16};
use crate::pool::Scratch;

use super::Latent;
use super::online::{ROWS, Scoring, State, online_softmax_tile};

/// Whether tiles do this: whole tiles of query rows, however they are divided, and of values.
pub(super) fn apply(tier: Tier, heads: usize, values: usize) -> bool {
    tier.has_amx() && heads.is_multiple_of(TILE) && values.is_multiple_of(TILE)
}

/// Some rows of a cache; query row `r` sees those below `seen(r)`.
pub(super) struct CacheRows<'a> {
    pub(super) latent: &'a Latent<'a>,
    pub(super) rows: Range<usize>,
    pub(super) seen: &'a dyn Fn(usize) -> usize,
}

/// Adds cache rows to `state`, one row of it for each row of `q` `[block, width]`.
pub(super) fn add(
    tier: Tier,
    q: &[f32],
    cache: CacheRows<'_>,
    scale: f32,
    scratch: &mut Scratch,
    state: &mut State<'_>,
) {
    let CacheRows { latent, rows: range, seen } = cache;
    assert!(tier.has_amx(), "tiles on {tier}");
    let (width, values) = (latent.width, latent.values);
    let padded = width.next_multiple_of(STEP);
    let block = q.len() / width;
    let queries = scratch.gathered.resize(2 * block * padded);
    let (high, low) = queries.split_at_mut(block * padded);
    split(tier, q, width, padded, high, low);
    let queries = Split { high, low, stride: padded };
    for start in range.clone().step_by(ROWS) {
        let n = ROWS.min(range.end - start);
        let row = scratch.row.resize(ROWS * width);
        row[n * width..].fill(0.0);
        latent.decode(tier, start, n, &mut row[..n * width]);
        let halves = scratch.bf16.resize(2 * ROWS * (padded + block));
        let (rows, weights) = halves.split_at_mut(2 * ROWS * padded);
        let (high, low) = rows.split_at_mut(ROWS * padded);
        split(tier, row, width, padded, high, low);
        let panels = scratch.panel.resize(2 * ROWS * padded.max(values));
        let scores = scratch.kept.resize(block * ROWS);
        scores.fill(0.0);
        let keys = panels.chunks_exact_mut(ROWS * padded);
        for (rows, panel) in [&*high, &*low].into_iter().zip(keys) {
            key_panel(tier, rows, padded, panel);
        }
        let (row_groups, token_groups) = (ROWS / TILE, block / TILE);
        let shape = TileShape { row_groups, token_groups, steps: padded / STEP };
        let (first, second) = panels.split_at(ROWS * padded);
        let keys = Split { high: first, low: second, stride: padded };
        multiply(
            tier,
            keys,
            queries,
            shape,
            &mut StridedMut { numbers: &mut *scores, stride: ROWS },
        );
        let (first, second) = weights.split_at_mut(block * ROWS);
        let visible = |r: usize| seen(r).saturating_sub(start);
        let scoring = Scoring { visible: &visible, scale };
        online_softmax_tile(tier, scores, n, scoring, state);
        split(tier, scores, ROWS, ROWS, first, second);
        let panels = scratch.panel.resize(2 * ROWS * values);
        let parts = panels.chunks_exact_mut(ROWS * values);
        for (rows, panel) in [&*high, &*low].into_iter().zip(parts) {
            value_panel(tier, rows, padded, values, panel);
        }
        let shape = TileShape { row_groups: values / TILE, token_groups, steps: ROWS / STEP };
        let weights = Split { high: first, low: second, stride: ROWS };
        let (first, second) = panels.split_at(ROWS * values);
        let panels = Split { high: first, low: second, stride: ROWS };
        let mut out = StridedMut { numbers: &mut *state.outputs, stride: values };
        multiply(tier, panels, weights, shape, &mut out);
    }
}

/// A factor in its high and low parts, tokens or rows `stride` numbers apart.
#[derive(Clone, Copy)]
struct Split<'a> {
    high: &'a [u16],
    low: &'a [u16],
    stride: usize,
}

/// `out += panel · inputs`, of both in their parts: high·high + high·low + low·high.
fn multiply(
    tier: Tier,
    panel: Split<'_>,
    inputs: Split<'_>,
    shape: TileShape,
    out: &mut StridedMut<'_>,
) {
    let TileShape { row_groups, token_groups, steps } = shape;
    assert!(tier.has_amx());
    let panel_len = row_groups * steps * TILE * STEP;
    assert!(panel_len <= panel.high.len().min(panel.low.len()), "panels");
    let out_len = token_groups * TILE * out.stride;
    assert!(row_groups * TILE <= out.stride && out_len <= out.numbers.len(), "sums");
    let pairs = [(panel.high, inputs.high), (panel.high, inputs.low), (panel.low, inputs.high)];
    for (panel, input) in pairs {
        let last = (token_groups * TILE - 1) * inputs.stride + steps * STEP;
        assert!(last <= input.len(), "inputs");
        let inputs = TileInputs { first: input.as_ptr(), stride: inputs.stride };
        let sums = Sums { first: out.numbers.as_mut_ptr(), stride: out.stride };
        // SAFETY: the tier is AMX, and panel, inputs and sums are long enough, all asserted above.
        unsafe { amx::gemm(panel.as_ptr(), inputs, shape, sums) };
    }
}

simd! {
    /// Rows of `width` numbers as high and low bf16, each row padded with zeros to `padded`.
    fn split(Tier, x: &[f32], width: usize, padded: usize, high: &mut [u16], low: &mut [u16]) {
        let outputs = high.chunks_exact_mut(padded).zip(low.chunks_exact_mut(padded));
        for (x, (high, low)) in x.chunks_exact(width).zip(outputs) {
            for ((&x, high), low) in x.iter().zip(high.iter_mut()).zip(low.iter_mut()) {
                *high = to_bf16(x);
                *low = to_bf16(x - f32::from_bits(u32::from(*high) << 16));
            }
            high[width..].fill(0);
            low[width..].fill(0);
        }
    }
}

/// Cache rows `[ROWS, padded]` as panels of 16 rows.
fn key_panel(tier: Tier, rows: &[u16], padded: usize, panel: &mut [u16]) {
    assert!(tier.has_amx() && rows.len() >= ROWS * padded && panel.len() >= ROWS * padded);
    let steps = padded / STEP;
    for group in 0..ROWS / TILE {
        for step in 0..steps {
            let from = group * TILE * padded + step * STEP;
            let to = (group * steps + step) * TILE * STEP;
            // SAFETY: 16 rows of 32 numbers from `from` on, `padded` apart, and a tile from `to` on
            // are inside, by the assertion.
            unsafe {
                amx::pack_vnni_pairs(rows.as_ptr().add(from), padded, panel.as_mut_ptr().add(to));
            }
        }
    }
}

simd! {
    /// The first `values` numbers of the rows as panels whose rows are value numbers and whose
    /// pairs are neighbouring cache rows.
    fn value_panel(Tier, rows: &[u16], padded: usize, values: usize, panel: &mut [u16]) {
        for (tile, out) in panel.chunks_exact_mut(TILE * STEP).enumerate() {
            let (group, step) = (tile / (ROWS / STEP), tile % (ROWS / STEP));
            debug_assert!((group + 1) * TILE <= values);
            for (pair, out) in out.chunks_exact_mut(2 * TILE).enumerate() {
                let at = (step * STEP + 2 * pair) * padded + group * TILE;
                let (even, odd) = (&rows[at..][..TILE], &rows[at + padded..][..TILE]);
                for (out, (&even, &odd)) in out.chunks_exact_mut(2).zip(even.iter().zip(odd)) {
                    (out[0], out[1]) = (even, odd);
                }
            }
        }
    }
}
