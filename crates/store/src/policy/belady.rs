//! Evicts the expert that is needed again last: the optimum (Belady 1966). It needs to know the
//! future, as the replay of a recorded run does.

use super::Policy;

/// The optimum for one recorded sequence of picks.
#[derive(Debug)]
pub struct Belady {
    /// For each expert the times of its uses, latest first; past ones are removed.
    future: Vec<Vec<u32>>,
}

impl Belady {
    /// For `experts` experts that will be touched in the order of `picks`, all with age 0.
    pub fn new(
        experts: usize,
        picks: impl DoubleEndedIterator<Item = usize> + ExactSizeIterator,
    ) -> Self {
        let mut future = vec![Vec::new(); experts];
        let count = picks.len();
        for (i, expert) in picks.rev().enumerate() {
            future[expert].push((count - 1 - i) as u32);
        }
        Self { future }
    }
}

impl Policy for Belady {
    fn touch(&mut self, expert: usize, _age: u32) {
        self.future[expert].pop();
    }

    fn advance(&mut self, _tokens: u32) {}

    fn worth(&self, expert: usize) -> f64 {
        self.future[expert].last().map_or(f64::NEG_INFINITY, |&next| -f64::from(next))
    }
}
