//! How often an expert was used, decayed over time at two time scales.
//!
//! Experts differ in popularity, and tokens repeat the experts of the tokens before them. A sum
//! with a long half-life estimates the first, one with a short half-life the second (LRFU, Lee et
//! al. 2001, at two time scales). An expert that was evicted keeps its count (a "ghost"); otherwise
//! only the popularity of resident experts would be known.

use super::Policy;

/// Half-life of popularity, in tokens.
const LONG: f64 = 256.0;
/// Half-life of repetition, in tokens.
const SHORT: f64 = 1.0;
/// The weight of a use by the current token, in uses that count for popularity. Replays of traces
/// hardly distinguish 8 from 30 (`bench/README.md`).
const SHORT_WEIGHT: f64 = 16.0;
/// Half-lives after which sums are rescaled, long before an `f64` overflows.
const RESCALE: f64 = 256.0;

/// Decayed frequency and recency.
#[derive(Debug)]
pub struct Frequency {
    long: Decayed,
    short: Decayed,
}

/// Sums of uses that halve with every half-life.
///
/// Instead of shrinking all sums with each token, later uses count for more ("forward
/// decay", Cormode et al. 2009): sums keep their order for nothing.
#[derive(Debug)]
struct Decayed {
    half_life: f64,
    sums: Vec<f64>, // [experts]
    /// Half-lives that have passed since sums were rescaled.
    passed: f64,
    /// 2^-passed.
    scale: f64,
}

impl Decayed {
    fn new(experts: usize, half_life: f64) -> Self {
        Self { half_life, sums: vec![0.0; experts], passed: 0.0, scale: 1.0 }
    }

    fn touch(&mut self, expert: usize, age: u32) {
        self.sums[expert] += (self.passed - f64::from(age) / self.half_life).exp2();
    }

    fn advance(&mut self, tokens: u32) {
        self.passed += f64::from(tokens) / self.half_life;
        self.scale = (-self.passed).exp2();
        if self.passed > RESCALE {
            self.sums.iter_mut().for_each(|sum| *sum *= self.scale);
            (self.passed, self.scale) = (0.0, 1.0);
        }
    }

    fn get(&self, expert: usize) -> f64 {
        self.sums[expert] * self.scale
    }
}

impl Frequency {
    /// For `experts` experts, none of them used yet.
    pub fn new(experts: usize) -> Self {
        Self { long: Decayed::new(experts, LONG), short: Decayed::new(experts, SHORT) }
    }

    /// The popularity of each expert, to be saved for the next run.
    pub fn popularity(&self) -> Vec<f32> {
        (0..self.long.sums.len()).map(|expert| self.long.get(expert) as f32).collect()
    }

    /// Restores what [`Frequency::popularity`] returned; values that are not positive and finite
    /// are ignored.
    pub fn set_popularity(&mut self, known: &[f32]) {
        let sums = self.long.sums.iter_mut().zip(known);
        for (sum, &count) in sums.filter(|(_, count)| count.is_finite() && **count > 0.0) {
            *sum = f64::from(count) / self.long.scale;
        }
    }
}

impl Policy for Frequency {
    fn touch(&mut self, expert: usize, age: u32) {
        self.long.touch(expert, age);
        self.short.touch(expert, age);
    }

    fn advance(&mut self, tokens: u32) {
        self.long.advance(tokens);
        self.short.advance(tokens);
    }

    fn worth(&self, expert: usize) -> f64 {
        self.long.get(expert) + SHORT_WEIGHT * self.short.get(expert)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn popularity_outlives_a_burst_and_both_fade() {
        let mut policy = Frequency::new(3);
        for _ in 0..200 {
            policy.touch(0, 0);
            policy.advance(1);
        }
        policy.touch(1, 0);
        policy.advance(20);
        assert!(policy.worth(0) > policy.worth(1), "popular beats recent after a while");
        assert!(policy.worth(1) > policy.worth(2));
        let before = policy.worth(0);
        policy.advance(LONG as u32);
        let share = policy.worth(0) / before;
        assert!((0.49..0.51).contains(&share), "half of it is left: {share}");
    }

    #[test]
    fn a_pick_of_long_ago_counts_as_one() {
        let mut at_once = Frequency::new(2);
        at_once.advance(10);
        at_once.touch(0, 10);
        let mut in_time = Frequency::new(2);
        in_time.touch(0, 0);
        in_time.advance(10);
        assert!((at_once.worth(0) / in_time.worth(0) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn numbers_stay_finite_for_ever_and_keep_their_order() {
        let mut policy = Frequency::new(2);
        for _ in 0..1000 {
            policy.touch(0, 0);
            policy.touch(0, 0);
            policy.touch(1, 0);
            policy.advance(1000);
        }
        let (a, b) = (policy.worth(0), policy.worth(1));
        assert!(a.is_finite() && b > 0.0 && (a / b - 2.0).abs() < 1e-9, "{a} {b}");
    }

    #[test]
    fn what_is_known_is_taken_unless_it_is_nonsense() {
        let mut policy = Frequency::new(4);
        policy.advance(1000);
        policy.set_popularity(&[2.0, f32::NAN, -1.0]);
        let known = policy.popularity();
        assert!((known[0] - 2.0).abs() < 1e-5 && known[1..] == [0.0; 3], "{known:?}");
    }
}
