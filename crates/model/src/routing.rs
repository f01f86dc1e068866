//! The router's choice, by row and by expert.
//!
//! Experts are computed one after the other, so that each one's weights are read once, however many
//! rows it has: a counting sort turns the router's lists around.

/// In place of the experts of a row that has none.
const NONE: u32 = u32::MAX;

/// The experts of the rows of a batch.
#[derive(Debug, Default)]
pub struct Routing {
    used: usize,
    experts: Vec<u32>, // [rows, used]
    weights: Vec<f32>, // [rows, used]
    replaced: Option<usize>,
    starts: Vec<u32>, // [experts + 1]: where an expert's run begins in the two lists below
    sorted_rows: Vec<u32>,
    sorted_weights: Vec<f32>,
}

/// A chosen expert and its rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertBatch<'a> {
    /// Its index in the layer.
    pub expert: usize,
    /// Rows of the batch, ascending.
    pub rows: &'a [u32],
    /// The weight of the expert's output for each of them.
    pub weights: &'a [f32],
}

impl Routing {
    /// Removes all rows; each new one will have `used` experts.
    pub fn clear(&mut self, used: usize) {
        self.used = used;
        self.experts.clear();
        self.weights.clear();
        self.replaced = None;
    }

    /// Adds an expert of the next row.
    pub fn push(&mut self, expert: u32, weight: f32) {
        self.experts.push(expert);
        self.weights.push(weight);
    }

    /// Adds a row without experts.
    pub fn push_none(&mut self) {
        self.experts.extend(std::iter::repeat_n(NONE, self.used));
        self.weights.extend(std::iter::repeat_n(0.0, self.used));
    }

    /// Counts experts of a row that are not the router's first choice.
    pub(crate) fn note_replaced(&mut self, count: usize) {
        *self.replaced.get_or_insert(0) += count;
    }

    /// Experts that are not the router's first choice, if resident ones were preferred.
    pub fn replaced(&self) -> Option<usize> {
        self.replaced
    }

    /// Where the weights of the next row will begin.
    pub(crate) fn begin_row(&self) -> usize {
        self.weights.len()
    }

    /// The weights pushed since [`Routing::begin_row`] returned `first`.
    pub(crate) fn weights_from(&mut self, first: usize) -> &mut [f32] {
        &mut self.weights[first..]
    }

    /// Sorts by expert, of which there are `count`. Call once after the last row.
    ///
    /// # Panics
    /// If an expert is not below `count`.
    pub fn sort(&mut self, count: usize) {
        self.starts.clear();
        self.starts.resize(count + 1, 0);
        let mut chosen = 0;
        for &expert in self.experts.iter().filter(|&&expert| expert != NONE) {
            self.starts[expert as usize + 1] += 1;
            chosen += 1;
        }
        for e in 0..count {
            self.starts[e + 1] += self.starts[e];
        }
        self.sorted_rows.resize(chosen, 0);
        self.sorted_weights.resize(chosen, 0.0);
        // Each start moves to its run's end while the run fills, and so becomes the next one's
        // start.
        for (i, (&expert, &weight)) in self.experts.iter().zip(&self.weights).enumerate() {
            if expert == NONE {
                continue;
            }
            let at = self.starts[expert as usize] as usize;
            self.sorted_rows[at] = (i / self.used) as u32;
            self.sorted_weights[at] = weight;
            self.starts[expert as usize] += 1;
        }
        self.starts.copy_within(0..count, 1);
        self.starts[0] = 0;
    }

    /// Rows of the batch.
    pub fn rows(&self) -> usize {
        self.experts.len().checked_div(self.used).unwrap_or(0)
    }

    /// Experts and weights of one row, best first; none of a row that has failed.
    pub fn of(&self, row: usize) -> (&[u32], &[f32]) {
        let range = row * self.used..(row + 1) * self.used;
        match &self.experts[range.clone()] {
            [NONE, ..] => (&[], &[]),
            experts => (experts, &self.weights[range]),
        }
    }

    /// The chosen experts with their rows, in ascending order.
    pub fn batches(&self) -> impl Iterator<Item = ExpertBatch<'_>> {
        self.starts.windows(2).enumerate().filter(|(_, run)| run[0] < run[1]).map(
            |(expert, run)| {
                let range = run[0] as usize..run[1] as usize;
                let rows = &self.sorted_rows[range.clone()];
                ExpertBatch { expert, rows, weights: &self.sorted_weights[range] }
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_list_every_choice_once_in_order() {
        let mut routing = Routing::default();
        for _ in 0..2 {
            routing.clear(2);
            for (expert, weight) in [(3, 0.1), (0, 0.2), (0, 0.3), (2, 0.4)] {
                routing.push(expert, weight);
            }
            routing.push_none();
            for (expert, weight) in [(3, 0.5), (0, 0.6)] {
                routing.push(expert, weight);
            }
            routing.sort(5);
        }
        assert_eq!(routing.rows(), 4);
        assert_eq!(routing.of(1), (&[0, 2][..], &[0.3, 0.4][..]));
        assert_eq!(routing.of(2), (&[][..], &[][..]));
        let batches: Vec<_> = routing.batches().collect();
        assert_eq!(
            batches,
            [
                ExpertBatch { expert: 0, rows: &[0, 1, 3], weights: &[0.2, 0.3, 0.6] },
                ExpertBatch { expert: 2, rows: &[1], weights: &[0.4] },
                ExpertBatch { expert: 3, rows: &[0, 3], weights: &[0.1, 0.5] },
            ]
        );
    }
}
