//! Where weights are: mapped from the file, resident in memory, embedded in the program, or read
//! when they are needed.
//!
//! [`Weights`] joins the parts of a model into one list of tensors; [`Bytes`] is a handle to the
//! bytes of one tensor that keeps the memory behind it alive. For a model that is larger than
//! memory, an [`ExpertCache`] keeps some experts resident and reads others from their files with a
//! [`Reader`]. The crate does not interpret the bytes; the kernels do.

mod arriving;
mod bytes;
mod cache;
mod dense;
mod error;
mod io;
pub mod numa;
pub mod policy;
mod rate;
mod region;
mod residency;
mod resident;
#[cfg(target_os = "linux")]
mod sigbus;
mod slab;
pub mod trace;
mod warm;
mod weights;

pub use arriving::{FileRange, Ranges};
pub use bytes::Bytes;
pub use cache::{
    CacheOptions, CacheStats, ExpertCache, Monitor, SLICES_MAX, StackedExperts, cache_bytes,
};
pub use error::Error;
pub use io::{ReadFile, ReadFunction, Reader};
pub use rate::{ReadRate, read_rate};
pub use residency::{Frames, Place, Residency};
pub use weights::{Placement, Tensor, TensorUse, Weights};
