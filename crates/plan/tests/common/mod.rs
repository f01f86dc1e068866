//! What tests of the planner share.

pub(crate) mod rows;
