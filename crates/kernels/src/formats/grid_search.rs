//! The search for vectors and scales that the encoders of formats with grids share.
//!
//! The distance of weights `x` from a scaled entry `c·v` is `x² - 2c·(x·v) + c²·v²`, so all
//! products `x·v` are computed once and every scale after that costs few operations an entry. The
//! search over entries is exhaustive: simple, optimal for its scale, and slow with the larger
//! grids.

use half::f16;

use super::search::{f16_scale, inverse, least_of, peak, round};

/// A grid laid out for search; entries of `W` weights, a multiple of [`LANES`] of them.
pub(crate) struct Codebook<const W: usize> {
    /// `columns[j][i]` is weight `j` of entry `i`.
    columns: [Vec<f32>; W],
    /// `norms[i]` is the sum of squares of entry `i`.
    norms: Vec<f32>,
    /// The largest magnitude of any entry.
    top: f32,
}

/// Minimums kept side by side, so that the compiler uses vectors and keeps them in registers.
const LANES: usize = 8;

impl<const W: usize> Codebook<W> {
    /// Lays out entries.
    pub(crate) fn new(entries: impl Iterator<Item = [f32; W]> + Clone) -> Self {
        let columns = std::array::from_fn(|j| entries.clone().map(|e| e[j]).collect());
        let norms = entries.clone().map(|e| e.iter().map(|v| v * v).sum()).collect();
        Self { columns, norms, top: entries.fold(0.0, |top, e| peak(&e).abs().max(top)) }
    }

    /// The products of each vector of `x` with each entry: `[x.len() / W, entries]`.
    fn products(&self, x: &[f32]) -> Vec<f32> {
        let entries = self.norms.len();
        let mut products = vec![0.0; x.len() / W * entries];
        for (x, products) in x.as_chunks::<W>().0.iter().zip(products.chunks_exact_mut(entries)) {
            for (x, column) in x.iter().zip(&self.columns) {
                products.iter_mut().zip(column).for_each(|(p, v)| *p += x * v);
            }
        }
        products
    }

    /// The entry nearest to a vector with these products.
    fn nearest(&self, products: &[f32], scale: f32) -> usize {
        let (mut least, mut at) = ([f32::INFINITY; LANES], [0u32; LANES]);
        let products = products.as_chunks::<LANES>().0;
        let norms = self.norms.as_chunks::<LANES>().0;
        for (i, (products, norms)) in (0..).zip(products.iter().zip(norms)) {
            for lane in 0..LANES {
                let distance = scale * norms[lane] - 2.0 * products[lane];
                let nearer = distance < least[lane];
                at[lane] = if nearer { i } else { at[lane] };
                least[lane] = if nearer { distance } else { least[lane] };
            }
        }
        let (lane, _) = least_of(std::array::from_fn::<_, LANES, _>(|l| l), |l| least[l]);
        at[lane] as usize * LANES + lane
    }

    /// Sums, over the vectors with these products and their nearest entries `v`, of `x·v` and `v²`.
    fn moments(&self, products: &[f32], scale: f32) -> (f32, f32) {
        products.chunks_exact(self.norms.len()).fold((0.0, 0.0), |(xv, vv), products| {
            let i = self.nearest(products, scale);
            (xv + products[i], vv + self.norms[i])
        })
    }

    /// The best scale for `x`, and by how much it reduces the squared error.
    fn fit(&self, x: &[f32], products: &[f32]) -> (f32, f32) {
        let (mut best, mut gain) = (0.0, 0.0);
        // The largest weight becomes the largest magnitude, or is cut off more or less.
        for share in [1.0, 0.7, 0.45] {
            let mut scale = share * peak(x).abs() / self.top;
            for _ in 0..2 {
                let (xv, vv) = self.moments(products, scale);
                if xv > 0.0 && xv * xv / vv > gain {
                    (best, gain) = (xv / vv, xv * xv / vv);
                }
                scale = best;
            }
        }
        (best, gain)
    }
}

/// What the integer scale `s` of a group (`0..=last`) stands for: `first + s·each`.
#[derive(Clone, Copy)]
pub(crate) struct Steps {
    pub(crate) first: f32,
    pub(crate) each: f32,
    pub(crate) last: f32,
}

impl Steps {
    fn value(self, s: f32) -> f32 {
        self.first + s * self.each
    }
}

/// The codes of a block, `weight ≈ d·step(s)·entry`.
pub(crate) struct Choice {
    /// The scale of the scales.
    pub(crate) d: f16,
    /// The integer scale of each group.
    pub(crate) s: Vec<u8>,
    /// The codebook of each group.
    pub(crate) book: Vec<u8>,
    /// The entry of each vector.
    pub(crate) entries: Vec<u16>,
}

/// One group of weights with one of the codebooks.
struct Candidate<'a, const W: usize> {
    book: &'a Codebook<W>,
    products: Vec<f32>,
    scale: f32,
    gain: f32,
}

/// Encodes the weights of a block in groups of `len` that share a scale and one of the `books`.
pub(crate) fn choose<const W: usize>(
    books: &[Codebook<W>],
    steps: Steps,
    len: usize,
    x: &[f32; 256],
) -> Choice {
    let group = |x: &[f32]| -> Vec<Candidate<'_, W>> {
        let candidate = |book| {
            let products = Codebook::products(book, x);
            let (scale, gain) = book.fit(x, &products);
            Candidate { book, products, scale, gain }
        };
        books.iter().map(candidate).collect()
    };
    let groups: Vec<_> = x.chunks_exact(len).map(group).collect();
    let best = |group: &Vec<Candidate<'_, W>>| {
        group.iter().fold((0.0, 0.0), |b, c| if c.gain > b.1 { (c.scale, c.gain) } else { b }).0
    };
    let largest = groups.iter().map(best).fold(0.0, f32::max);

    let first = assign(&groups, steps, f16_scale(largest / steps.value(steps.last)));
    let second = assign(&groups, steps, f16_scale(first.best_d));
    if second.error < first.error { second.choice } else { first.choice }
}

struct Assigned {
    choice: Choice,
    /// The squared error, less the squares of the weights.
    error: f32,
    /// The best `d` for these codes.
    best_d: f32,
}

/// Chooses scales, books and entries for a given `d`.
fn assign<const W: usize>(groups: &[Vec<Candidate<'_, W>>], steps: Steps, d: f16) -> Assigned {
    let mut choice = Choice { d, s: vec![], book: vec![], entries: vec![] };
    let (mut total, mut dq, mut qq) = (0.0, 0.0, 0.0);
    let d = d.to_f32();
    for group in groups {
        let mut least = (f32::INFINITY, 0, 0.0, (0.0, 0.0));
        for (b, candidate) in group.iter().enumerate() {
            let s = (candidate.scale * inverse(d) - steps.first) / steps.each;
            let s = round(s, 0.0, steps.last);
            for s in [s, (s - 1.0).max(0.0), (s + 1.0).min(steps.last)] {
                let scale = d * steps.value(s);
                let moments = candidate.book.moments(&candidate.products, scale);
                let error = scale * (scale * moments.1 - 2.0 * moments.0);
                if error < least.0 {
                    least = (error, b, s, moments);
                }
            }
        }
        let (error, b, s, (xv, vv)) = least;
        let step = steps.value(s);
        (total, dq, qq) = (total + error, dq + step * xv, qq + step * step * vv);
        let Candidate { book, products, .. } = &group[b];
        let vectors = products.chunks_exact(book.norms.len());
        choice.entries.extend(vectors.map(|p| book.nearest(p, d * step) as u16));
        choice.s.push(s as u8);
        choice.book.push(b as u8);
    }
    Assigned { choice, error: total, best_d: dq.max(0.0) * inverse(qq) }
}

/// Magnitudes of weights and, per eight, a bit for each negative one.
///
/// If only `even` numbers of negative weights can be written, the smallest of eight counts with the
/// wrong sign where need be: its "magnitude" is negative.
pub(crate) fn split_signs(x: &[f32; 256], even: bool) -> ([f32; 256], [u8; 32]) {
    let (mut magnitudes, mut signs) = (x.map(f32::abs), [0u8; 32]);
    let eights = x.as_chunks::<8>().0.iter().zip(magnitudes.as_chunks_mut::<8>().0);
    for ((x, magnitudes), signs) in eights.zip(&mut signs) {
        *signs = x.iter().rev().fold(0, |bits, &x| bits << 1 | u8::from(x < 0.0));
        if even && signs.count_ones() % 2 == 1 {
            let (smallest, _) = least_of([0, 1, 2, 3, 4, 5, 6, 7], |j| magnitudes[j]);
            magnitudes[smallest] = -magnitudes[smallest];
            *signs ^= 1 << smallest;
        }
    }
    (magnitudes, signs)
}
