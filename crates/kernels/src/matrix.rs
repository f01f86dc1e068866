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

/// Tokens of a batch from which on products are bound by arithmetic rather than by memory.
const LONG_BATCH: usize = 32;

/// To how many bits a product with a matrix may round its activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ActBits {
    /// 16, or 14 on AVX2 and bf16 on AMX where there are many tokens.
    #[default]
    Sixteen,
    /// 8 where that is faster. Feed-forward networks and the output of attention tolerate it: the
    /// median divergence of the small models in the tests is then a half to a quarter of
    /// llama.cpp's. With queries, keys and values in 8 bits as well, it is the same.
    Eight,
}

impl ActBits {
    /// What a matrix that tolerates 8 bits gets in a batch of `tokens`.
    pub fn for_batch(tokens: usize) -> Self {
        if tokens >= LONG_BATCH { Self::Eight } else { Self::Sixteen }
    }
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
        Ok(Self { format, rows, cols, row_bytes, bytes, scale: 1.0, act_bits: ActBits::default() })
    }

    /// The same weights, all multiplied by `scale` (NVFP4 tensors carry such a factor).
    #[must_use]
    pub fn scaled(self, scale: f32) -> Self {
        Self { scale: self.scale * scale, ..self }
    }

    /// The same weights, to be multiplied with activations of so many bits.
    #[must_use]
    pub fn with_activations(self, act_bits: ActBits) -> Self {
        Self { act_bits, ..self }
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
