//! The search for scales that the encoders share.
//!
//! Rounding to the nearest code is easy; what makes an encoder good is the scale it rounds with.
//! The scale that maps the largest weight to the largest code is rarely the best one, so each
//! encoder tries some around it. For given codes the best scale follows by least squares, which in
//! turn may change the codes. All errors are plain sums of squares over the weights.

use half::f16;

/// Encodes block after block. Weights are clipped first: what is beyond every format's range is cut
/// off at ±1e9 and what is below every format's resolution is zero, so that squares, sums and
/// reciprocals stay finite. The bytes arrive zeroed.
pub(crate) fn each_block<const LEN: usize, const BYTES: usize>(
    weights: &[f32],
    bytes: &mut [u8],
    mut encode: impl FnMut(&[f32; LEN], &mut [u8; BYTES]),
) {
    let tame = |w: f32| if w.abs() > 1e-12 { w.clamp(-1e9, 1e9) } else { 0.0 };
    let (blocks, _) = bytes.as_chunks_mut();
    for (x, block) in weights.as_chunks().0.iter().zip(blocks) {
        block.fill(0);
        encode(&x.map(tame), block);
    }
}

/// A scale as the file will hold it: nearest f16, but finite, and zero only if it was zero, so that
/// small blocks do not vanish.
pub(crate) fn f16_scale(scale: f32) -> f16 {
    let nearest = f16::from_f32(scale.clamp(-65504.0, 65504.0));
    if nearest == f16::ZERO && scale != 0.0 {
        f16::MIN_POSITIVE_SUBNORMAL.copysign(f16::from_f32(scale))
    } else {
        nearest
    }
}

/// `1 / scale`, and zero for zero.
pub(crate) fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { scale.recip() }
}

/// The integer nearest to `v` within `low..=high`, ties to even.
///
/// Adding 1.5·2^23 leaves no bits for a fraction; unlike `f32::round_ties_even` this is two
/// additions on every CPU. The bounds must be below 2^22.
pub(crate) fn round(v: f32, low: f32, high: f32) -> f32 {
    const NO_FRACTION: f32 = 12_582_912.0;
    (v.max(low).min(high) + NO_FRACTION) - NO_FRACTION
}

/// The element of largest magnitude, with its sign; zero for none.
pub(crate) fn peak(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |peak: f32, &x| if x.abs() > peak.abs() { x } else { peak })
}

/// Levels around `level` to which a search may map the largest weight: `level` itself, so that it
/// wins among equals, and `steps` to either side.
pub(crate) fn around(level: f32, steps: i16, step: f32) -> impl Iterator<Item = f32> + Clone {
    let sides = (1..=steps).flat_map(|k| [k, -k]);
    std::iter::once(0).chain(sides).map(move |k| level + step * f32::from(k))
}

/// Sums, over weights and the levels `nearest` to `weight·inverse`, of weight·level and level².
///
/// The length must be a multiple of 8: eight independent sums let the compiler use vectors.
fn moments(x: &[f32], inverse: f32, nearest: impl Fn(f32) -> f32) -> (f32, f32) {
    let (mut xq, mut qq) = ([0.0; 8], [0.0; 8]);
    for x in x.as_chunks::<8>().0 {
        for j in 0..8 {
            let q = nearest(x[j] * inverse);
            xq[j] += x[j] * q;
            qq[j] += q * q;
        }
    }
    (xq.iter().sum(), qq.iter().sum())
}

/// The squared error of `weight ≈ scale·level`, with the levels `nearest` to `weight / scale`.
pub(crate) fn error(x: &[f32], scale: f32, nearest: impl Fn(f32) -> f32) -> f32 {
    let (inverse, mut sum) = (inverse(scale), [0.0; 8]);
    for x in x.as_chunks::<8>().0 {
        for j in 0..8 {
            let e = x[j] - scale * nearest(x[j] * inverse);
            sum[j] += e * e;
        }
    }
    sum.iter().sum()
}

/// The scale for `weight ≈ scale·level`: for each of `spans`, the weight of largest magnitude is
/// mapped to it, all weights to the `nearest` level, and the best scale for these levels taken.
pub(crate) fn fit(
    x: &[f32],
    spans: impl Iterator<Item = f32>,
    nearest: impl Fn(f32) -> f32 + Copy,
) -> f32 {
    let peak = peak(x);
    let (mut best, mut gain) = (0.0, 0.0);
    if peak != 0.0 {
        for span in spans {
            let (xq, qq) = moments(x, span / peak, nearest);
            // With the best scale, xq/qq, the error is what the weights' squares exceed this by.
            if qq > 0.0 && xq * xq / qq > gain {
                (best, gain) = (xq / qq, xq * xq / qq);
            }
        }
    }
    best
}

/// Integer scales of the groups of a block, `weight ≈ d·s[g]·level`.
pub(crate) struct Scales<const GROUPS: usize> {
    /// The scale of the scales.
    pub(crate) d: f16,
    /// The groups' scales.
    pub(crate) s: [i8; GROUPS],
}

impl<const GROUPS: usize> Scales<GROUPS> {
    /// The scale that the decoder will use in group `g`.
    pub(crate) fn of(&self, g: usize) -> f32 {
        self.d.to_f32() * f32::from(self.s[g])
    }

    /// Searches for the scales of a block, `low..=high` each with `low < 0`.
    pub(crate) fn search(
        x: &[f32],
        (low, high): (f32, f32),
        spans: &(impl Iterator<Item = f32> + Clone),
        nearest: impl Fn(f32) -> f32 + Copy,
    ) -> Self {
        let len = x.len() / GROUPS;
        let fits: [f32; GROUPS] =
            std::array::from_fn(|g| fit(&x[g * len..][..len], spans.clone(), nearest));
        let peak = peak(&fits);
        // Groups whose scales are equal but for their signs need a range that is symmetric.
        let first = Self::assign(x, f16_scale(peak / low), (low, high), &fits, nearest);
        let symmetric = Self::assign(x, f16_scale(-peak / high), (low, high), &fits, nearest);
        let best = if symmetric.error < first.error { symmetric } else { first };
        let refined = Self::assign(x, best.best_d, (low, high), &fits, nearest);
        if refined.error < best.error { refined.scales } else { best.scales }
    }

    /// The scales that are best with a given `d`: those nearest to the `fits`, or neighbours.
    fn assign(
        x: &[f32],
        d: f16,
        (low, high): (f32, f32),
        fits: &[f32; GROUPS],
        nearest: impl Fn(f32) -> f32 + Copy,
    ) -> Assigned<Self> {
        let mut scales = Self { d, s: [0; GROUPS] };
        let (mut total, mut xq, mut qq) = (0.0, 0.0, 0.0);
        let d = d.to_f32();
        for (g, x) in x.chunks_exact(x.len() / GROUPS).enumerate() {
            let s = round(fits[g] * inverse(d), low, high);
            let tried = [s, (s - 1.0).max(low), (s + 1.0).min(high)];
            let (s, e) = least_of(tried, |s| error(x, d * s, nearest));
            let moments = moments(x, inverse(d * s), nearest);
            (xq, qq) = (xq + s * moments.0, qq + s * s * moments.1);
            scales.s[g] = s as i8;
            total += e;
        }
        Assigned { scales, error: total, best_d: f16_scale(xq * inverse(qq)) }
    }
}

/// Scales for a given `d`.
struct Assigned<S> {
    scales: S,
    /// The squared error.
    error: f32,
    /// The `d` that is best for the codes that these scales give.
    best_d: f16,
}

/// The candidate with the least error, and that error.
pub(crate) fn least_of<T: Copy, const N: usize>(
    candidates: [T; N],
    error: impl Fn(T) -> f32,
) -> (T, f32) {
    candidates.into_iter().fold((candidates[0], f32::INFINITY), |least, candidate| {
        let e = error(candidate);
        if e < least.1 { (candidate, e) } else { least }
    })
}
