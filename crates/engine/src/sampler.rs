//! Logits -> the next token.
//!
//! The order is logit bias, penalties, DRY, the mask, temperature, top-k, typical-p, top-p, min-p, XTC,
//! then the draw; the temperature comes before top-p because DeepSeek's recommendation was measured so.
//! Ties go to the lower id and sums run in a fixed order, so equal logits and an equal seed give an
//! equal text. What is as long as the vocabulary is in a [`Scratch`] that requests share; a vocabulary of
//! 129,280 is not sorted either, only its head.

use std::cmp::Ordering;
use std::collections::HashMap;

use toktrie::SimpleVob;

use crate::dry::Dry;
use crate::event::TopToken;
use crate::random::SplitMix64;
use crate::sampling::Sampling;

/// How much of the head is sorted first; top-p 0.95 rarely needs more.
const HEAD: usize = 64;

/// Chooses tokens for one answer.
#[derive(Debug)]
pub(crate) struct Sampler {
    sampling: Sampling,
    bias: Vec<(u32, f32)>,
    random: SplitMix64,
    recent: Recent,
    dry: Option<Dry>,
}

/// Buffers of the vocabulary's length, for one row of logits at a time.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    logits: Vec<f32>, // [vocabulary], with bias and penalties
    /// Tokens that may be chosen: first with their logits, later with their weights.
    candidates: Vec<Candidate>, // at most [vocabulary]
}

/// A token that was chosen, with what was asked for beside it.
#[derive(Debug, PartialEq)]
pub(crate) struct Sampled {
    pub(crate) id: u32,
    pub(crate) logprob: Option<f32>,
    pub(crate) top: Vec<TopToken>,
}

/// Why no token can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsampled {
    /// A logit is not a finite number.
    NotFinite,
    /// Mask and bias leave no token.
    Nothing,
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
    pub(crate) fn new(sampling: Sampling, seed: u64, bias: Vec<(u32, f32)>) -> Self {
        let recent = Recent::new(if sampling.penalizes() { sampling.repeat_last_n } else { 0 });
        let dry = Dry::new(&sampling);
        Self { sampling, bias, random: SplitMix64::new(seed), recent, dry }
    }

    /// Takes note of a token of the prompt or the answer, and its bytes, for the penalties.
    pub(crate) fn accept(&mut self, id: u32, bytes: &[u8]) {
        self.recent.push(id);
        if let Some(dry) = &mut self.dry {
            dry.push(id, bytes);
        }
    }

    /// The next token, by logits `[vocabulary]`, among those that `mask` allows; with `logprobs`, its
    /// log probability and that many of the likeliest. It counts as recent only once it is accepted.
    pub(crate) fn sample(
        &mut self,
        scratch: &mut Scratch,
        logits: &[f32],
        mask: Option<&SimpleVob>,
        logprobs: Option<usize>,
    ) -> Result<Sampled, Unsampled> {
        if logits.is_empty() || !all_finite(logits) {
            return Err(Unsampled::NotFinite);
        }
        scratch.logits.clear();
        scratch.logits.extend_from_slice(logits);
        self.adjust(&mut scratch.logits);
        scratch.gather(mask);
        let best = scratch.candidates.iter().copied().min_by(heavier);
        let Some(best) = best.filter(|best| best.weight > f32::NEG_INFINITY) else {
            return Err(Unsampled::Nothing);
        };
        let id = if self.sampling.temperature == 0.0 {
            best.id
        } else {
            scratch.keep_top_k(self.sampling.top_k);
            scratch.weigh(best.weight, self.sampling.temperature);
            scratch.keep_typical(self.sampling.typical_p);
            let kept = scratch.keep_head(&self.sampling);
            self.exclude_top_choices(&mut scratch.candidates[..kept]);
            self.draw(&scratch.candidates[..kept])
        };
        Ok(scratch.reported(id, logits, logprobs))
    }

    /// Bias and penalties.
    fn adjust(&mut self, logits: &mut [f32]) {
        let Sampling { repeat_penalty, presence_penalty, frequency_penalty, .. } = self.sampling;
        for &(id, bias) in &self.bias {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit += bias;
            }
        }
        for (&id, &count) in &self.recent.counts {
            let Some(logit) = logits.get_mut(id as usize) else { continue };
            let repeated =
                if *logit > 0.0 { *logit / repeat_penalty } else { *logit * repeat_penalty };
            *logit = repeated - presence_penalty - frequency_penalty * count as f32;
        }
        if let Some(dry) = &mut self.dry {
            dry.apply(logits);
        }
    }

    /// XTC, as llama.cpp has it: with some probability, of all tokens above the threshold only the
    /// least likely one stays.
    fn exclude_top_choices(&mut self, kept: &mut [Candidate]) {
        let Sampling { xtc_probability, xtc_threshold, .. } = self.sampling;
        if xtc_probability <= 0.0 || xtc_threshold > 0.5 || kept.len() < 2 {
            return;
        }
        if self.random.next_unit() > f64::from(xtc_probability) {
            return;
        }
        let total: f64 = kept.iter().map(|c| f64::from(c.weight)).sum();
        let threshold = total * f64::from(xtc_threshold);
        let above = |candidate: &&Candidate| f64::from(candidate.weight) >= threshold;
        if let Some(least) = kept.iter().filter(above).copied().max_by(heavier) {
            for candidate in kept.iter_mut().filter(|c| f64::from(c.weight) >= threshold) {
                if candidate.id != least.id {
                    candidate.weight = 0.0;
                }
            }
        }
    }

    /// One of the candidates, by their weights. Always costs one random number.
    fn draw(&mut self, kept: &[Candidate]) -> u32 {
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

impl Scratch {
    /// A token that was not sampled; `None` if a logit is not finite.
    pub(crate) fn given(
        &mut self,
        id: u32,
        logits: &[f32],
        logprobs: Option<usize>,
    ) -> Option<Sampled> {
        all_finite(logits).then(|| self.reported(id, logits, logprobs))
    }

    /// A token with the log probabilities that were asked for.
    fn reported(&mut self, id: u32, logits: &[f32], logprobs: Option<usize>) -> Sampled {
        let Some(count) = logprobs else { return Sampled { id, logprob: None, top: Vec::new() } };
        let normalizer = log_sum_exp(logits);
        let top = self.likeliest(logits, count).iter();
        let top = top.map(|c| TopToken { id: c.id, logprob: c.weight - normalizer }).collect();
        Sampled { id, logprob: Some(logits[id as usize] - normalizer), top }
    }

    fn gather(&mut self, mask: Option<&SimpleVob>) {
        self.candidates.clear();
        let candidates = (0..).zip(&self.logits).map(|(id, &weight)| Candidate { id, weight });
        match mask {
            None => self.candidates.extend(candidates),
            Some(mask) => {
                self.candidates
                    .extend(candidates.filter(|candidate| mask.is_allowed(candidate.id)));
            }
        }
    }

    fn keep_top_k(&mut self, k: usize) {
        if k != 0 && k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, heavier);
            self.candidates.truncate(k);
            // A selection leaves both sides in an unspecified order; a sort does not.
            self.candidates.sort_unstable_by(heavier);
        }
    }

    fn weigh(&mut self, highest: f32, temperature: f32) {
        for candidate in &mut self.candidates {
            candidate.weight = ((candidate.weight - highest) / temperature).exp();
        }
    }

    /// Locally typical sampling (Meister et al., 2022): the tokens whose surprise is nearest to the
    /// entropy, up to this sum of probabilities.
    fn keep_typical(&mut self, typical_p: f32) {
        if typical_p >= 1.0 {
            return;
        }
        let total: f64 = self.candidates.iter().map(|c| f64::from(c.weight)).sum();
        let surprise = |c: &Candidate| -(f64::from(c.weight) / total).ln();
        let entropy: f64 = self
            .candidates
            .iter()
            .filter(|c| c.weight > 0.0)
            .map(|c| f64::from(c.weight) / total * surprise(c))
            .sum();
        let distance = |c: &Candidate| (surprise(c) - entropy).abs();
        self.candidates
            .sort_unstable_by(|a, b| distance(a).total_cmp(&distance(b)).then(a.id.cmp(&b.id)));
        let mut sum = 0.0;
        let enough = total * f64::from(typical_p);
        let reached = self.candidates.iter().position(|c| {
            sum += f64::from(c.weight);
            sum > enough
        });
        self.candidates.truncate(reached.map_or(usize::MAX, |last| last + 1));
        self.candidates.sort_unstable_by(heavier);
    }

    /// Brings the candidates that top-p and min-p leave to the front; returns how many they are.
    fn keep_head(&mut self, sampling: &Sampling) -> usize {
        let Sampling { top_p, min_p, .. } = *sampling;
        if top_p >= 1.0 && min_p <= 0.0 {
            return self.candidates.len();
        }
        // Relative to the likeliest, which weighs 1 unless typical-p left it out.
        let highest = self.candidates.iter().map(|c| c.weight).fold(0.0, f32::max);
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
                if !is_first && (sum >= enough || candidate.weight < min_p * highest) {
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

    /// The `count` highest logits, highest first.
    fn likeliest(&mut self, logits: &[f32], count: usize) -> &[Candidate] {
        self.candidates.clear();
        if count > 0 {
            self.candidates.extend((0..).zip(logits).map(|(id, &weight)| Candidate { id, weight }));
            self.keep_top_k(count);
            self.candidates.sort_unstable_by(heavier);
        }
        &self.candidates
    }
}

/// Whether all are finite: the exponent of none is all ones.
pub(crate) fn all_finite(numbers: &[f32]) -> bool {
    const INFINITY: u32 = f32::INFINITY.to_bits();
    numbers.iter().fold(0, |max, x| max.max(x.to_bits() & INFINITY)) < INFINITY
}

/// ln(sum(exp(x))).
fn log_sum_exp(logits: &[f32]) -> f32 {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from((logit - highest).exp())).sum();
    highest + sum.ln() as f32
}

/// The last tokens, and how often each occurs among them.
#[derive(Debug)]
struct Recent {
    ring: Vec<u32>, // at most `window`
    window: usize,
    oldest: usize,
    counts: HashMap<u32, u32>,
}

impl Recent {
    fn new(window: usize) -> Self {
        // A window larger than any context is memory for nothing.
        Self { ring: Vec::new(), window: window.min(1 << 20), oldest: 0, counts: HashMap::new() }
    }

    fn push(&mut self, id: u32) {
        if self.window == 0 {
            return;
        }
        *self.counts.entry(id).or_default() += 1;
        if self.ring.len() < self.window {
            self.ring.push(id);
            return;
        }
        let forgotten = std::mem::replace(&mut self.ring[self.oldest], id);
        self.oldest = (self.oldest + 1) % self.window;
        if let Some(count) = self.counts.get_mut(&forgotten) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&forgotten);
            }
        }
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
        let mut sampler = Sampler::new(sampling.clone(), seed, Vec::new());
        (0..count).map(|_| sample(&mut sampler, logits).unwrap()).collect()
    }

    fn sample(sampler: &mut Sampler, logits: &[f32]) -> Result<u32, Unsampled> {
        sampler.sample(&mut Scratch::default(), logits, None, None).map(|sampled| sampled.id)
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
    }

    #[test]
    fn what_is_not_a_number_never_becomes_one() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in 0..3 {
                let mut logits = [1.0, 2.0, 3.0];
                logits[place] = bad;
                for sampling in [plain(), Sampling { temperature: 0.0, ..plain() }] {
                    let mut sampler = Sampler::new(sampling, 1, Vec::new());
                    assert_eq!(sample(&mut sampler, &logits), Err(Unsampled::NotFinite));
                }
            }
        }
        let mut sampler = Sampler::new(plain(), 1, Vec::new());
        assert_eq!(sample(&mut sampler, &[]), Err(Unsampled::NotFinite));
    }

    #[test]
    fn masks_and_bias_forbid_and_prefer() {
        let greedy = Sampling { temperature: 0.0, ..plain() };
        let logits = [1.0, 3.0, 2.0, 0.0];
        let mut mask = SimpleVob::alloc(4);
        mask.allow_token(0);
        mask.allow_token(3);
        let mut scratch = Scratch::default();
        for sampling in [greedy.clone(), plain()] {
            let mut sampler = Sampler::new(sampling, 1, Vec::new());
            for _ in 0..20 {
                let sampled = sampler.sample(&mut scratch, &logits, Some(&mask), None).unwrap();
                assert!([0, 3].contains(&sampled.id));
            }
            let none = SimpleVob::alloc(4);
            let nothing = sampler.sample(&mut scratch, &logits, Some(&none), None);
            assert_eq!(nothing, Err(Unsampled::Nothing));
        }
        let mut biased = Sampler::new(greedy, 1, vec![(3, 10.0), (1, f32::NEG_INFINITY)]);
        assert_eq!(sample(&mut biased, &logits), Ok(3));
        let mut forbidden =
            Sampler::new(plain(), 1, (0..4).map(|id| (id, f32::NEG_INFINITY)).collect());
        assert_eq!(sample(&mut forbidden, &logits), Err(Unsampled::Nothing));
    }

    #[test]
    fn log_probabilities_are_the_models_own() {
        let logits = [2.0, 1.0, 0.0, -1.0];
        let all = softmax(&logits, 1.0);
        let sampling = Sampling { temperature: 0.3, top_k: 1, ..plain() };
        let mut sampler = Sampler::new(sampling, 1, vec![(2, 100.0)]);
        let sampled = sampler.sample(&mut Scratch::default(), &logits, None, Some(2)).unwrap();
        assert_eq!(sampled.id, 2);
        let near = |logprob: f32, id: usize| (f64::from(logprob) - all[id].ln()).abs() < 1e-5;
        assert!(near(sampled.logprob.unwrap(), 2));
        assert_eq!(sampled.top.iter().map(|top| top.id).collect::<Vec<_>>(), [0, 1]);
        assert!(near(sampled.top[0].logprob, 0) && near(sampled.top[1].logprob, 1));
    }

    #[test]
    fn xtc_leaves_the_least_likely_of_the_likely_tokens() {
        let logits = [3.0, 2.9, 2.8, -5.0];
        let xtc = |xtc_probability| Sampling { xtc_probability, xtc_threshold: 0.1, ..plain() };
        assert!(sample_many(&xtc(1.0), 1, &logits, 50).iter().all(|id| [2, 3].contains(id)));
        let half = sample_many(&xtc(0.5), 1, &logits, 400);
        let top = half.iter().filter(|id| **id < 2).count();
        assert!((80..200).contains(&top), "{top}");
        let single = [9.0, 0.0, 0.0];
        assert!(sample_many(&xtc(1.0), 1, &single, 20).contains(&0), "one likely token stays");
    }

    #[test]
    fn typical_p_keeps_what_is_about_as_surprising_as_expected() {
        // One token of 0.5 and 50 of 0.01: the entropy is 2.65, near to neither.
        let mut logits = vec![0.01_f32.ln(); 51];
        logits[0] = 0.5_f32.ln();
        let typical = Sampling { typical_p: 0.3, ..plain() };
        let drawn = sample_many(&typical, 1, &logits, 200);
        assert!(drawn.iter().all(|id| *id == 0 || *id <= 31), "{drawn:?}");
        assert_eq!(sample_many(&Sampling { typical_p: 1.0, ..plain() }, 1, &[9.0, 0.0], 1), [0]);
    }

    proptest! {
        /// As llama.cpp says it: sorted by probability, what is before the last one that reaches the
        /// threshold is removed.
        #[test]
        fn xtc_removes_what_the_definition_removes(
            weights in prop::collection::vec(0.001_f32..1.0, 1..20),
            threshold in 0.0_f32..0.6,
        ) {
            let sampling =
                Sampling { xtc_probability: 1.0, xtc_threshold: threshold, ..plain() };
            let candidate = |(id, &weight)| Candidate { id, weight };
            let mut fast: Vec<Candidate> = (0..).zip(&weights).map(candidate).collect();
            Sampler::new(sampling, 1, Vec::new()).exclude_top_choices(&mut fast);
            let mut slow: Vec<Candidate> = (0..).zip(&weights).map(candidate).collect();
            slow.sort_by(heavier);
            let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
            let reaches = |c: &Candidate| f64::from(c.weight) / total >= f64::from(threshold);
            let kept = slow.iter().take_while(|c| reaches(c)).count();
            let removed = if threshold > 0.5 || slow.len() < 2 { 0 } else { kept.saturating_sub(1) };
            let mut expected: Vec<u32> = slow[removed..].iter().map(|c| c.id).collect();
            expected.sort_unstable();
            let left = fast.iter().filter(|c| c.weight > 0.0).map(|c| c.id);
            prop_assert_eq!(left.collect::<Vec<u32>>(), expected);
        }
    }

    #[test]
    fn dry_penalizes_what_would_continue_a_repetition() {
        let dry = Sampling { dry_multiplier: 1.0, temperature: 0.0, ..plain() };
        let next = |tokens: &[u32], sampling: &Sampling| {
            let mut sampler = Sampler::new(sampling.clone(), 1, Vec::new());
            for &id in tokens {
                sampler.accept(id, if id == 9 { b".\n" } else { b"x" });
            }
            let mut logits = [0.0; 10];
            (logits[3], logits[4]) = (1.5, 0.4);
            sample(&mut sampler, &logits).unwrap()
        };
        // `1 2` was followed by 3: the penalty is 1 * 1.75^(2 - 2) = 1, and 1.5 - 1 > 0.4.
        assert_eq!(next(&[1, 2, 3, 5, 1, 2], &dry), 3);
        // `0 1 2` was: 1.75.
        assert_eq!(next(&[0, 1, 2, 3, 5, 0, 1, 2], &dry), 4);
        assert_eq!(
            next(&[0, 1, 2, 3, 5, 0, 1, 2], &Sampling { dry_multiplier: 0.0, ..dry.clone() }),
            3
        );
        assert_eq!(next(&[0, 1, 2, 3, 5, 0, 9, 1, 2], &dry), 3, "a breaker ends a repetition");
        assert_eq!(next(&[0, 9, 2, 3, 5, 0, 9, 2], &dry), 3);
        let short = Sampling { dry_penalty_last_n: 4, ..dry };
        assert_eq!(next(&[0, 1, 2, 3, 5, 0, 1, 2], &short), 3, "too long ago");
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
            let sampling = Sampling { temperature: 0.0, ..sampling };
            let mut sampler = Sampler::new(sampling, 0, Vec::new());
            recent.iter().for_each(|&id| sampler.accept(id, b""));
            sample(&mut sampler, &[2.0, 1.5, -1.0]).unwrap()
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
        fn finite_logits_give_a_token_of_the_vocabulary_and_others_an_error(
            logits in prop::collection::vec(any::<f32>(), 0..50),
            temperature in prop_oneof![Just(0.0f32), 1e-6f32..100.0],
            recent in prop::collection::vec(0u32..60, 0..30),
        ) {
            let sampling = Sampling { temperature, repeat_penalty: 1.1, ..Sampling::default() };
            let mut sampler = Sampler::new(sampling, 1, Vec::new());
            recent.iter().for_each(|&id| sampler.accept(id, b""));
            match sample(&mut sampler, &logits) {
                Ok(id) => prop_assert!((id as usize) < logits.len()),
                Err(error) => prop_assert_eq!(error, Unsampled::NotFinite),
            }
            let finite = !logits.is_empty() && logits.iter().all(|logit| logit.is_finite());
            prop_assert_eq!(sample(&mut sampler, &logits).is_ok(), finite);
        }
    }
}
