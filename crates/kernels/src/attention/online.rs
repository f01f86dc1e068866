//! One query row against some cache rows, with softmax kept running (Milakov and Gimelshein 2018).

use crate::cpu::Tier;
use crate::ops::{dot, exp, wide};

/// Running softmax of some query rows.
pub(super) struct State<'a> {
    pub(super) maxima: &'a mut [f32],  // [rows]
    pub(super) sums: &'a mut [f32],    // [rows]
    pub(super) outputs: &'a mut [f32], // [rows, values], not yet divided by the sums
}

/// Running softmax of one query row.
pub(super) struct Row<'a> {
    max: &'a mut f32,
    sum: &'a mut f32,
    output: &'a mut [f32],
}

impl State<'_> {
    pub(super) fn clear(&mut self) {
        self.maxima.fill(f32::NEG_INFINITY);
        self.sums.fill(0.0);
        self.outputs.fill(0.0);
    }

    pub(super) fn row(&mut self, r: usize) -> Row<'_> {
        let values = self.outputs.len() / self.sums.len();
        Row {
            max: &mut self.maxima[r],
            sum: &mut self.sums[r],
            output: &mut self.outputs[r * values..][..values],
        }
    }
}

/// The first `count` of some cache rows, `stride` numbers each.
#[derive(Clone, Copy)]
pub(super) struct Visible<'a> {
    pub(super) count: usize,
    pub(super) stride: usize,
    pub(super) rows: &'a [f32],
}

/// Adds cache rows whose beginning is their value.
pub(super) fn absorbed_row(
    tier: Tier,
    q: &[f32],
    keys: Visible<'_>,
    scale: f32,
    scores: &mut [f32],
    row: &mut Row<'_>,
) {
    wide(tier, || {
        add(q, keys, (keys.rows, keys.stride), scale, scores, row, tier.is_scalar());
    });
}

/// Adds cache rows with separate values, `[rows, row.output.len()]`.
pub(super) fn expanded_row(
    tier: Tier,
    q: &[f32],
    keys: Visible<'_>,
    values: &[f32],
    scale: f32,
    scores: &mut [f32],
    row: &mut Row<'_>,
) {
    let stride = row.output.len();
    wide(tier, || add(q, keys, (values, stride), scale, scores, row, tier.is_scalar()));
}

#[inline(always)]
fn add(
    q: &[f32],
    keys: Visible<'_>,
    (values, stride): (&[f32], usize),
    scale: f32,
    scores: &mut [f32],
    row: &mut Row<'_>,
    exact: bool,
) {
    let n = keys.count;
    if n == 0 {
        return;
    }
    let scores = &mut scores[..n];
    for (score, key) in scores.iter_mut().zip(keys.rows.chunks_exact(keys.stride)) {
        *score = dot(q, key) * scale;
    }
    let top = scores.iter().fold(*row.max, |a, &b| a.max(b));
    let kept = if *row.max == f32::NEG_INFINITY { 0.0 } else { (*row.max - top).exp() };
    *row.max = top;
    for score in scores.iter_mut() {
        *score = if exact { (*score - top).exp() } else { exp(*score - top) };
    }
    *row.sum = *row.sum * kept + scores.iter().sum::<f32>();
    if kept != 1.0 {
        row.output.iter_mut().for_each(|o| *o *= kept);
    }
    // Four cache rows at a time: the output is read and written a quarter as often.
    let len = row.output.len();
    let value = |j: usize| &values[j * stride..][..len];
    let fours = n / 4 * 4;
    for j in (0..fours).step_by(4) {
        let (p, v) = (&scores[j..j + 4], [value(j), value(j + 1), value(j + 2), value(j + 3)]);
        for (i, o) in row.output.iter_mut().enumerate() {
            *o += p[0] * v[0][i] + p[1] * v[1][i] + (p[2] * v[2][i] + p[3] * v[3][i]);
        }
    }
    for (j, p) in scores.iter().enumerate().skip(fours) {
        row.output.iter_mut().zip(value(j)).for_each(|(o, v)| *o += p * v);
    }
}
