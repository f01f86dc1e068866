//! The header of a file, from its first byte to the last tensor description.

use crate::Error;
use crate::cursor::Cursor;
use crate::tensor::{self, TensorInfo};
use crate::value::{self, Metadata};

/// The first four bytes of every GGUF, whatever its byte order.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
/// Alignment of tensors in files that do not state it.
pub(crate) const DEFAULT_ALIGNMENT: u64 = 32;
/// The key that states it.
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";

/// A key takes at least its length, one letter, its value's type and one byte of value.
const KEY_BYTES_MIN: u64 = 8 + 1 + 4 + 1;
/// A tensor takes at least its name's length, one letter, one dimension, type and offset.
const TENSOR_BYTES_MIN: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// The description of one GGUF file.
#[derive(Debug, Clone, PartialEq)]
pub struct Gguf {
    /// Version of the container, 2 or 3: the same format for little-endian files.
    pub version: u32,
    /// The key-value pairs, in the file's order.
    pub metadata: Metadata,
    /// The tensors, in the file's order.
    pub tensors: Vec<TensorInfo>,
    /// Alignment of tensors in bytes: a power of two.
    pub alignment: u64,
    /// Offset of the tensor data in the file, which is the size of the padded header.
    pub data_offset: u64,
}

impl Gguf {
    /// Describes a file of `file_len` bytes from its first `bytes`, or from all of them.
    ///
    /// # Errors
    /// [`Error::NeedMore`] if the header continues after `bytes` but may still end within the
    /// file: call again with more. Any other error is a fault of the file.
    pub fn parse(bytes: &[u8], file_len: u64) -> Result<Self, Error> {
        let mut cursor = Cursor::new(bytes, file_len);
        let version = version(&mut cursor)?;
        let tensor_count = cursor.count(TENSOR_BYTES_MIN)?;
        let key_count = cursor.count(KEY_BYTES_MIN)?;
        let metadata = value::read_metadata(&mut cursor, key_count)?;
        let alignment = alignment(&metadata)?;
        let mut tensors = tensor::read_all(&mut cursor, tensor_count)?;
        let data_offset = cursor.at().next_multiple_of(alignment);
        tensor::place_all(&mut tensors, data_offset, alignment, cursor.file_len())?;
        Ok(Self { version, metadata, tensors, alignment, data_offset })
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

fn version(cursor: &mut Cursor<'_>) -> Result<u32, Error> {
    if !cursor.rest().starts_with(&MAGIC) {
        return Err(not_gguf(cursor));
    }
    cursor.take(MAGIC.len() as u64)?;
    match cursor.u32()? {
        1 => Err(Error::Version1),
        version @ (2 | 3) => Ok(version),
        // Small numbers with their bytes swapped are whole multiples of 2^16.
        version if version != 0 && version.trailing_zeros() >= 16 => Err(Error::BigEndian),
        version => Err(Error::NewVersion { version }),
    }
}

fn alignment(metadata: &Metadata) -> Result<u64, Error> {
    if metadata.get(ALIGNMENT_KEY).is_none() {
        return Ok(DEFAULT_ALIGNMENT);
    }
    let alignment = metadata.u64(ALIGNMENT_KEY)?;
    if alignment.is_power_of_two() && (8..=1 << 30).contains(&alignment) {
        Ok(alignment)
    } else {
        Err(Error::Alignment { alignment })
    }
}

/// What a file that is not GGUF seems to be, so that the error can say what to do.
fn not_gguf(cursor: &Cursor<'_>) -> Error {
    let bytes = cursor.rest();
    if bytes.len() < 16 && (bytes.len() as u64) < cursor.file_len() {
        return Error::NeedMore { at_least: cursor.file_len().min(64) };
    }
    let head = &bytes[..bytes.len().min(64)];
    let text = String::from_utf8_lossy(head).trim_start().to_ascii_lowercase();
    let looks_like = match head {
        [] => "it is empty",
        _ if head.iter().all(|byte| *byte == 0) => {
            "it begins with zeros, like a download whose space was only reserved"
        }
        [b'P', b'K', 3, 4, ..] => "it is a zip archive, perhaps a PyTorch checkpoint",
        [0x1f, 0x8b, ..] => "it is gzip-compressed: unpack it first",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "it is zstd-compressed: unpack it first",
        [_, _, _, _, _, 0, 0, 0, b'{', ..] => {
            "it is a safetensors file: get the model as GGUF, or convert it"
        }
        [b'l', b'm', b'g', b'g', ..]
        | [b't' | b'f' | b'a' | b'l', b'j' | b'm' | b'l', b'g', b'g', ..] => {
            "it is a model in a format older than GGUF: get a newer file"
        }
        _ if text.starts_with("version https://git-lfs") => {
            "it is a git-lfs pointer: fetch the model itself with `git lfs pull`"
        }
        _ if text.starts_with("<!doctype") || text.starts_with("<html") => {
            "it is a web page, perhaps the answer to a failed download"
        }
        _ if text.starts_with('{') => "it is JSON, perhaps the answer to a failed download",
        _ => "it does not begin with `GGUF`",
    };
    Error::NotGguf { looks_like }
}
