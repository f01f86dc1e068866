//! Query rows against some cache rows, with a running softmax (Milakov and Gimelshein 2018).

use crate::cpu::Tier;
use crate::isa::floats::{Gemm, Strided, StridedMut, gemm};
use crate::ops::{exp, simd};

/// Cache rows at a time: a page.
pub(super) const ROWS: usize = super::PAGE_ROWS;

/// Running softmax of some query rows.
pub(super) struct State<'a> {
    pub(super) maxima: &'a mut [f32],  // [rows]
    pub(super) sums: &'a mut [f32],    // [rows]
    pub(super) outputs: &'a mut [f32], // [rows, values], not yet divided by the sums
}

impl State<'_> {
    pub(super) fn clear(&mut self) {
        self.maxima.fill(f32::NEG_INFINITY);
        self.sums.fill(0.0);
        self.outputs.fill(0.0);
    }

    /// Adds the cache rows of `part`, which come after those of `self`, to it. Rows that see
    /// nothing of `part` stay as they are, to the bit.
    pub(super) fn merge(&mut self, tier: Tier, part: &State<'_>) {
        merge(tier, self, part);
    }

    /// Divides by the sums.
    pub(super) fn normalize(&mut self, tier: Tier) {
        normalize(tier, self);
    }
}

simd! {
    fn merge(Tier, to: &mut State<'_>, part: &State<'_>) {
        let values = to.outputs.len() / to.sums.len();
        for r in 0..to.sums.len() {
            let outputs = &mut to.outputs[r * values..][..values];
            let row = RowState { max: part.maxima[r], sum: part.sums[r] };
            let mut own = RowState { max: to.maxima[r], sum: to.sums[r] };
            own.merge(outputs, row, &part.outputs[r * values..][..values]);
            (to.maxima[r], to.sums[r]) = (own.max, own.sum);
        }
    }

    fn normalize(Tier, state: &mut State<'_>) {
        let values = state.outputs.len() / state.sums.len();
        for (outputs, sum) in state.outputs.chunks_exact_mut(values).zip(&*state.sums) {
            let scale = 1.0 / sum;
            outputs.iter_mut().for_each(|o| *o *= scale);
        }
    }
}

/// The running softmax of one row, without its outputs.
#[derive(Clone, Copy)]
pub(super) struct RowState {
    pub(super) max: f32,
    pub(super) sum: f32,
}

impl RowState {
    /// Adds `part` to this row, and its outputs, or some of them, to the row's.
    #[inline(always)]
    pub(super) fn merge(&mut self, outputs: &mut [f32], part: Self, of_part: &[f32]) {
        if part.max == f32::NEG_INFINITY && part.sum == 0.0 {
            return;
        }
        let top = self.max.max(part.max);
        let (own, other) = (factor(self.max, top), factor(part.max, top));
        self.max = top;
        self.sum = self.sum * own + part.sum * other;
        for (o, p) in outputs.iter_mut().zip(of_part) {
            *o = *o * own + p * other;
        }
    }
}

/// What sums relative to `max` are to be multiplied with to be relative to `top`. Without a maximum
/// they are zero, or NaN, which stays.
#[inline(always)]
fn factor(max: f32, top: f32) -> f32 {
    if max == f32::NEG_INFINITY { 1.0 } else { (max - top).exp() }
}

/// Up to [`ROWS`] cache rows.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    /// How many.
    pub(super) count: usize,
    /// `[numbers of a key][ROWS]`; what is there for rows that are missing does not matter.
    pub(super) keys: &'a [f32],
    /// `[count]` rows, each as long as a row of outputs.
    pub(super) values: Strided<'a>,
}

/// How scores are masked and scaled.
#[derive(Clone, Copy)]
pub(super) struct Scoring<'a> {
    /// Of the cache rows of a tile, how many query row `r` sees.
    pub(super) visible: &'a dyn Fn(usize) -> usize,
    /// Factor on the scores.
    pub(super) scale: f32,
}

/// Adds the rows of `tile` to `state`, one row of it for each row of `q`.
pub(super) fn add(
    tier: Tier,
    q: Strided<'_>,
    tile: Tile<'_>,
    scoring: Scoring<'_>,
    scores: &mut [f32], // [query rows, ROWS], of any content
    state: &mut State<'_>,
) {
    let rows = state.sums.len();
    let values = state.outputs.len() / rows;
    scores.fill(0.0);
    let keys = Strided { numbers: tile.keys, stride: ROWS };
    let k = tile.keys.len() / ROWS;
    let out = StridedMut { numbers: scores, stride: ROWS };
    gemm(tier, q, keys, Gemm { m: rows, n: ROWS, k }, out);
    online_softmax_tile(tier, scores, tile.count, scoring, state);
    let weights = Strided { numbers: scores, stride: ROWS };
    let out = StridedMut { numbers: state.outputs, stride: values };
    gemm(tier, weights, tile.values, Gemm { m: rows, n: values, k: tile.count }, out);
}

/// Turns scores `[rows, ROWS]` of up to `count` cache rows into weights, and updates the running
/// softmax.
pub(super) fn online_softmax_tile(
    tier: Tier,
    scores: &mut [f32],
    count: usize,
    scoring: Scoring<'_>,
    state: &mut State<'_>,
) {
    update_rows(tier, scores, count, scoring, tier.is_scalar(), state);
}

simd! {
    fn update_rows(
        Tier,
        scores: &mut [f32],
        count: usize,
        scoring: Scoring<'_>,
        exact: bool,
        state: &mut State<'_>,
    ) {
        let values = state.outputs.len() / state.sums.len();
        for (r, scores) in scores.chunks_exact_mut(ROWS).enumerate() {
            let (scores, rest) = scores.split_at_mut((scoring.visible)(r).min(count));
            rest.fill(0.0);
            if scores.is_empty() {
                continue;
            }
            let (max, sum) = (&mut state.maxima[r], &mut state.sums[r]);
            let rescale = online_softmax_update(scores, scoring.scale, exact, max, sum);
            if rescale != 1.0 {
                state.outputs[r * values..][..values].iter_mut().for_each(|o| *o *= rescale);
            }
        }
    }
}

/// Turns the scores of one row into weights; returns what earlier outputs are to be multiplied
/// with.
#[inline(always)]
fn online_softmax_update(
    scores: &mut [f32],
    scale: f32,
    exact: bool,
    max: &mut f32,
    sum: &mut f32,
) -> f32 {
    let mut tops = [*max; 16];
    for scores in scores.chunks_mut(16) {
        for (score, top) in scores.iter_mut().zip(&mut tops) {
            *score *= scale;
            *top = top.max(*score);
        }
    }
    let top = fold(tops, f32::max);
    let rescale = if *max == f32::NEG_INFINITY { 1.0 } else { (*max - top).exp() };
    *max = top;
    let mut sums = [0.0; 16];
    for scores in scores.chunks_mut(16) {
        for (score, sum) in scores.iter_mut().zip(&mut sums) {
            *score = if exact { (*score - top).exp() } else { exp(*score - top) };
            *sum += *score;
        }
    }
    *sum = *sum * rescale + fold(sums, |a, b| a + b);
    rescale
}

/// All lanes as one, halves at a time.
#[inline(always)]
fn fold(mut lanes: [f32; 16], join: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = join(lanes[i], lanes[i + half]);
        }
    }
    lanes[0]
}
