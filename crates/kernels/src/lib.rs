//! Quantized arithmetic: described bytes times vectors.
//!
//! This crate knows no files, models or texts. Every fast kernel has a reference kernel that is its
//! specification; the tier is chosen once, at start, and one setting forces the reference kernels.
//!
//! ```
//! use cachalot_kernels::{Tokens, Cpu, Format, Activations, Matrix, Product, Tier};
//!
//! let weights: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|w| w.to_le_bytes()).collect();
//! let matrix = Matrix::new(Format::F32, 2, 2, &weights)?;
//! let cpu = Cpu::new(2, Tier::detect());
//! let mut activations = Activations::new();
//! activations.reset(1, 2).copy_from_slice(&[1.0, 10.0]);
//! let mut out = [0.0; 2];
//! cpu.multiply(&mut activations, &[Product { matrix, tokens: Tokens::one(0) }], &mut out);
//! assert_eq!(out, [21.0, 43.0]);
//! # Ok::<(), cachalot_kernels::Error>(())
//! ```

mod activations;
mod affinity;
pub mod attention;
mod block;
mod buffer;
mod cpu;
mod format;
mod formats;
mod inputs;
mod isa;
#[cfg(test)]
mod kernel_tests;
mod matrix;
pub mod ops;
mod pool;
pub mod probe;
mod product;
mod rows;

pub use activations::Activations;
pub use block::Tokens;
pub use buffer::recycle;
pub use cpu::{Tier, TierName};
pub use format::Format;
pub use inputs::{Inputs, RowTask};
pub use matrix::{ActBits, Error, Kernel, Matrix};
pub use pool::Pool;
pub use product::{Cpu, GateUp, HeadTask, Heads, Pinning, Product, Weighted};
