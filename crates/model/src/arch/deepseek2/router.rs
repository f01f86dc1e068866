//! The experts of a token and their weights, as in DeepSeek-V3's `inference/model.py`.
//!
//! Everything is f32, and one token's choice never depends on another's.

use cachalot_kernels::{Cpu, Inputs, Product, Tokens, ops};

use super::config::{ExpertConfig, Gate, bias_name};
use crate::bind::{Binder, Weight};
use crate::scratch::ensure_len;
use crate::{Error, Precision, Routing};

/// Smallest sum of a token's weights that they are divided by: 2^-14, the least normal f16.
const SUM_MIN: f32 = 6.103_515_6e-5;

/// In cache-aware routing, the best experts of a token that are never replaced (J), and the factor
/// on the number of experts that are considered (Cache-conditional experts, arXiv 2412.00099,
/// section 3).
const ALWAYS_KEPT: usize = 2;
const CANDIDATES: f64 = 1.5;
/// The share of experts that may be replaced: with more, measured models grew worse.
const REPLACED_SHARE: f64 = 0.05;
/// Replacements that can be saved up.
const REPLACED_MAX: f64 = 8.0;

/// The router of one layer.
#[derive(Debug)]
pub(crate) struct Router {
    gate: Weight,           // [experts, hidden]
    bias: Option<Vec<f32>>, // [experts]: for the choice only, not for the weights
    config: ExpertConfig,
}

/// How to choose.
#[derive(Clone, Copy)]
pub(crate) struct Choice<'a> {
    pub(crate) precision: Precision,
    /// Experts that replace others which score little better: this changes results.
    pub(crate) preferred: Option<&'a dyn Fn(usize) -> bool>,
    /// Rows that get no experts.
    pub(crate) skipped: Option<&'a dyn Fn(usize) -> bool>,
}

/// The memory of a router.
#[derive(Debug, Default)]
pub(crate) struct RouterScratch {
    scores: Vec<f32>, // [rows, experts]
    ranked: Vec<Ranked>,
    /// Experts that may still be replaced.
    replaceable: f64,
}

/// The best experts of a row.
#[derive(Debug, Default)]
struct Ranked {
    scores: Vec<f32>, // [experts]
    choice: Vec<f32>, // [experts]: scores as they count for the choice
    groups: Vec<f32>, // [groups]
    best: Vec<usize>, // [considered]: the best first
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

    /// Chooses for every row of `x` `[rows, hidden]`.
    pub(crate) fn choose(
        &self,
        cpu: &Cpu,
        choice: Choice<'_>,
        x: Inputs<'_>,
        scratch: &mut RouterScratch,
        routing: &mut Routing,
    ) {
        let (rows, experts) = (x.rows(), self.config.count);
        let mut all = std::mem::take(&mut scratch.scores);
        let scores = ensure_len(&mut all, rows * experts);
        let matrix = choice.precision.exacting(self.gate.matrix());
        let product = Product { matrix, tokens: Tokens::Range { start: 0, len: rows } };
        cpu.multiply(x, &[product], scores);
        let used = self.config.used;
        let considered = match choice.preferred {
            Some(_) => ((used as f64 * CANDIDATES) as usize).min(self.selectable()),
            None => used,
        };
        let mut ranked = std::mem::take(&mut scratch.ranked);
        ranked.resize_with(ranked.len().max(rows), Ranked::default);
        let cost = experts * considered;
        cpu.for_costly_rows(&mut ranked[..rows], 1, cost, |row, ranked| {
            self.rank(&scores[row * experts..][..experts], considered, &mut ranked[0]);
        });
        routing.clear(used);
        for (row, ranked) in ranked[..rows].iter_mut().enumerate() {
            if choice.skipped.is_some_and(|skipped| skipped(row)) {
                routing.push_none();
            } else {
                self.take(ranked, choice.preferred, &mut scratch.replaceable, routing);
            }
        }
        (scratch.scores, scratch.ranked) = (all, ranked);
        routing.sort(experts);
    }

    /// Scores the experts of one row, whose router's products are `logits`, and finds the best.
    fn rank(&self, logits: &[f32], considered: usize, ranked: &mut Ranked) {
        let Ranked { scores, choice, groups, best } = ranked;
        scores.clear();
        scores.extend_from_slice(logits);
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
        best.clear();
        for _ in 0..considered {
            let next = largest(choice);
            choice[next] = f32::NEG_INFINITY;
            best.push(next);
        }
    }

    /// Adds the experts of one row and their weights.
    fn take(
        &self,
        ranked: &mut Ranked,
        preferred: Option<&dyn Fn(usize) -> bool>,
        replaceable: &mut f64,
        routing: &mut Routing,
    ) {
        let Ranked { scores, best, .. } = ranked;
        let used = self.config.used;
        if let Some(preferred) = preferred {
            *replaceable = (*replaceable + REPLACED_SHARE * used as f64).min(REPLACED_MAX);
            let replaced = prefer(best, used, *replaceable as usize, preferred);
            *replaceable -= replaced as f64;
            routing.note_replaced(replaced);
        }
        let first = routing.begin_row();
        best.iter().take(used).for_each(|&expert| routing.push(expert as u32, scores[expert]));
        let weights = routing.weights_from(first);
        let sum =
            if self.config.normalize { weights.iter().sum::<f32>().max(SUM_MIN) } else { 1.0 };
        weights.iter_mut().for_each(|w| *w = *w / sum * self.config.scale);
    }

    /// Experts that a token can choose from.
    fn selectable(&self) -> usize {
        let count = self.config.count;
        self.config.groups.map_or(count, |groups| count / groups.count * groups.used)
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

/// Reorders `best`, experts from the best on, so that the first `used` are `preferred` ones, except
/// the very best. Returns how many were replaced, at most `most`.
fn prefer(
    best: &mut [usize],
    used: usize,
    most: usize,
    preferred: &dyn Fn(usize) -> bool,
) -> usize {
    let mut replaced = 0;
    // From the worst on, each that is not preferred gives way to the best of the rest that is.
    for at in (ALWAYS_KEPT.min(used)..used).rev() {
        if replaced == most {
            break;
        }
        if preferred(best[at]) {
            continue;
        }
        let Some(other) = (used + replaced..best.len()).find(|&other| preferred(best[other]))
        else {
            break;
        };
        best.swap(at, other);
        best.swap(used + replaced, other);
        replaced += 1;
    }
    replaced
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
    use cachalot_kernels::{Activations, Format, Tier};
    use cachalot_store::Bytes;

    use super::super::config::Groups;
    use super::*;
    use crate::seam::Phase;

    const DECODE: Precision = Precision { phase: Phase::Decode, reproducible: false };

    /// A router whose products are its one input times `logits`.
    fn router(logits: &[f32], bias: Option<&[f32]>, config: &ExpertConfig) -> Router {
        let bytes: Vec<u8> = logits.iter().flat_map(|w| w.to_le_bytes()).collect();
        let shape = (1, logits.len(), 1);
        let gate = Weight::new(Format::F32, shape, Bytes::from(bytes), Vec::new()).unwrap();
        Router { gate, bias: bias.map(<[f32]>::to_vec), config: config.clone() }
    }

    fn choose(router: &Router) -> (Vec<u32>, Vec<f32>) {
        let (cpu, mut x, mut routing) =
            (Cpu::new(1, Tier::SCALAR), Activations::new(), Routing::default());
        x.reset(1, 1).fill(1.0);
        let choice = Choice { precision: DECODE, preferred: None, skipped: None };
        let x = Inputs::from(&mut x);
        router.choose(&cpu, choice, x, &mut RouterScratch::default(), &mut routing);
        let (experts, weights) = routing.of(0);
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
    fn what_is_at_hand_replaces_the_worst_picks_but_never_the_best() {
        let router = router(&[6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0, -1.0], None, &config(8, 4));
        let (cpu, mut x, mut routing) =
            (Cpu::new(1, Tier::SCALAR), Activations::new(), Routing::default());
        let mut choose = |is_resident: &[usize], replaceable: f64| {
            x.reset(1, 1).fill(1.0);
            let preferred = |expert: usize| is_resident.contains(&expert);
            let scratch = &mut RouterScratch { replaceable, ..RouterScratch::default() };
            let choice = Choice { precision: DECODE, preferred: Some(&preferred), skipped: None };
            router.choose(&cpu, choice, Inputs::from(&mut x), scratch, &mut routing);
            let (experts, weights) = routing.of(0);
            assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-6, "weights of those picked");
            (experts.to_vec(), routing.replaced().unwrap())
        };
        assert_eq!(choose(&[], 4.0), (vec![0, 1, 2, 3], 0), "nothing to prefer");
        assert_eq!(choose(&[0, 1, 2, 3, 4, 5], 4.0), (vec![0, 1, 2, 3], 0), "all are there");
        assert_eq!(choose(&[5], 4.0), (vec![0, 1, 2, 5], 1), "the worst pick gives way");
        assert_eq!(choose(&[4, 5], 4.0), (vec![0, 1, 5, 4], 2), "the two best do not");
        assert_eq!(choose(&[3, 4, 5], 4.0), (vec![0, 1, 4, 3], 1), "what is at hand stays");
        assert_eq!(choose(&[4, 5], 1.0), (vec![0, 1, 2, 4], 1), "only so many");
        assert_eq!(choose(&[4, 5], 0.0), (vec![0, 1, 2, 3], 0), "or none");
        assert_eq!(choose(&[6, 7], 4.0), (vec![0, 1, 2, 3], 0), "too far down to be looked at");
    }

    #[test]
    fn equal_scores_go_to_the_first_and_nan_ends_nothing() {
        assert_eq!(choose(&router(&[1.0; 4], None, &config(4, 2))).0, [0, 1]);
        assert_eq!(choose(&router(&[f32::NAN; 4], None, &config(4, 2))).0.len(), 2);
        let weights = choose(&router(&[-80.0; 4], None, &config(4, 2))).1;
        assert!(weights.iter().all(|&w| w < 1e-20), "the divisor is bounded below: {weights:?}");
    }
}
