//! GGUF files: bytes -> described tensors, and back.
//!
//! A GGUF is a header (typed key-value pairs, then the name, type, shape and place of every tensor)
//! followed by the tensors' bytes. This crate reads the header and stops there: where weights live is
//! the store's affair, what their bits mean the kernels'.
//!
//! Files come from the internet, so no number in one is believed before it has been checked against
//! the file's length: any bytes give an [`Error`] or a valid description, never a panic, and memory
//! stays in proportion to the bytes read. What [`Gguf::parse`] accepts, later code need not check:
//! every tensor lies within the file, aligned, overlapping no other, its size fitting its shape.
#![forbid(unsafe_code)]

mod error;
mod header;
mod read;
pub mod split;
mod tensor;
mod types;
mod value;
pub mod write;

pub use error::Error;
pub use header::Gguf;
pub use tensor::TensorInfo;
pub use types::TensorType;
pub use value::{Array, Metadata, Optional, Value};
