//! A matrix of weights: format, shape and the bytes as they are in the file.

use crate::format::Format;

/// Why bytes are not the matrix they are said to be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A row is not a whole number of blocks.
    #[error(
        "{format} stores rows in blocks of {} weights, and {cols} columns are not a multiple",
        format.block_len()
    )]
    Columns {
        /// The format.
        format: Format,
        /// Columns asked for.
        cols: usize,
    },
    /// Bytes do not fit the shape.
    #[error("{format} [{rows} x {cols}] takes {expected} bytes, found {found}")]
    Bytes {
        /// The format.
        format: Format,
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        cols: usize,
        /// Bytes such a matrix has.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
}

/// How precise activations have to be: kernels for a product with a matrix may round them no more.
/// The caller knows what the matrix tolerates and whether the tokens are a prompt's; their number
/// changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ActBits {
    /// 16 bits, for decoding: bound by memory, so that they cost nothing.
    Sixteen,
    /// 14 bits, or bf16 where tiles compute it, for prompts.
    #[default]
    Fourteen,
    /// 8 bits, for prompts, where a matrix tolerates them: feed-forward networks and the output of
    /// attention. The median divergence of the small models in the tests is then a half to a
    /// quarter of llama.cpp's. With queries, keys and values in 8 bits as well, it is the same.
    Eight,
}

/// Which kernel makes a product. Kernels add in different orders, so that the last bits differ; but
/// with each of them, a token's outputs depend neither on the other tokens nor on their number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernel {
    /// The fastest for the number of tokens.
    #[default]
    Fastest,
    /// Weights read in place, a few tokens at a time; activations have at least 16 bits.
    Gemv,
    /// Weights unpacked for all tokens; activations have what [`ActBits`] says.
    Gemm,
}

/// A view of a matrix of weights `[rows, cols]`; rows are contiguous in the file's own layout.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    format: Format,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    bytes: &'a [u8],
    scale: f32,
    act_bits: ActBits,
    kernel: Kernel,
}

impl<'a> Matrix<'a> {
    /// Checks that `bytes` hold exactly `rows` x `cols` weights.
    ///
    /// # Errors
    /// If the columns are not a multiple of the block length, or the number of bytes is wrong.
    pub fn new(format: Format, rows: usize, cols: usize, bytes: &'a [u8]) -> Result<Self, Error> {
        let row_bytes = format.row_bytes(cols).ok_or(Error::Columns { format, cols })?;
        let expected = row_bytes.saturating_mul(rows);
        if expected != bytes.len() {
            return Err(Error::Bytes { format, rows, cols, expected, found: bytes.len() });
        }
        let (act_bits, kernel) = (ActBits::default(), Kernel::default());
        Ok(Self { format, rows, cols, row_bytes, bytes, scale: 1.0, act_bits, kernel })
    }

    /// The same weights, all multiplied by `scale` (NVFP4 tensors carry such a factor).
    #[must_use]
    pub fn scaled(self, scale: f32) -> Self {
        Self { scale: self.scale * scale, ..self }
    }

    /// The same weights, to be multiplied with activations of at least this precision.
    #[must_use]
    pub fn with_activations(self, act_bits: ActBits) -> Self {
        Self { act_bits, ..self }
    }

    /// The same weights, always to be multiplied by this kernel: for results that do not depend on
    /// the batch.
    #[must_use]
    pub fn with_kernel(self, kernel: Kernel) -> Self {
        Self { kernel, ..self }
    }

    /// Which kernel multiplies it.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// To how many bits its activations may be rounded.
    pub fn act_bits(&self) -> ActBits {
        self.act_bits
    }

    /// Rows: outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: numbers of an activation.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The format of the weights.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Bytes that a product with this matrix reads.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The factor on all weights.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// Rows `start..start + rows` as a matrix of their own: one head, one expert.
    ///
    /// # Panics
    /// If some of them do not exist.
    #[must_use]
    pub fn slice(&self, start: usize, rows: usize) -> Self {
        let bytes = &self.bytes[start * self.row_bytes..][..rows * self.row_bytes];
        Self { rows, bytes, ..*self }
    }

    /// Decodes row `index` into `out` `[cols]`.
    ///
    /// # Panics
    /// If there is no such row or `out` has another length.
    pub fn row(&self, index: usize, out: &mut [f32]) {
        self.format.decode(self.slice(index, 1).bytes, out);
        if self.scale != 1.0 {
            out.iter_mut().for_each(|w| *w *= self.scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_lengths_are_refused_by_name() {
        let error = Matrix::new(Format::Q8_0, 2, 64, &[0; 100]).unwrap_err();
        assert_eq!(error.to_string(), "Q8_0 [2 x 64] takes 136 bytes, found 100");
        assert!(Matrix::new(Format::Q4_K, 1, 128, &[0; 72]).is_err());
        assert!(Matrix::new(Format::Q4_K, usize::MAX, 256, &[0; 144]).is_err());
    }

    #[test]
    fn a_slice_of_rows_decodes_as_the_rows_do() {
        let bytes: Vec<u8> = (0..4u8).flat_map(|r| f32::from(r).to_le_bytes()).collect();
        let matrix = Matrix::new(Format::F32, 4, 1, &bytes).unwrap().scaled(2.0);
        let mut out = [0.0];
        matrix.slice(2, 2).row(1, &mut out);
        assert_eq!(out, [6.0]);
    }
}
