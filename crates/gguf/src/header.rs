//! The header of a file, from its first byte to the last tensor description.
//!
//! All reading goes through [`Cursor`], the one place that compares what is asked with what is there.
//! It also knows what is being read, so that an error deep in an array can say which key it is in.

use std::fmt;

use crate::Error;
use crate::tensor::{self, TensorInfo};
use crate::value::{self, Metadata};

/// The first four bytes of every GGUF, whatever its byte order.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
/// Where tensors are aligned to if the file does not say.
pub(crate) const DEFAULT_ALIGNMENT: u64 = 32;
/// The key that says otherwise.
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";

/// A key takes at least its length, one letter, its value's type and one byte of value.
const KEY_BYTES_MIN: u64 = 8 + 1 + 4 + 1;
/// A tensor takes at least its name's length, one letter, one dimension, type and offset.
const TENSOR_BYTES_MIN: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// The description of one GGUF file.
#[derive(Debug, Clone, PartialEq)]
pub struct Gguf {
    /// Version of the container, 2 or 3: they differ in nothing that little-endian files show.
    pub version: u32,
    /// The key-value pairs, in the file's order.
    pub metadata: Metadata,
    /// The tensors, in the file's order.
    pub tensors: Vec<TensorInfo>,
    /// Bytes to whose multiples tensors are aligned: a power of two.
    pub alignment: u64,
    /// Where the tensors' bytes begin in the file: also the size of the header with its padding.
    pub data_offset: u64,
}

impl Gguf {
    /// Describes a file of `file_len` bytes from its beginning, or the whole of it.
    ///
    /// # Errors
    /// [`Error::NeedMore`] if the header goes on after `bytes` but may still end within the file:
    /// call again with more. Any other error is a fault of the file.
    pub fn parse(bytes: &[u8], file_len: u64) -> Result<Self, Error> {
        let mut cursor = Cursor::new(bytes, file_len);
        let version = version(&mut cursor)?;
        let tensor_count = cursor.count(TENSOR_BYTES_MIN)?;
        let key_count = cursor.count(KEY_BYTES_MIN)?;
        let metadata = value::read_metadata(&mut cursor, key_count)?;
        let alignment = alignment(&metadata)?;
        let mut tensors = tensor::read_all(&mut cursor, tensor_count)?;
        let data_offset = cursor.at().next_multiple_of(alignment);
        tensor::place_all(&mut tensors, data_offset, alignment, cursor.file_len)?;
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

/// People point programs at many things that are not models: says which one this is.
fn not_gguf(cursor: &Cursor<'_>) -> Error {
    let bytes = cursor.rest();
    if bytes.len() < 16 && (bytes.len() as u64) < cursor.file_len {
        return Error::NeedMore { at_least: cursor.file_len.min(64) };
    }
    let head = &bytes[..bytes.len().min(64)];
    let text = String::from_utf8_lossy(head).trim_start().to_ascii_lowercase();
    let looks_like = match head {
        [] => "it is empty",
        _ if head.iter().all(|byte| *byte == 0) => {
            "it begins with zeros, as a download does that has only reserved its room"
        }
        [b'P', b'K', 3, 4, ..] => "it is a zip archive, perhaps a PyTorch checkpoint",
        [0x1f, 0x8b, ..] => "it is gzip-compressed: unpack it first",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "it is zstd-compressed: unpack it first",
        [_, _, _, _, _, 0, 0, 0, b'{', ..] => {
            "it is a safetensors file: get the model in GGUF form, or convert it"
        }
        [b'l', b'm', b'g', b'g', ..]
        | [b't' | b'f' | b'a' | b'l', b'j' | b'm' | b'l', b'g', b'g', ..] => {
            "it is a model in one of the forms before GGUF: get a newer file"
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

/// What the cursor reads, for errors.
#[derive(Clone, Copy)]
pub(crate) enum Reading<'a> {
    Header,
    Key(u64),
    Value(&'a str),
    TensorName(u64),
    Tensor(&'a str),
}

impl fmt::Display for Reading<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => write!(f, "the header"),
            Self::Key(number) => write!(f, "the name of key number {number}"),
            Self::Value(key) => write!(f, "the value of `{key}`"),
            Self::TensorName(number) => write!(f, "the name of tensor number {number}"),
            Self::Tensor(name) => write!(f, "the description of tensor `{name}`"),
        }
    }
}

/// Reads little-endian numbers and strings, and refuses to look past the end.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    file_len: u64,
    pub(crate) reading: Reading<'a>,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8], file_len: u64) -> Self {
        // A caller that states less than it holds would get offsets past its own bytes.
        let file_len = file_len.max(bytes.len() as u64);
        Self { bytes, at: 0, file_len, reading: Reading::Header }
    }

    /// Bytes read so far.
    pub(crate) fn at(&self) -> u64 {
        self.at as u64
    }

    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Checks that `len` bytes are at hand.
    pub(crate) fn require(&self, len: u64) -> Result<(), Error> {
        match self.at().checked_add(len) {
            Some(end) if end <= self.bytes.len() as u64 => Ok(()),
            Some(end) if end <= self.file_len => Err(Error::NeedMore { at_least: end }),
            _ => Err(Error::Truncated {
                reading: self.reading.to_string(),
                offset: self.at(),
                needed: len,
                file_len: self.file_len,
            }),
        }
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, len: u64) -> Result<&'a [u8], Error> {
        self.require(len)?;
        let (taken, _) = self.rest().split_at(len as usize); // `require` has compared it with a usize
        self.at += taken.len();
        Ok(taken)
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of elements that take at least `bytes_min` each: never more than the file can hold.
    pub(crate) fn count(&mut self, bytes_min: u64) -> Result<u64, Error> {
        let offset = self.at();
        let count = self.u64()?;
        let needed = count.checked_mul(bytes_min);
        if needed.is_none_or(|needed| needed > self.file_len - self.at()) {
            let reading = self.reading.to_string();
            return Err(Error::Count { reading, count, offset, file_len: self.file_len });
        }
        Ok(count)
    }

    /// A string with its length before it.
    pub(crate) fn str(&mut self) -> Result<&'a str, Error> {
        let len = self.u64()?;
        let offset = self.at();
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map_err(|fault| Error::NotUtf8 {
            reading: self.reading.to_string(),
            offset: offset + fault.valid_up_to() as u64,
        })
    }

    /// A string that names something.
    pub(crate) fn name(&mut self) -> Result<&'a str, Error> {
        let offset = self.at();
        match self.str()? {
            "" => Err(Error::EmptyName { reading: self.reading.to_string(), offset }),
            name => Ok(name),
        }
    }
}
