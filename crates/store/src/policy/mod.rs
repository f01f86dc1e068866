//! Which experts to keep when not all fit.
//!
//! A policy sees every pick and ranks experts; the lowest rank leaves first. It knows nothing of
//! memory, so that a recorded run can be replayed with another one.

mod belady;
mod frequency;
mod lru;

pub use belady::Belady;
pub use frequency::Frequency;
pub use lru::Lru;

/// Ranks experts. An expert is a number: its layer times the experts of a layer, plus its own.
pub trait Policy: Send {
    /// A token picked `expert`: the present one, or one that many tokens ago.
    fn touch(&mut self, expert: usize, age: u32);

    /// Some tokens have passed.
    fn advance(&mut self, tokens: u32);

    /// How much it is worth to keep `expert`, now: the lowest leaves first.
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
