//! Query rows against some cache rows, with softmax rescale running (Milakov and Gimelshein 2018).

use crate::cpu::Tier;
use crate::isa::floats::{Gemm, Strided, StridedMut, gemm};
use crate::ops::{exp, with_simd};

/// Cache rows at a time.
pub(super) const ROWS: usize = 64;

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

/// Adds the rows of `tile` to `state`, one row of it for each row of `q`; query row `r` sees the first
/// `visible(r)` of them.
pub(super) fn add(
    tier: Tier,
    q: Strided<'_>,
    tile: Tile<'_>,
    visible: &dyn Fn(usize) -> usize,
    scale: f32,
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
    online_softmax_tile(tier, scores, tile.count, visible, scale, state);
    let weights = Strided { numbers: scores, stride: ROWS };
    let out = StridedMut { numbers: state.outputs, stride: values };
    gemm(tier, weights, tile.values, Gemm { m: rows, n: values, k: tile.count }, out);
}

/// Turns scores `[rows, ROWS]` of up to `count` cache rows into weights, and goes on with the running softmax.
pub(super) fn online_softmax_tile(
    tier: Tier,
    scores: &mut [f32],
    count: usize,
    visible: &dyn Fn(usize) -> usize,
    scale: f32,
    state: &mut State<'_>,
) {
    let values = state.outputs.len() / state.sums.len();
    let exact = tier.is_scalar();
    with_simd(tier, || {
        for (r, scores) in scores.chunks_exact_mut(ROWS).enumerate() {
            let visible = visible(r).min(count);
            let (max, sum) = (&mut state.maxima[r], &mut state.sums[r]);
            let rescale = online_softmax_update(scores, visible, scale, exact, max, sum);
            if rescale != 1.0 {
                state.outputs[r * values..][..values].iter_mut().for_each(|o| *o *= rescale);
            }
        }
    });
}

/// The weights of one row; what earlier outputs are to be multiplied with.
#[inline(always)]
fn online_softmax_update(
    scores: &mut [f32],
    visible: usize,
    scale: f32,
    exact: bool,
    max: &mut f32,
    sum: &mut f32,
) -> f32 {
    let (scores, rest) = scores.split_at_mut(visible);
    rest.fill(0.0);
    if visible == 0 {
        return 1.0;
    }
    let mut tops = [*max; 16];
    for scores in scores.chunks_mut(16) {
        for (score, top) in scores.iter_mut().zip(&mut tops) {
            *score *= scale;
            *top = top.max(*score);
        }
    }
    let top = tops.iter().fold(*max, |a, &b| a.max(b));
    let rescale = if *max == f32::NEG_INFINITY { 0.0 } else { (*max - top).exp() };
    *max = top;
    let mut sums = [0.0; 16];
    for scores in scores.chunks_mut(16) {
        for (score, sum) in scores.iter_mut().zip(&mut sums) {
            *score = if exact { (*score - top).exp() } else { exp(*score - top) };
            *sum += *score;
        }
    }
    *sum = *sum * rescale + sums.iter().sum::<f32>();
    rescale
}
