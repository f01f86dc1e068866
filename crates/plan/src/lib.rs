//! Facts about models, turned into what a person wants to know before running one.
//!
//! Everything here is a pure function: headers in, numbers and sentences out. Nothing is read, timed
//! or guessed behind the caller's back, so that each number can be tested and explained.
#![forbid(unsafe_code)]

pub mod demand;
pub mod identity;
pub mod shape;
pub mod units;

pub use demand::{Cache, CacheType, Demand, Group};
pub use identity::{Identity, Kind};
pub use shape::Shape;
