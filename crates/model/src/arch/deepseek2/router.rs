//! Which experts a token gets, and with what weights, as in DeepSeek-V3's `inference/model.py`.
//!
//! Everything is f32, and one token's choice never depends on another's.

use cachalot_kernels::{Columns, Cpu, Inputs, Product, ops};

use super::config::{ExpertConfig, Gate};
use crate::bind::{Binder, Weight};
use crate::scratch::grown;
use crate::{Error, Picks};

/// Smallest sum of a token's weights that they are divided by: 2^-14, the least normal f16.
const SUM_MIN: f32 = 6.103_515_6e-5;

/// The router of one layer.
#[derive(Debug)]
pub(crate) struct Router {
    gate: Weight,           // [experts, hidden]
    bias: Option<Vec<f32>>, // [experts]: for the choice only, not for the weights
    config: ExpertConfig,
}

/// What a router works with.
#[derive(Debug, Default)]
pub(crate) struct RouterScratch {
    scores: Vec<f32>, // [tokens, experts]
    choice: Vec<f32>, // [experts]: scores as they count for the choice
    groups: Vec<f32>, // [groups]
}

/// The name of a layer's selection bias, if it has one: converters wrote it in two ways.
pub(super) fn bias_name(layer: usize, has: impl Fn(&str) -> bool) -> Option<String> {
    let names = [format!("blk.{layer}.exp_probs_b.bias"), format!("blk.{layer}.exp_probs_b")];
    names.into_iter().find(|name| has(name))
}

impl Router {
    pub(crate) fn bind(
        binder: Binder<'_>,
        layer: usize,
        hidden: usize,
        config: &ExpertConfig,
    ) -> Result<Self, Error> {
        let gate =
            binder.matrix(&format!("blk.{layer}.ffn_gate_inp.weight"), config.count, hidden)?;
        let bias = bias_name(layer, |name| binder.has(name));
        let bias = bias.map(|name| binder.vector(&name, config.count)).transpose()?;
        Ok(Self { gate, bias, config: config.clone() })
    }

    /// Chooses for every row of `x` `[tokens, hidden]`.
    pub(crate) fn choose(
        &self,
        cpu: &Cpu,
        x: &mut Inputs,
        scratch: &mut RouterScratch,
        picks: &mut Picks,
    ) {
        let (tokens, experts) = (x.rows(), self.config.count);
        let RouterScratch { scores, choice, groups } = scratch;
        let scores = grown(scores, tokens * experts);
        let columns = Columns::Range { start: 0, len: tokens };
        cpu.multiply(x, &[Product { matrix: self.gate.matrix(), columns }], scores);
        picks.clear(self.config.used);
        for scores in scores.chunks_exact_mut(experts) {
            self.choose_one(scores, choice, groups, picks);
        }
        picks.sort(experts);
    }

    /// `scores` are the router's products for one token.
    fn choose_one(
        &self,
        scores: &mut [f32],
        choice: &mut Vec<f32>,
        groups: &mut Vec<f32>,
        picks: &mut Picks,
    ) {
        match self.config.gate {
            Gate::Softmax => ops::softmax(scores),
            Gate::Sigmoid => scores.iter_mut().for_each(|s| *s = ops::sigmoid(*s)),
        }
        choice.clear();
        choice.extend_from_slice(scores);
        if let Some(bias) = &self.bias {
            choice.iter_mut().zip(bias).for_each(|(c, b)| *c += b);
        }
        self.drop_groups(choice, groups);
        let first = picks.begin_token();
        for _ in 0..self.config.used {
            let best = largest(choice);
            choice[best] = f32::NEG_INFINITY;
            picks.push(best as u32, scores[best]);
        }
        let weights = picks.weights_from(first);
        let sum =
            if self.config.normalize { weights.iter().sum::<f32>().max(SUM_MIN) } else { 1.0 };
        weights.iter_mut().for_each(|w| *w = *w / sum * self.config.scale);
    }

    /// Leaves only the experts of the best groups. A group's score is the sum of its two best
    /// experts' (V3), or without a bias the best one's (V2).
    fn drop_groups(&self, choice: &mut [f32], scores: &mut Vec<f32>) {
        let Some(groups) = self.config.groups else { return };
        let size = choice.len() / groups.count;
        scores.clear();
        scores.extend(choice.chunks_exact(size).map(|group| {
            let [first, second] = two_largest(group);
            if self.bias.is_some() && size > 1 { first + second } else { first }
        }));
        // The best groups are marked by a score that no finite one reaches.
        for _ in 0..groups.used {
            let best = largest(scores);
            scores[best] = f32::NEG_INFINITY;
        }
        let dropped = scores.iter().map(|&score| score != f32::NEG_INFINITY);
        for (group, dropped) in choice.chunks_exact_mut(size).zip(dropped) {
            if dropped {
                group.fill(f32::NEG_INFINITY);
            }
        }
    }
}

/// The index of the largest number; of equal ones, the first.
fn largest(numbers: &[f32]) -> usize {
    let mut best = 0;
    for (i, &number) in numbers.iter().enumerate() {
        if number > numbers[best] {
            best = i;
        }
    }
    best
}

fn two_largest(numbers: &[f32]) -> [f32; 2] {
    numbers.iter().fold([f32::NEG_INFINITY; 2], |[first, second], &number| {
        if number > first { [number, first] } else { [first, second.max(number)] }
    })
}

#[cfg(test)]
mod tests {
    use cachalot_kernels::{Format, Tier};
    use cachalot_store::Bytes;

    use super::super::config::Groups;
    use super::*;

    /// A router whose products are its one input times `logits`.
    fn router(logits: &[f32], bias: Option<&[f32]>, config: &ExpertConfig) -> Router {
        let bytes: Vec<u8> = logits.iter().flat_map(|w| w.to_le_bytes()).collect();
        let shape = (1, logits.len(), 1);
        let gate = Weight::new(Format::F32, shape, Bytes::from(bytes), Vec::new()).unwrap();
        Router { gate, bias: bias.map(<[f32]>::to_vec), config: config.clone() }
    }

    fn choose(router: &Router) -> (Vec<u32>, Vec<f32>) {
        let (cpu, mut x, mut picks) = (Cpu::new(1, Tier::SCALAR), Inputs::new(), Picks::default());
        x.reset(1, 1).fill(1.0);
        router.choose(&cpu, &mut x, &mut RouterScratch::default(), &mut picks);
        let (experts, weights) = picks.of(0);
        (experts.to_vec(), weights.to_vec())
    }

    fn config(count: usize, used: usize) -> ExpertConfig {
        ExpertConfig {
            count,
            used,
            shared: 0,
            width: 1,
            groups: None,
            gate: Gate::Sigmoid,
            normalize: true,
            scale: 1.0,
        }
    }

    #[test]
    fn the_bias_chooses_but_does_not_weigh() {
        let config = ExpertConfig { scale: 2.5, ..config(3, 2) };
        let router = router(&[0.0, 2.0, -2.0], Some(&[0.0, 0.0, 1.0]), &config);
        let (experts, weights) = choose(&router);
        assert_eq!(experts, [2, 1]); // 0.119 + 1 and 0.881 before 0.5
        assert!((weights[0] - 2.5 * 0.119_203).abs() < 1e-5, "{weights:?}");
        assert!((weights[1] - 2.5 * 0.880_797).abs() < 1e-5, "{weights:?}");
    }

    #[test]
    fn groups_are_ranked_by_their_best_two_or_without_bias_by_the_best() {
        let logits = [4.0, -4.0, 1.0, 1.1, 0.0, 0.1];
        let groups = Some(Groups { count: 3, used: 1 });
        let config = ExpertConfig { groups, ..config(6, 2) };
        let (experts, _) = choose(&router(&logits, Some(&[0.0; 6]), &config));
        assert_eq!(experts, [3, 2]);
        let config = ExpertConfig { gate: Gate::Softmax, normalize: false, ..config };
        let (experts, weights) = choose(&router(&logits, None, &config));
        assert_eq!(experts, [0, 1]);
        let sum: f32 = logits.iter().map(|l| l.exp()).sum();
        assert!((weights[0] - 4f32.exp() / sum).abs() < 1e-6);
    }

    #[test]
    fn equal_scores_go_to_the_first_and_nan_ends_nothing() {
        assert_eq!(choose(&router(&[1.0; 4], None, &config(4, 2))).0, [0, 1]);
        assert_eq!(choose(&router(&[f32::NAN; 4], None, &config(4, 2))).0.len(), 2);
        let weights = choose(&router(&[-80.0; 4], None, &config(4, 2))).1;
        assert!(weights.iter().all(|&w| w < 1e-20), "the divisor is bounded below: {weights:?}");
    }
}
