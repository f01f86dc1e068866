//! The search for scales and minimums: `weight ≈ scale·code + offset`, as `search` for the formats
//! whose codes start at zero.

use half::f16;

use super::search::{around, f16_scale, inverse, least_of, round};

/// Number and sums of the weights `u` and their codes `q`.
struct Moments {
    n: f32,
    u: f32,
    uu: f32,
    q: f32,
    qq: f32,
    uq: f32,
}

impl Moments {
    /// Codes `0..=top` are the integers nearest to `(u - offset)·inverse`.
    ///
    /// The length must be a multiple of 8: eight independent sums let the compiler use vectors.
    fn of(u: &[f32], top: f32, inverse: f32, offset: f32) -> Self {
        let mut sums = [[0f32; 8]; 5];
        for u in u.as_chunks::<8>().0 {
            for j in 0..8 {
                let q = round((u[j] - offset) * inverse, 0.0, top);
                sums[0][j] += u[j];
                sums[1][j] += u[j] * u[j];
                sums[2][j] += q;
                sums[3][j] += q * q;
                sums[4][j] += u[j] * q;
            }
        }
        let [u_sum, uu, q, qq, uq] = sums.map(|lanes| lanes.iter().sum());
        Self { n: u.len() as f32, u: u_sum, uu, q, qq, uq }
    }

    /// Scale and offset (at most `offset_max`) that are best for these codes.
    fn solve(&self, offset_max: f32) -> Fit {
        let Self { n, u, uu, q, qq, uq } = *self;
        let determinant = n * qq - q * q;
        if determinant <= 0.0 {
            return Fit { scale: 0.0, offset: 0.0, error: f32::INFINITY };
        }
        let mut scale = (n * uq - u * q) / determinant;
        let mut offset = (u - scale * q) / n;
        if offset > offset_max {
            offset = offset_max;
            scale = (uq - offset * q) / qq;
        }
        let error = uu - 2.0 * (scale * uq + offset * u)
            + (scale * scale * qq + 2.0 * scale * offset * q + n * offset * offset);
        // What remains below one part in a million is rounding: nothing to prefer a fit for.
        let error = if scale > 0.0 { error.max(1e-6 * uu) } else { f32::INFINITY };
        Fit { scale, offset, error }
    }
}

/// `weight ≈ scale·code + offset` and its squared error.
#[derive(Clone, Copy)]
struct Fit {
    scale: f32,
    offset: f32,
    error: f32,
}

impl Fit {
    fn or_better(self, other: Self) -> Self {
        if other.error < self.error { other } else { self }
    }
}

/// Scale and offset for `weight ≈ scale·code + offset` with codes `0..=top` and an offset of at
/// most `offset_max`.
pub(crate) fn fit(x: &[f32], top: f32, offset_max: f32) -> (f32, f32) {
    let (low, high) = x.iter().fold((offset_max, f32::NEG_INFINITY), |(low, high), &x| {
        (f32::min(low, x), f32::max(high, x))
    });
    let range = high - low;
    if range <= 0.0 {
        return (0.0, low);
    }
    // Sums of the distances from the lowest weight lose no digits to a common offset.
    let mut distances = [0.0; 32];
    let u = &mut distances[..x.len()];
    u.iter_mut().zip(x).for_each(|(u, x)| *u = x - low);

    let mut best = Fit { scale: range / top, offset: 0.0, error: f32::INFINITY };
    let solve = |inverse, offset| Moments::of(u, top, inverse, offset).solve(offset_max - low);
    for top in around(top, 10, 0.1) {
        best = best.or_better(solve(top / range, 0.0));
    }
    for _ in 0..2 {
        best = best.or_better(solve(best.scale.recip(), best.offset));
    }
    (best.scale, best.offset + low)
}

/// Integer scales and minimums of the groups of a block, `weight ≈ d·s[g]·code - m·n[g]`.
pub(crate) struct Scales<const GROUPS: usize> {
    /// The scale of the scales.
    pub(crate) d: f16,
    /// The scale of the minimums.
    pub(crate) m: f16,
    /// The groups' scales.
    pub(crate) s: [u8; GROUPS],
    /// The groups' minimums.
    pub(crate) n: [u8; GROUPS],
}

impl<const GROUPS: usize> Scales<GROUPS> {
    /// The codes `0..=top` of group `g` of weights `x`, in order.
    pub(crate) fn codes(&self, g: usize, x: &[f32], top: f32) -> impl Iterator<Item = u8> {
        let scale = self.d.to_f32() * f32::from(self.s[g]);
        let min = self.m.to_f32() * f32::from(self.n[g]);
        let inverse = inverse(scale);
        x.iter().map(move |x| round((x + min) * inverse, 0.0, top) as u8)
    }

    /// Searches for scales and minimums of a block, `0..=limit` each, for codes `0..=top`.
    pub(crate) fn search(x: &[f32], limit: f32, top: f32) -> Self {
        let len = x.len() / GROUPS;
        let fits: [(f32, f32); GROUPS] = std::array::from_fn(|g| {
            let (scale, offset) = fit(&x[g * len..][..len], top, 0.0);
            (scale, -offset)
        });
        let largest = fits.iter().fold((0f32, 0f32), |max, f| (max.0.max(f.0), max.1.max(f.1)));
        let (mut d, mut m) = (f16_scale(largest.0 / limit), f16_scale(largest.1 / limit));
        let mut best = Self { d, m, s: [0; GROUPS], n: [0; GROUPS] };
        let mut least = f32::INFINITY;
        // The second round has the d and m that are best for the first round's codes.
        for _ in 0..2 {
            let mut scales = Self { d, m, s: [0; GROUPS], n: [0; GROUPS] };
            let mut total = 0.0;
            for (g, x) in x.chunks_exact(len).enumerate() {
                let middle = (
                    round(fits[g].0 * inverse(d.to_f32()), 0.0, limit),
                    round(fits[g].1 * inverse(m.to_f32()), 0.0, limit),
                );
                let near = |v: f32, k: usize| (v + k as f32 - 1.0).max(0.0).min(limit);
                let tried: [_; 9] =
                    std::array::from_fn(|k| (near(middle.0, k % 3), near(middle.1, k / 3)));
                let ((s, n), e) =
                    least_of(tried, |(s, n)| error(x, top, d.to_f32() * s, m.to_f32() * n));
                (scales.s[g], scales.n[g]) = (s as u8, n as u8);
                total += e;
            }
            (d, m) = scales.refit(x, top);
            if total < least {
                (best, least) = (scales, total);
            }
        }
        best
    }

    /// `d` and `m` by least squares for the codes that these scales give.
    fn refit(&self, x: &[f32], top: f32) -> (f16, f16) {
        let len = x.len() / GROUPS;
        // weight ≈ d·a - m·b with a = s·code and b = n
        let (mut aa, mut ab, mut bb, mut ax, mut bx) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (g, x) in x.chunks_exact(len).enumerate() {
            let (s, b) = (f32::from(self.s[g]), f32::from(self.n[g]));
            for (code, x) in self.codes(g, x, top).zip(x) {
                let a = s * f32::from(code);
                (aa, ab, bb) = (aa + a * a, ab + a * b, bb + b * b);
                (ax, bx) = (ax + a * x, bx + b * x);
            }
        }
        let determinant = aa * bb - ab * ab;
        if determinant <= 1e-6 * aa * bb {
            return (f16_scale(ax * inverse(aa)), self.m);
        }
        let d = (ax * bb - bx * ab) / determinant;
        let m = (ax * ab - bx * aa) / determinant;
        (f16_scale(d.max(0.0)), f16_scale(m.max(0.0)))
    }
}

/// The squared error of `weight ≈ scale·code - min` with the best codes `0..=top`.
fn error(x: &[f32], top: f32, scale: f32, min: f32) -> f32 {
    let (inverse, mut sum) = (inverse(scale), [0.0; 8]);
    for x in x.as_chunks::<8>().0 {
        for j in 0..8 {
            let e = x[j] + min - scale * round((x[j] + min) * inverse, 0.0, top);
            sum[j] += e * e;
        }
    }
    sum.iter().sum()
}
