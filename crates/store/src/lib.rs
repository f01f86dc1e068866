//! Where weights live: mapped from the file, resident in memory, or embedded in the program.
//!
//! [`Weights`] joins the parts of a model into one list of tensors; [`Bytes`] is a handle to those
//! of one tensor that keeps the memory behind it alive. What the bytes mean is the kernels' affair.

mod bytes;
mod error;
mod region;
mod resident;
mod weights;

pub use bytes::Bytes;
pub use error::Error;
pub use weights::{Placement, Tensor, Weights};
