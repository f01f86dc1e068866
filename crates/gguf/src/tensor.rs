//! Tensor descriptions: name, type, shape and offset, and the checks that make them trustworthy.

use std::collections::HashSet;

use crate::cursor::{Cursor, Reading};
use crate::types;
use crate::{Error, TensorType};

/// The limit of ggml.
const DIMENSIONS_MAX: u32 = 4;

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name, unique in the file: `blk.3.ffn_gate_exps.weight`.
    pub name: String,
    /// How its weights are stored.
    pub ty: TensorType,
    /// 1 to 4 dimensions in ggml's order: `shape[0]` is contiguous, the length of a row.
    pub shape: Vec<u64>,
    /// Offset of its first byte in its file.
    pub offset: u64,
    /// Its bytes, without padding.
    pub size: u64,
}

impl TensorInfo {
    /// A tensor at offset 0, its size computed.
    ///
    /// # Errors
    /// If no tensor can have this shape and type: a dimension of 0, none or more than 4 of them,
    /// rows that are not a multiple of the block length, a size that overflows.
    pub fn new(name: &str, ty: TensorType, shape: &[u64]) -> Result<Self, Error> {
        let tensor = || name.to_owned();
        if shape.is_empty() || shape.len() > DIMENSIONS_MAX as usize {
            return Err(Error::Dimensions { tensor: tensor(), count: shape.len() as u32 });
        }
        if shape.contains(&0) {
            return Err(Error::ZeroDimension { tensor: tensor(), shape: shape.to_vec() });
        }
        let (cols, block_len) = (shape[0], ty.block_len());
        if !cols.is_multiple_of(block_len) {
            return Err(Error::RaggedRow { tensor: tensor(), ty: ty.name(), cols, block_len });
        }
        // The number of weights is checked too, so that multiplying the shape never overflows.
        let elements = shape.iter().try_fold(1_u64, |product, dim| product.checked_mul(*dim));
        let size = elements.and_then(|all| ty.row_bytes(cols)?.checked_mul(all / cols));
        let size = size.filter(|size| *size <= i64::MAX as u64);
        let size =
            size.ok_or_else(|| Error::TooLarge { tensor: tensor(), shape: shape.to_vec() })?;
        Ok(Self { name: tensor(), ty, shape: shape.to_vec(), offset: 0, size })
    }

    /// Number of weights.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Length of a row.
    pub fn cols(&self) -> u64 {
        self.shape[0]
    }

    /// Number of rows, over all other dimensions.
    pub fn rows(&self) -> u64 {
        self.shape[1..].iter().product()
    }

    /// Offset of the byte after its last one in its file.
    pub fn end(&self) -> u64 {
        self.offset + self.size
    }
}

/// Reads `count` descriptions; offsets are still relative to the data.
pub(crate) fn read_all(cursor: &mut Cursor<'_>, count: u64) -> Result<Vec<TensorInfo>, Error> {
    let mut tensors = Vec::new();
    let mut names = HashSet::new();
    for number in 0..count {
        cursor.reading = Reading::TensorName(number);
        let name = cursor.name()?;
        cursor.reading = Reading::Tensor(name);
        if !names.insert(name) {
            return Err(Error::DuplicateTensor { tensor: name.to_owned() });
        }
        tensors.push(read_one(cursor, name)?);
    }
    Ok(tensors)
}

fn read_one(cursor: &mut Cursor<'_>, name: &str) -> Result<TensorInfo, Error> {
    let count = cursor.u32()?;
    if !(1..=DIMENSIONS_MAX).contains(&count) {
        return Err(Error::Dimensions { tensor: name.to_owned(), count });
    }
    let mut shape = [0; DIMENSIONS_MAX as usize];
    let shape = &mut shape[..count as usize];
    for dim in &mut *shape {
        *dim = cursor.u64()?;
    }
    let id = cursor.u32()?;
    let ty = TensorType::from_id(id).ok_or_else(|| Error::TensorType {
        tensor: name.to_owned(),
        id,
        advice: types::about_unknown(id),
    })?;
    let offset = cursor.u64()?;
    Ok(TensorInfo { offset, ..TensorInfo::new(name, ty, shape)? })
}

/// Makes offsets relative to the file, and checks that each tensor is inside it and overlaps no
/// other.
pub(crate) fn place_all(
    tensors: &mut [TensorInfo],
    data_offset: u64,
    alignment: u64,
    file_len: u64,
) -> Result<(), Error> {
    for info in &mut *tensors {
        let tensor = || info.name.clone();
        if !info.offset.is_multiple_of(alignment) {
            return Err(Error::Misaligned { tensor: tensor(), offset: info.offset, alignment });
        }
        let offset = data_offset.saturating_add(info.offset);
        if offset >= file_len {
            return Err(Error::OffsetPastEnd { tensor: tensor(), offset, file_len });
        }
        let size = info.size;
        if size > file_len - offset {
            return Err(Error::TruncatedTensor { tensor: tensor(), offset, size, file_len });
        }
        info.offset = offset;
    }
    let mut by_offset: Vec<&TensorInfo> = tensors.iter().collect();
    by_offset.sort_by_key(|tensor| tensor.offset);
    for pair in by_offset.windows(2) {
        let (first, second) = (pair[0], pair[1]);
        if first.end() > second.offset {
            return Err(Error::Overlap {
                first: first.name.clone(),
                second: second.name.clone(),
                offset: second.offset,
            });
        }
    }
    Ok(())
}
