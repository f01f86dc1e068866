//! Random numbers that are the same on every machine and in every version: a seed names a file.

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The stream `number` of those that belong to `seed`.
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        // Mixed, so that neighbouring numbers do not give one stream at two places.
        let mixed = Self(number).next();
        Self(Self(seed ^ mixed).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..end`; the bias, at most `end / 2^64`, does not matter here.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// In (0, 1].
    fn unit(&mut self) -> f32 {
        ((self.next() >> 40) + 1) as f32 / (1 << 24) as f32
    }

    /// Independent numbers of mean 0 and standard deviation 1 (Box and Muller, 1958).
    pub(crate) fn fill_normal(&mut self, out: &mut [f32]) {
        for pair in out.chunks_mut(2) {
            let radius = (-2.0 * self.unit().ln()).sqrt();
            let (sin, cos) = (self.unit() * std::f32::consts::TAU).sin_cos();
            pair.iter_mut().zip([cos, sin]).for_each(|(x, part)| *x = radius * part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_the_right_moments_and_streams_differ() {
        let mut x = vec![0.0; 100_001];
        Random::new(1, 2).fill_normal(&mut x);
        let mean = |power| x.iter().map(|&x| f64::from(x).powi(power)).sum::<f64>() / 100_001.0;
        assert!(mean(1).abs() < 0.02 && (mean(2) - 1.0).abs() < 0.02, "{} {}", mean(1), mean(2));
        assert!((mean(4) - 3.0).abs() < 0.1, "{}", mean(4));
        let mut others = [[0.0; 4]; 2];
        Random::new(1, 3).fill_normal(&mut others[0]);
        Random::new(2, 2).fill_normal(&mut others[1]);
        assert!(others[0] != others[1] && others.iter().all(|other| x[..4] != *other));
    }
}
