//! What a router chose, by token and by expert.
//!
//! Arithmetic is done expert by expert, so that each expert's weights are read once however many
//! tokens want them: a counting sort turns the router's lists around.

/// The experts of a batch of tokens.
#[derive(Debug, Default)]
pub struct Routing {
    used: usize,
    experts: Vec<u32>, // [tokens, used]
    weights: Vec<f32>, // [tokens, used]
    replaced: Option<usize>,
    starts: Vec<u32>, // [experts + 1]: where an expert's run begins in the two lists below
    sorted_tokens: Vec<u32>,
    sorted_weights: Vec<f32>,
}

/// One picked expert and the tokens that want it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertBatch<'a> {
    /// Its number in the layer.
    pub expert: usize,
    /// Rows of the batch, ascending.
    pub tokens: &'a [u32],
    /// The weight of the expert's output for each of them.
    pub weights: &'a [f32],
}

impl Routing {
    /// Forgets everything; each token will get `used` experts.
    pub fn clear(&mut self, used: usize) {
        self.used = used;
        self.experts.clear();
        self.weights.clear();
        self.replaced = None;
    }

    /// Adds the experts of the next token.
    pub fn push(&mut self, expert: u32, weight: f32) {
        self.experts.push(expert);
        self.weights.push(weight);
    }

    /// Notes that so many experts of a token are not the router's first choice.
    pub(crate) fn note_replaced(&mut self, count: usize) {
        *self.replaced.get_or_insert(0) += count;
    }

    /// Routing that are not the router's first choice, if what was at hand was preferred.
    pub fn replaced(&self) -> Option<usize> {
        self.replaced
    }

    /// Where the weights of the next token will begin.
    pub(crate) fn begin_token(&self) -> usize {
        self.weights.len()
    }

    /// The weights pushed since [`Routing::begin_token`] returned `first`.
    pub(crate) fn weights_from(&mut self, first: usize) -> &mut [f32] {
        &mut self.weights[first..]
    }

    /// Sorts by expert, of which there are `count`. Call once after the last [`Routing::push`].
    ///
    /// # Panics
    /// If an expert is not below `count`.
    pub fn sort(&mut self, count: usize) {
        self.starts.clear();
        self.starts.resize(count + 1, 0);
        for &expert in &self.experts {
            self.starts[expert as usize + 1] += 1;
        }
        for e in 0..count {
            self.starts[e + 1] += self.starts[e];
        }
        self.sorted_tokens.resize(self.experts.len(), 0);
        self.sorted_weights.resize(self.experts.len(), 0.0);
        // Each start moves to its run's end while the run fills, and so becomes the next one's start.
        for (i, (&expert, &weight)) in self.experts.iter().zip(&self.weights).enumerate() {
            let at = self.starts[expert as usize] as usize;
            self.sorted_tokens[at] = (i / self.used) as u32;
            self.sorted_weights[at] = weight;
            self.starts[expert as usize] += 1;
        }
        self.starts.copy_within(0..count, 1);
        self.starts[0] = 0;
    }

    /// Tokens of the batch.
    pub fn tokens(&self) -> usize {
        self.experts.len().checked_div(self.used).unwrap_or(0)
    }

    /// Experts and weights of one token, best first.
    pub fn of(&self, token: usize) -> (&[u32], &[f32]) {
        let range = token * self.used..(token + 1) * self.used;
        (&self.experts[range.clone()], &self.weights[range])
    }

    /// The picked experts with their tokens, in ascending order.
    pub fn batches(&self) -> impl Iterator<Item = ExpertBatch<'_>> {
        self.starts.windows(2).enumerate().filter(|(_, run)| run[0] < run[1]).map(
            |(expert, run)| {
                let range = run[0] as usize..run[1] as usize;
                let tokens = &self.sorted_tokens[range.clone()];
                ExpertBatch { expert, tokens, weights: &self.sorted_weights[range] }
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_list_every_pick_once_in_order() {
        let mut routing = Routing::default();
        for _ in 0..2 {
            routing.clear(2);
            for (expert, weight) in [(3, 0.1), (0, 0.2), (0, 0.3), (2, 0.4), (3, 0.5), (0, 0.6)] {
                routing.push(expert, weight);
            }
            routing.sort(5);
        }
        assert_eq!(routing.tokens(), 3);
        assert_eq!(routing.of(1), (&[0, 2][..], &[0.3, 0.4][..]));
        let batches: Vec<_> = routing.batches().collect();
        assert_eq!(
            batches,
            [
                ExpertBatch { expert: 0, tokens: &[0, 1, 2], weights: &[0.2, 0.3, 0.6] },
                ExpertBatch { expert: 2, tokens: &[1], weights: &[0.4] },
                ExpertBatch { expert: 3, tokens: &[0, 2], weights: &[0.1, 0.5] },
            ]
        );
    }
}
