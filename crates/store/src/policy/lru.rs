//! Evicts the expert that was not used for the longest time. The standard that others are measured
//! by; of a cyclic scan larger than the cache, such as a long prompt, it keeps nothing.

use super::Policy;

/// Least recently used.
#[derive(Debug)]
pub struct Lru {
    now: u32,
    clock: u64,
    last: Vec<(u32, u64)>, // [experts]: token, and order among the picks of one
}

impl Lru {
    /// For `experts` experts.
    pub fn new(experts: usize) -> Self {
        Self { now: 0, clock: 0, last: vec![(0, 0); experts] }
    }
}

impl Policy for Lru {
    fn touch(&mut self, expert: usize, age: u32) {
        self.clock += 1;
        self.last[expert] = self.last[expert].max((self.now.saturating_sub(age), self.clock));
    }

    fn advance(&mut self, tokens: u32) {
        self.now = self.now.saturating_add(tokens);
    }

    fn worth(&self, expert: usize) -> f64 {
        let (token, order) = self.last[expert];
        f64::from(token) + (order as f64) / (self.clock + 1) as f64
    }
}
