//! Quantized arithmetic: described bytes times vectors.
//!
//! This crate knows no files, models or tokens. Every fast kernel has a scalar twin that is its
//! specification; the tier is chosen once, at start, and one setting forces the twin.
//!
//! ```
//! use cachalot_kernels::{Columns, Cpu, Format, Inputs, Matrix, Product, Tier};
//!
//! let weights: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|w| w.to_le_bytes()).collect();
//! let matrix = Matrix::new(Format::F32, 2, 2, &weights)?;
//! let cpu = Cpu::new(2, Tier::detect());
//! let mut inputs = Inputs::new();
//! inputs.reset(1, 2).copy_from_slice(&[1.0, 10.0]);
//! let mut out = [0.0; 2];
//! cpu.multiply(&mut inputs, &[Product { matrix, columns: Columns::one(0) }], &mut out);
//! assert_eq!(out, [21.0, 43.0]);
//! # Ok::<(), cachalot_kernels::Error>(())
//! ```

pub mod attention;
#[cfg(test)]
mod battery;
mod block;
mod buffer;
mod cpu;
mod format;
mod formats;
mod inputs;
mod isa;
mod matrix;
pub mod ops;
mod pool;
pub mod probe;
mod product;

pub use block::Columns;
pub use cpu::{Tier, TierName};
pub use format::Format;
pub use inputs::Inputs;
pub use matrix::{Error, Matrix};
pub use pool::Pool;
pub use product::{Cpu, GateUp, Product, Weighted};
