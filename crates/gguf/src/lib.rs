//! GGUF files: bytes -> described tensors, and back.
//!
//! A GGUF is a header (typed key-value pairs, then the name, type, shape and offset of every
//! tensor) followed by the tensors' bytes. This crate reads only the header: the crate `store`
//! loads the weights, and `kernels` defines what their bits mean.
//!
//! Files come from the internet, so every number in one is checked against the file's length before
//! it is used: any bytes give an [`Error`] or a valid description, never a panic, and memory stays
//! in proportion to the bytes read. Later code can rely on what [`Gguf::parse`] accepts: every
//! tensor is inside the file, aligned, overlaps no other, and its size is that of its shape.
#![forbid(unsafe_code)]

mod cursor;
mod error;
mod header;
mod kv_type;
mod read;
pub mod split;
mod tensor;
mod types;
mod value;
pub mod write;

pub use error::Error;
pub use header::Gguf;
pub use kv_type::KvType;
pub use read::check_regular;
pub use tensor::TensorInfo;
pub use types::TensorType;
pub use value::{Array, Metadata, Optional, Value};
