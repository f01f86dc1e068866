//! What tests of the planner share.

pub(crate) mod refit;
pub(crate) mod rows;
