//! What an answer cost.

use std::time::Duration;

use crate::CacheStats;

/// Counts and times of one answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Tokens of the prompt whose keys and values were still in the cache.
    pub prompt_cached: usize,
    /// Tokens of the prompt that were computed.
    pub prompt_computed: usize,
    /// How long that took, up to the first token of the answer.
    pub prompt_time: Duration,
    /// Tokens of the answer, thoughts included.
    pub answer_tokens: usize,
    /// How long they took, but for the first, which the prompt's time brings about.
    pub answer_time: Duration,
    /// Tokens that the cache holds now, of how many it can hold.
    pub cache_used: usize,
    /// Tokens that the cache can hold.
    pub cache_capacity: usize,
    /// Bytes of the cache when it is full.
    pub cache_bytes: u64,
    /// What the random numbers came from.
    pub seed: u64,
    /// What was read of experts for the prompt, if they are streamed.
    pub prompt_streamed: Option<CacheStats>,
    /// And for the answer.
    pub answer_streamed: Option<CacheStats>,
}

impl Stats {
    /// Tokens of the prompt computed per second; 0 if there were none.
    pub fn prompt_rate(&self) -> f64 {
        rate(self.prompt_computed, self.prompt_time)
    }

    /// Tokens of the answer per second, without the first; 0 if there was no second.
    pub fn answer_rate(&self) -> f64 {
        rate(self.answer_tokens.saturating_sub(1), self.answer_time)
    }
}

fn rate(tokens: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { tokens as f64 / time.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_count_what_the_time_was_spent_on() {
        let stats = Stats {
            prompt_cached: 90,
            prompt_computed: 10,
            prompt_time: Duration::from_secs(2),
            answer_tokens: 7,
            answer_time: Duration::from_secs(3),
            ..Stats::default()
        };
        assert_eq!((stats.prompt_rate(), stats.answer_rate()), (5.0, 2.0));
        assert_eq!((Stats::default().prompt_rate(), Stats::default().answer_rate()), (0.0, 0.0));
    }
}
