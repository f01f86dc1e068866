//! DRY ("don't repeat yourself"): penalizes tokens that would continue a repetition of earlier
//! text, the more, the longer it already is. As llama.cpp has it (`llama_sampler_dry`), by p-e-w.

use std::collections::HashMap;

use crate::request::Sampling;

/// Bytes of a breaker that count; llama.cpp cuts them there, too.
const BREAKER_MAX: usize = 40;

/// The tokens of a request, and how far a repetition may reach back.
#[derive(Debug)]
pub(crate) struct Dry {
    multiplier: f32,
    base: f32,
    allowed: usize,
    window: usize,
    breakers: Vec<Vec<u8>>,
    tokens: Vec<u32>,
    /// The last bytes, in which a breaker may have begun.
    tail: Vec<u8>,
    /// Tokens after the last breaker.
    since_breaker: usize,
    lengths: Vec<usize>, // of common prefixes, see `apply`
    longest: HashMap<u32, usize>,
}

impl Dry {
    /// `None` if it is off.
    pub(crate) fn new(sampling: &Sampling) -> Option<Self> {
        let is_on = sampling.dry_multiplier != 0.0
            && sampling.dry_base >= 1.0
            && sampling.dry_penalty_last_n != 0;
        let breakers = sampling.dry_sequence_breakers.iter().filter(|breaker| !breaker.is_empty());
        is_on.then(|| Self {
            multiplier: sampling.dry_multiplier,
            base: sampling.dry_base,
            allowed: sampling.dry_allowed_length,
            // -1 is the whole context.
            window: usize::try_from(sampling.dry_penalty_last_n).unwrap_or(usize::MAX),
            breakers: breakers.map(|breaker| breaker.bytes().take(BREAKER_MAX).collect()).collect(),
            tokens: Vec::new(),
            tail: Vec::new(),
            since_breaker: 0,
            lengths: Vec::new(),
            longest: HashMap::new(),
        })
    }

    /// Takes note of the next token.
    pub(crate) fn push(&mut self, id: u32, bytes: &[u8]) {
        self.tokens.push(id);
        let before = self.tail.len();
        self.tail.extend_from_slice(bytes);
        let ends_here = |breaker: &Vec<u8>| {
            let from = (before + 1).saturating_sub(breaker.len());
            self.tail[from..].windows(breaker.len()).any(|window| window == breaker)
        };
        let broken = !bytes.is_empty() && self.breakers.iter().any(ends_here);
        self.since_breaker = if broken { 0 } else { self.since_breaker + 1 };
        let surplus = self.tail.len().saturating_sub(BREAKER_MAX);
        self.tail.drain(..surplus);
    }

    /// Lowers the logits `[vocabulary]` of tokens that would continue a repetition.
    pub(crate) fn apply(&mut self, logits: &mut [f32]) {
        let count = self.tokens.len().min(self.window);
        let limit = self.since_breaker.min(count);
        if count <= self.allowed || limit < self.allowed {
            return;
        }
        // Backwards, the text's end is a prefix; its common prefix with each earlier place is how
        // long a repetition the token after that place would continue (Gusfield's Z algorithm).
        let recent = &self.tokens[self.tokens.len() - count..];
        let backwards = |i: usize| recent[count - 1 - i];
        self.lengths.clear();
        self.lengths.resize(count, 0);
        let (mut left, mut right) = (0, 0);
        for i in 1..count {
            let mut length = if i < right { self.lengths[i - left].min(right - i) } else { 0 };
            while i + length < count && backwards(length) == backwards(i + length) {
                length += 1;
            }
            self.lengths[i] = length;
            if i + length > right {
                (left, right) = (i, i + length);
            }
        }
        self.longest.clear();
        for i in 1..count {
            let length = self.lengths[i].min(limit);
            if length >= self.allowed {
                let longest = self.longest.entry(backwards(i - 1)).or_default();
                *longest = length.max(*longest);
            }
        }
        for (&id, &length) in &self.longest {
            if let Some(logit) = logits.get_mut(id as usize) {
                // Beyond all logits is enough; more would not be finite.
                let power = self.base.powf((length - self.allowed) as f32).min(1e30);
                *logit -= self.multiplier * power;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The penalties of llama.cpp, read off their definition: the token after an earlier place
    /// continues a repetition as long as the texts before that place and before the end agree, up
    /// to the last breaker; each costs `multiplier · base ^ (length - allowed)`, by the longest
    /// such repetition.
    fn slowly(sampling: &Sampling, tokens: &[u32], breaker: u32, logits: &mut [f32]) {
        let allowed = sampling.dry_allowed_length;
        let window = usize::try_from(sampling.dry_penalty_last_n).unwrap_or(usize::MAX);
        let recent = &tokens[tokens.len().saturating_sub(window)..];
        let n = recent.len();
        let limit = recent.iter().rev().position(|token| *token == breaker).unwrap_or(n);
        if n <= allowed || limit < allowed {
            return;
        }
        for (id, logit) in logits.iter_mut().enumerate() {
            let length_before = |place: usize| {
                (1..=place).take_while(|&l| recent[place - l..place] == recent[n - l..]).last()
            };
            let places = (0..n).filter(|&place| recent[place] as usize == id);
            let longest = places.filter_map(length_before).map(|l| l.min(limit)).max();
            if let Some(length) = longest.filter(|length| *length >= allowed) {
                let power = sampling.dry_base.powi((length - allowed) as i32);
                *logit -= sampling.dry_multiplier * power;
            }
        }
    }

    proptest! {
        #[test]
        fn penalties_are_those_of_the_definition(
            tokens in prop::collection::vec(0_u32..5, 0..60),
            allowed in 1_usize..4,
            window in -1_i32..70,
            base in 1.0_f32..2.0,
        ) {
            let sampling = Sampling {
                dry_multiplier: 0.8,
                dry_base: base,
                dry_allowed_length: allowed,
                dry_penalty_last_n: window,
                dry_sequence_breakers: vec!["e".to_owned()],
                ..Sampling::default()
            };
            let (mut fast, mut slow) = ([1.0_f32; 5], [1.0_f32; 5]);
            if let Some(mut dry) = Dry::new(&sampling) {
                tokens.iter().for_each(|&id| dry.push(id, &[b'a' + id as u8]));
                dry.apply(&mut fast);
                slowly(&sampling, &tokens, 4, &mut slow);
            }
            for (fast, slow) in fast.iter().zip(slow) {
                prop_assert!((fast - slow).abs() <= 1e-4 * slow.abs().max(1.0), "{fast} {slow}");
            }
        }
    }
}
