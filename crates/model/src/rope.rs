//! Rotary positions (Su et al. 2021) with YaRN's change of frequencies (Peng et al. 2023).
//!
//! DeepSeek rotates adjacent pairs `(x[2i], x[2i+1])`. Angles are computed in f64: at position
//! 100,000 an f32 product of position and frequency is off by a hundredth of a turn.

/// Change of the rotations' frequencies for contexts longer than trained.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // the names are those of the paper and of the keys
pub enum Scaling {
    /// None.
    None,
    /// All frequencies divided by a factor.
    Linear { factor: f32 },
    /// YaRN (Peng et al. 2023, arXiv 2309.00071).
    Yarn {
        factor: f32,
        original_context: usize,
        beta_fast: f32,
        beta_slow: f32,
        /// 0.1 · `mscale_all_dim`.
        log_multiplier: f32,
    },
}

/// Angular frequencies of the rotated pairs, in radians per token.
#[derive(Debug)]
pub(crate) struct Rope {
    frequencies: Vec<f64>, // [dims / 2]
}

impl Rope {
    /// Pair `i` of `dims / 2` turns by `base^(-2i / dims)`, changed as `scaling` says.
    pub(crate) fn new(dims: usize, base: f32, scaling: &Scaling) -> Self {
        let (width, base) = (dims as f64, f64::from(base));
        let plain = |i: usize| base.powf(-2.0 * i as f64 / width);
        let frequency = |i: usize| match *scaling {
            Scaling::None => plain(i),
            Scaling::Linear { factor } => plain(i) / f64::from(factor),
            Scaling::Yarn { factor, original_context, beta_fast, beta_slow, .. } => {
                // The pair that turns `turns` times within the original context (YaRN, section
                // 3.2).
                let pair = |turns: f32| {
                    let context =
                        original_context as f64 / (f64::from(turns) * std::f64::consts::TAU);
                    width * context.ln() / (2.0 * base.ln())
                };
                let low = pair(beta_fast).floor().max(0.0);
                let high = pair(beta_slow).ceil().min(width - 1.0);
                let ramp = ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                plain(i) * (1.0 - ramp) + plain(i) / f64::from(factor) * ramp
            }
        };
        Self { frequencies: (0..dims / 2).map(frequency).collect() }
    }

    /// Cosines and sines at `position`, in turn: `[dims]`.
    pub(crate) fn angles(&self, position: usize, out: &mut [f32]) {
        for (pair, frequency) in out.chunks_exact_mut(2).zip(&self.frequencies) {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            pair[0] = cos as f32;
            pair[1] = sin as f32;
        }
    }
}

/// Rotates the pairs of `x` by `angles`, both `[dims]`.
pub(crate) fn rotate(x: &mut [f32], angles: &[f32]) {
    for (x, angle) in x.chunks_exact_mut(2).zip(angles.chunks_exact(2)) {
        let (cos, sin) = (angle[0], angle[1]);
        (x[0], x[1]) = (x[0] * cos - x[1] * sin, x[0] * sin + x[1] * cos);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const R1: Scaling = Scaling::Yarn {
        factor: 40.0,
        original_context: 4096,
        beta_fast: 32.0,
        beta_slow: 1.0,
        log_multiplier: 0.1,
    };

    #[test]
    fn yarn_keeps_fast_pairs_and_slows_slow_ones_down() {
        let plain = Rope::new(64, 10_000.0, &Scaling::None).frequencies;
        let yarn = Rope::new(64, 10_000.0, &R1).frequencies;
        // The ramp of DeepSeek-R1 runs from pair 10 to pair 23.
        assert_eq!(plain[..=10], yarn[..=10]);
        assert!((11..23).all(|i| yarn[i] < plain[i] && yarn[i] > plain[i] / 40.0));
        assert!((23..32).all(|i| (yarn[i] * 40.0 / plain[i] - 1.0).abs() < 1e-12));
        assert!((yarn[16] / plain[16] - (7.0 + 6.0 / 40.0) / 13.0).abs() < 1e-12);
    }

    #[test]
    fn a_rotation_turns_adjacent_pairs() {
        let rope = Rope::new(4, 100.0, &Scaling::Linear { factor: 2.0 });
        let mut angles = [0.0; 4];
        rope.angles(3, &mut angles);
        let mut x = [1.0, 0.0, 0.0, 1.0];
        rotate(&mut x, &angles);
        let expected = [1.5f32.cos(), 1.5f32.sin(), -0.15f32.sin(), 0.15f32.cos()];
        assert!(x.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{x:?}");
    }
}
