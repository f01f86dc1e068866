//! Eviction policies: which experts to keep when not all fit.
//!
//! A policy sees every use of an expert and values experts; the least valuable one is evicted
//! first. It does not know the memory, so that a recorded run can be replayed with other policies.

mod belady;
mod frequency;
mod lru;

pub use belady::Belady;
pub use frequency::Frequency;
pub use lru::Lru;

/// Values experts. An expert is a number: its layer times the experts of a layer, plus its index.
pub trait Policy: Send {
    /// The token `age` tokens before the current one uses `expert`.
    fn touch(&mut self, expert: usize, age: u32);

    /// `tokens` tokens have passed.
    fn advance(&mut self, tokens: u32);

    /// The value of keeping `expert` now; the lowest is evicted first.
    fn worth(&self, expert: usize) -> f64;
}

impl Policy for Box<dyn Policy> {
    fn touch(&mut self, expert: usize, age: u32) {
        (**self).touch(expert, age);
    }

    fn advance(&mut self, tokens: u32) {
        (**self).advance(tokens);
    }

    fn worth(&self, expert: usize) -> f64 {
        (**self).worth(expert)
    }
}
