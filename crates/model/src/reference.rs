//! The model computed slowly and plainly, for tests.
