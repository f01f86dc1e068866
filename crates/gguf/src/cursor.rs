//! The one place that compares what is asked of a file with what it holds.
//!
//! A cursor also knows what is being read, so that an error deep inside an array can name its key.

use std::fmt;

use crate::Error;

/// What is being read, for errors.
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

/// Reads little-endian numbers and strings, and never past the end.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    file_len: u64,
    pub(crate) reading: Reading<'a>,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8], file_len: u64) -> Self {
        // A caller that states a length below that of its bytes would get offsets beyond it.
        let file_len = file_len.max(bytes.len() as u64);
        Self { bytes, at: 0, file_len, reading: Reading::Header }
    }

    /// Bytes read so far.
    pub(crate) fn at(&self) -> u64 {
        self.at as u64
    }

    /// The bytes that were not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// The length of the whole file.
    pub(crate) fn file_len(&self) -> u64 {
        self.file_len
    }

    /// Checks that the next `len` bytes were passed in.
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
        // `require` has compared `len` with a `usize`.
        let (taken, _) = self.rest().split_at(len as usize);
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

    /// A number of elements of at least `bytes_min` bytes each: never more than the file can hold.
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
