//! Logits -> the next token.
//!
//! The order is logit bias, penalties, DRY, the mask, temperature, top-k, typical-p, top-p, min-p,
//! XTC, then the draw; the temperature comes before top-p because DeepSeek's recommendation was
//! measured so. Ties go to the lower id and sums run in a fixed order, so equal logits and an equal
//! seed give an equal text. What is as long as the vocabulary is in a [`Scratch`] that requests
//! share; a vocabulary of 129,280 is not sorted either, only its head.

use std::cmp::Ordering;
use std::collections::HashMap;

use toktrie::SimpleVob;

use crate::dry::Dry;
use crate::event::TopToken;
use crate::random::SplitMix64;
use crate::request::Sampling;

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

    /// The next token, by logits `[vocabulary]`, among those that `mask` allows; with `logprobs`,
    /// its log probability and that many of the likeliest. It counts as recent only once it is
    /// accepted.
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
mod tests;
