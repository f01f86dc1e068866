//! Writing GGUF files: for synthetic models, for tests, and for fuzzing corpora.
//!
//! The header states the offset of every tensor, so tensors are declared first and their bytes
//! follow in the same order, streamed: a file may be larger than memory.

use std::collections::{HashSet, VecDeque};
use std::io::{self, Read as _, Write};

use crate::header::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC};
use crate::tensor::TensorInfo;
use crate::value::{self, Optional};
use crate::{Error, Metadata, TensorType};

/// The version that is written.
const VERSION: u32 = 3;

/// The content of a file; [`start`](Self::start) writes its header.
///
/// ```
/// # use cachalot_gguf::{Gguf, TensorType, write::Writer};
/// let mut writer = Writer::default();
/// writer.metadata.insert("general.architecture", "deepseek2");
/// writer.tensor("output_norm.weight", TensorType::F32, &[2])?;
/// let mut data = writer.start(Vec::new())?;
/// data.append(&[0; 8])?;
/// let bytes = data.finish()?;
/// let gguf = Gguf::parse(&bytes, bytes.len() as u64)?;
/// assert_eq!(gguf.tensor("output_norm.weight").map(|tensor| tensor.size), Some(8));
/// # Ok::<(), cachalot_gguf::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Writer {
    /// The key-value pairs; `general.alignment` is applied.
    pub metadata: Metadata,
    tensors: Vec<TensorInfo>,
}

impl Writer {
    /// Declares the next tensor, `shape` in ggml's order (`shape[0]` contiguous).
    ///
    /// # Errors
    /// Those of [`TensorInfo::new`].
    pub fn tensor(
        &mut self,
        name: &str,
        ty: TensorType,
        shape: &[u64],
    ) -> Result<&mut Self, Error> {
        self.tensors.push(TensorInfo::new(name, ty, shape)?);
        Ok(self)
    }

    /// The padded header, and the tensors with their offsets in the file.
    ///
    /// # Errors
    /// [`Error::DuplicateTensor`], [`Error::Alignment`], [`Error::TooLarge`] if the file would be.
    pub fn header(&self) -> Result<(Vec<u8>, Vec<TensorInfo>), Error> {
        let alignment = self.metadata.u64(ALIGNMENT_KEY).optional()?.unwrap_or(DEFAULT_ALIGNMENT);
        if !alignment.is_power_of_two() || !(8..=1 << 30).contains(&alignment) {
            return Err(Error::Alignment { alignment });
        }
        let mut tensors = self.tensors.clone();
        assign_offsets(&mut tensors, alignment)?;
        let mut header = self.encode(&tensors);
        header.resize(header.len().next_multiple_of(alignment as usize), 0);
        for tensor in &mut tensors {
            tensor.offset += header.len() as u64;
        }
        Ok((header, tensors))
    }

    fn encode(&self, tensors: &[TensorInfo]) -> Vec<u8> {
        let mut header = MAGIC.to_vec();
        header.extend(VERSION.to_le_bytes());
        header.extend((tensors.len() as u64).to_le_bytes());
        header.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in self.metadata.iter() {
            value::write_str(key, &mut header);
            header.extend(value.type_id().to_le_bytes());
            value.write(&mut header);
        }
        for tensor in tensors {
            value::write_str(&tensor.name, &mut header);
            header.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().for_each(|dim| header.extend(dim.to_le_bytes()));
            header.extend(tensor.ty.id().to_le_bytes());
            header.extend(tensor.offset.to_le_bytes());
        }
        header
    }

    /// Writes the header; the bytes of the tensors follow.
    ///
    /// # Errors
    /// Those of [`header`](Self::header), and those of `out`.
    pub fn start<W: Write>(&self, mut out: W) -> Result<TensorData<W>, Error> {
        let (header, tensors) = self.header()?;
        out.write_all(&header)?;
        Ok(TensorData { out, at: header.len() as u64, written: 0, due: tensors.into() })
    }
}

/// Assigns aligned offsets relative to the tensor data, in order.
fn assign_offsets(tensors: &mut [TensorInfo], alignment: u64) -> Result<(), Error> {
    let mut names = HashSet::new();
    let mut offset = 0_u64;
    for info in tensors {
        if !names.insert(&info.name) {
            return Err(Error::DuplicateTensor { tensor: info.name.clone() });
        }
        info.offset = offset;
        // Half of the range stays free, so that adding the header's size cannot overflow.
        let end = offset.checked_add(info.size).filter(|end| *end < i64::MAX as u64);
        let (tensor, shape) = (&info.name, &info.shape);
        let end =
            end.ok_or_else(|| Error::TooLarge { tensor: tensor.clone(), shape: shape.clone() });
        offset = end?.next_multiple_of(alignment);
    }
    Ok(())
}

/// Writes the bytes of the declared tensors, in order.
#[derive(Debug)]
pub struct TensorData<W: Write> {
    out: W,
    at: u64,
    written: u64,
    due: VecDeque<TensorInfo>,
}

impl<W: Write> TensorData<W> {
    /// The tensor whose bytes come next; `None` when all are written.
    pub fn due(&self) -> Option<&TensorInfo> {
        self.due.front()
    }

    /// Writes bytes of the next tensor: all of them, or the next piece. The padding between tensors
    /// is added here.
    ///
    /// # Errors
    /// [`Error::WrittenSize`] for more bytes than the tensor has left, [`Error::WrittenTooMuch`]
    /// after the last tensor, and those of the output.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let tensor = self.due.front().ok_or(Error::WrittenTooMuch)?;
        let written = self.written + bytes.len() as u64;
        if written > tensor.size {
            return Err(written_size(tensor, written));
        }
        let padding = if self.written == 0 { tensor.offset - self.at } else { 0 };
        io::copy(&mut io::repeat(0).take(padding), &mut self.out)?;
        self.out.write_all(bytes)?;
        self.at += padding + bytes.len() as u64;
        self.written = written;
        if written == tensor.size {
            self.written = 0;
            self.due.pop_front();
        }
        Ok(())
    }

    /// Flushes and returns the output.
    ///
    /// # Errors
    /// [`Error::WrittenSize`] if a declared tensor lacks bytes, and those of the output.
    pub fn finish(mut self) -> Result<W, Error> {
        if let Some(tensor) = self.due.front() {
            return Err(written_size(tensor, self.written));
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

fn written_size(tensor: &TensorInfo, written: u64) -> Error {
    Error::WrittenSize { tensor: tensor.name.clone(), size: tensor.size, written }
}
