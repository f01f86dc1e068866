//! Logits -> the next token.
//!
//! The order is penalties, temperature, top-k, top-p, min-p, then the draw; the temperature comes
//! before top-p because DeepSeek's recommendation was measured so. Ties go to the lower id and sums
//! run in a fixed order, so equal logits and an equal seed give an equal text. After construction
//! nothing is allocated: a vocabulary of 129,280 is not sorted either, only its head.

use std::cmp::Ordering;

use crate::random::SplitMix64;
use crate::sampling::Sampling;

/// How much of the head is sorted first; top-p 0.95 rarely needs more.
const HEAD: usize = 64;

/// Chooses tokens for one answer.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: SplitMix64,
    /// Tokens that may be chosen: first with their logits, later with their weights.
    candidates: Vec<Candidate>, // [vocabulary]
    recent: Recent,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: u32,
    /// The logit, then exp((logit - highest) / temperature): the likeliest token weighs 1.
    weight: f32,
}

/// Heavier first, then the lower id: a total order, as no weight is NaN.
fn heavier(a: &Candidate, b: &Candidate) -> Ordering {
    b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id))
}

impl Sampler {
    /// A sampler for logits of `vocabulary` tokens.
    pub fn new(sampling: Sampling, seed: u64, vocabulary: usize) -> Self {
        let recent = Recent::new(sampling.repeat_last_n, vocabulary);
        let candidates = Vec::with_capacity(vocabulary);
        Self { sampling, random: SplitMix64::new(seed), candidates, recent }
    }

    /// Takes note of a token of the prompt or the answer, for the penalties.
    pub fn accept(&mut self, id: u32) {
        self.recent.push(id);
    }

    /// The next token, by logits `[vocabulary]`; `None` if no logit is finite, which only a damaged
    /// file brings about. The token counts as recent only once it is accepted.
    pub fn sample(&mut self, logits: &[f32]) -> Option<u32> {
        self.gather(logits);
        let best = self.candidates.iter().copied().min_by(heavier)?;
        if !best.weight.is_finite() {
            return None;
        }
        if self.sampling.temperature == 0.0 {
            return Some(best.id);
        }
        self.keep_top_k();
        self.weigh(best.weight);
        let kept = self.keep_head();
        Some(self.draw(kept))
    }

    /// Candidates with their logits, penalties applied. NaN is no reason to be chosen.
    fn gather(&mut self, logits: &[f32]) {
        let Sampling { repeat_penalty, presence_penalty, frequency_penalty, .. } = self.sampling;
        self.candidates.clear();
        self.candidates.extend((0..).zip(logits).map(|(id, &logit)| {
            let count = self.recent.count(id);
            let weight = match count {
                _ if logit.is_nan() => f32::NEG_INFINITY,
                0 => logit,
                _ => {
                    let repeated =
                        if logit > 0.0 { logit / repeat_penalty } else { logit * repeat_penalty };
                    repeated - presence_penalty - frequency_penalty * count as f32
                }
            };
            Candidate { id, weight }
        }));
    }

    fn keep_top_k(&mut self) {
        let k = self.sampling.top_k;
        if k != 0 && k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, heavier);
            self.candidates.truncate(k);
            // How a selection leaves its sides in order is the library's secret; a sort has none.
            self.candidates.sort_unstable_by(heavier);
        }
    }

    fn weigh(&mut self, highest: f32) {
        let temperature = self.sampling.temperature;
        for candidate in &mut self.candidates {
            candidate.weight = ((candidate.weight - highest) / temperature).exp();
        }
    }

    /// Brings the candidates that top-p and min-p leave to the front; returns how many they are.
    fn keep_head(&mut self) -> usize {
        let Sampling { top_p, min_p, .. } = self.sampling;
        if top_p >= 1.0 && min_p <= 0.0 {
            return self.candidates.len();
        }
        let total: f64 = self.candidates.iter().map(|c| f64::from(c.weight)).sum();
        let enough = total * f64::from(top_p);
        let (mut sorted, mut step, mut sum) = (0, HEAD, 0.0);
        loop {
            let rest = &mut self.candidates[sorted..];
            let step_len = step.min(rest.len());
            if step_len < rest.len() {
                rest.select_nth_unstable_by(step_len, heavier);
            }
            rest[..step_len].sort_unstable_by(heavier);
            for (i, candidate) in rest[..step_len].iter().enumerate() {
                let is_first = sorted + i == 0;
                if !is_first && (sum >= enough || candidate.weight < min_p) {
                    return sorted + i;
                }
                sum += f64::from(candidate.weight);
            }
            sorted += step_len;
            step *= 8;
            if sorted == self.candidates.len() {
                return sorted;
            }
        }
    }

    /// One of the first `kept` candidates, by their weights. Always costs one random number.
    fn draw(&mut self, kept: usize) -> u32 {
        let kept = &self.candidates[..kept];
        let total: f64 = kept.iter().map(|c| f64::from(c.weight)).sum();
        let target = self.random.next_unit() * total;
        let mut sum = 0.0;
        let mut chosen = kept[0].id;
        for candidate in kept {
            if candidate.weight > 0.0 {
                chosen = candidate.id;
                sum += f64::from(candidate.weight);
                if sum > target {
                    break;
                }
            }
        }
        chosen
    }
}

/// The last tokens, and how often each occurs among them.
#[derive(Debug)]
struct Recent {
    ring: Vec<u32>, // at most `window`
    window: usize,
    oldest: usize,
    counts: Vec<u32>, // [vocabulary]
}

impl Recent {
    fn new(window: usize, vocabulary: usize) -> Self {
        // A window larger than any context is memory for nothing.
        let window = window.min(1 << 20);
        let ring = Vec::with_capacity(window);
        Self { ring, window, oldest: 0, counts: vec![0; vocabulary] }
    }

    fn count(&self, id: u32) -> u32 {
        self.counts.get(id as usize).copied().unwrap_or(0)
    }

    fn push(&mut self, id: u32) {
        if self.window == 0 || id as usize >= self.counts.len() {
            return;
        }
        self.counts[id as usize] += 1;
        if self.ring.len() < self.window {
            self.ring.push(id);
            return;
        }
        let forgotten = std::mem::replace(&mut self.ring[self.oldest], id);
        self.counts[forgotten as usize] -= 1;
        self.oldest = (self.oldest + 1) % self.window;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain() -> Sampling {
        Sampling { temperature: 1.0, top_p: 1.0, ..Sampling::default() }
    }

    fn sample_many(sampling: &Sampling, seed: u64, logits: &[f32], count: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling.clone(), seed, logits.len());
        (0..count).map(|_| sampler.sample(logits).unwrap()).collect()
    }

    /// Probabilities after the temperature, the straightforward way.
    fn softmax(logits: &[f32], temperature: f32) -> Vec<f64> {
        let max = logits.iter().copied().fold(f32::MIN, f32::max);
        let weights: Vec<f64> =
            logits.iter().map(|l| f64::from((l - max) / temperature).exp()).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter().map(|w| w / sum).collect()
    }

    #[test]
    fn greedy_takes_the_highest_logit_and_of_equals_the_first() {
        let greedy = Sampling { temperature: 0.0, ..plain() };
        assert_eq!(sample_many(&greedy, 1, &[0.0, 3.0, 3.0, -1.0], 2), [1, 1]);
        assert_eq!(sample_many(&greedy, 1, &[f32::NAN, -2.0, f32::NAN], 1), [1]);
    }

    #[test]
    fn without_a_finite_logit_there_is_no_token() {
        for logits in [[f32::NAN; 3], [f32::NEG_INFINITY; 3], [f32::INFINITY; 3]] {
            assert_eq!(Sampler::new(plain(), 1, 3).sample(&logits), None);
        }
        assert_eq!(Sampler::new(plain(), 1, 0).sample(&[]), None);
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let logits = [2.0, 1.0, 0.0, -1.0, -2.0];
        for temperature in [0.6, 1.0, 2.0] {
            let sampling = Sampling { temperature, ..plain() };
            let mut counts = [0.0; 5];
            for id in sample_many(&sampling, 42, &logits, 20_000) {
                counts[id as usize] += 1.0 / 20_000.0;
            }
            for (count, probability) in counts.iter().zip(softmax(&logits, temperature)) {
                assert!((count - probability).abs() < 0.015, "{count} for {probability}");
            }
        }
    }

    #[test]
    fn the_head_need_not_be_short() {
        // Nearly flat: top-p 0.9 has to go far beyond the part that is sorted first.
        let logits: Vec<f32> = (0..5000).map(|i| i as f32 * 1e-6).collect();
        let sampling = Sampling { top_p: 0.9, ..plain() };
        let drawn = sample_many(&sampling, 3, &logits, 500);
        assert!(drawn.iter().all(|&id| id >= 490), "the least likely tenth is out");
        assert!(drawn.iter().any(|&id| id < 1000), "but what lies next to it is not");
    }

    #[test]
    fn penalties_push_recent_tokens_down_and_forget_old_ones() {
        let penalized = |sampling: Sampling, recent: &[u32]| {
            let mut sampler = Sampler::new(Sampling { temperature: 0.0, ..sampling }, 0, 3);
            recent.iter().for_each(|&id| sampler.accept(id));
            sampler.sample(&[2.0, 1.5, -1.0]).unwrap()
        };
        let with = |repeat, presence, frequency, window| Sampling {
            repeat_penalty: repeat,
            presence_penalty: presence,
            frequency_penalty: frequency,
            repeat_last_n: window,
            ..plain()
        };
        assert_eq!(penalized(with(1.0, 0.0, 0.0, 64), &[0, 0]), 0);
        assert_eq!(penalized(with(1.5, 0.0, 0.0, 64), &[0]), 1, "2 / 1.5 < 1.5");
        assert_eq!(penalized(with(1.0, 0.6, 0.0, 64), &[0, 0]), 1);
        assert_eq!(penalized(with(1.0, 0.0, 0.3, 64), &[0]), 0, "2 - 0.3 > 1.5");
        assert_eq!(penalized(with(1.0, 0.0, 0.3, 64), &[0, 0]), 1, "2 - 0.6 < 1.5");
        assert_eq!(penalized(with(1.5, 0.0, 0.0, 2), &[0, 2, 2]), 0, "out of the window");
        assert_eq!(penalized(with(1.5, 0.0, 0.0, 0), &[0]), 0, "no window");
        assert_eq!(penalized(with(3.0, 0.0, 0.0, 64), &[0, 1, 2]), 0, "negative logits sink too");
    }

    #[test]
    fn a_seed_gives_the_same_tokens_and_another_seed_others() {
        let logits: Vec<f32> = (0..300).map(|i| ((i * 37) % 101) as f32 / 40.0).collect();
        let default = Sampling::default();
        assert_eq!(sample_many(&default, 5, &logits, 9), sample_many(&default, 5, &logits, 9));
        assert_ne!(sample_many(&default, 5, &logits, 9), sample_many(&default, 6, &logits, 9));
        // A promise to users: these change only with a major version.
        assert_eq!(sample_many(&default, 5, &logits, 5), [229, 92, 281, 90, 150]);
    }

    proptest! {
        #[test]
        fn nothing_outside_of_the_filters_is_ever_drawn(
            logits in prop::collection::vec(-8.0f32..8.0, 1..200),
            temperature in 0.1f32..3.0,
            top_p in 0.0f32..1.0,
            top_k in 0usize..50,
            min_p in 0.0f32..1.0,
            seed in any::<u64>(),
        ) {
            let sampling = Sampling { temperature, top_p, top_k, min_p, ..plain() };
            let mut order: Vec<usize> = (0..logits.len()).collect();
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
            if top_k > 0 {
                order.truncate(top_k);
            }
            let all = softmax(&logits, temperature);
            let total: f64 = order.iter().map(|&id| all[id]).sum();
            let highest = all[order[0]];
            for id in sample_many(&sampling, seed, &logits, 20) {
                let rank = order.iter().position(|&o| o == id as usize);
                prop_assert!(rank.is_some(), "{id} is not among the top k");
                let before: f64 = order[..rank.unwrap()].iter().map(|&o| all[o]).sum();
                let is_first = rank == Some(0);
                prop_assert!(is_first || before / total < f64::from(top_p) + 1e-5);
                prop_assert!(is_first || all[id as usize] / highest > f64::from(min_p) - 1e-5);
            }
        }

        #[test]
        fn any_logits_give_a_token_of_the_vocabulary_or_none(
            logits in prop::collection::vec(any::<f32>(), 0..50),
            temperature in prop_oneof![Just(0.0f32), 1e-6f32..100.0],
            recent in prop::collection::vec(0u32..60, 0..30),
        ) {
            let sampling = Sampling { temperature, repeat_penalty: 1.1, ..Sampling::default() };
            let mut sampler = Sampler::new(sampling, 1, logits.len());
            recent.iter().for_each(|&id| sampler.accept(id));
            if let Some(id) = sampler.sample(&logits) {
                prop_assert!((id as usize) < logits.len());
                prop_assert!(!logits[id as usize].is_nan());
            }
        }
    }
}
