//! What can be wrong with a GGUF, said so that a person can act on it: every message names the place
//! and what to do.

use std::path::PathBuf;

/// Why a file cannot be described, a value not be read, or a file not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the messages say what the variants and their fields are
pub enum Error {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: Box<Self> },
    #[error(transparent)]
    Io(#[from] std::io::Error),

    /// Not a fault of the file: the caller passed its beginning, and the header goes on. Call again
    /// with this many bytes.
    #[error("the header goes on: at least {at_least} bytes of the file are needed to read it")]
    NeedMore { at_least: u64 },
    #[error("the header is larger than {limit} bytes, which no model's is: the file is damaged")]
    HeaderTooLarge { limit: u64 },

    #[error("this is no GGUF file: {looks_like}")]
    NotGguf { looks_like: &'static str },
    #[error("GGUF version 1 is not supported: convert the model again, or get a newer file")]
    Version1,
    #[error("GGUF version {version} is newer than versions 2 and 3, which are supported")]
    NewVersion { version: u32 },
    #[error("the file is big-endian GGUF: get, or convert to, the little-endian form")]
    BigEndian,

    #[error(
        "the file ends in {reading}: {needed} bytes are needed from byte {offset} on, but it has \
         only {file_len}. Is the download complete?"
    )]
    Truncated { reading: String, offset: u64, needed: u64, file_len: u64 },
    #[error(
        "{reading} counts {count} elements at byte {offset}, more than the file of {file_len} bytes \
         can hold: it is damaged, or its download incomplete"
    )]
    Count { reading: String, count: u64, offset: u64, file_len: u64 },
    #[error("{reading} is not UTF-8 (at byte {offset}): the file is damaged")]
    NotUtf8 { reading: String, offset: u64 },
    #[error("{reading} is empty (at byte {offset}): the file is damaged")]
    EmptyName { reading: String, offset: u64 },
    #[error("{reading} has the unknown value type {id} (at byte {offset}): the file is damaged")]
    ValueType { reading: String, id: u32, offset: u64 },
    #[error("{reading} is a bool of value {byte} (at byte {offset}): only 0 and 1 are allowed")]
    NotBool { reading: String, byte: u8, offset: u64 },
    #[error("{reading} nests arrays more than {limit} deep")]
    TooDeep { reading: String, limit: u32 },
    #[error("the key `{key}` stands twice in the file: it is damaged")]
    DuplicateKey { key: String },
    #[error("general.alignment is {alignment}: it must be a power of two from 8 to 2^30")]
    Alignment { alignment: u64 },

    #[error("tensor `{tensor}` has {count} dimensions: 1 to 4 are allowed")]
    Dimensions { tensor: String, count: u32 },
    #[error("tensor `{tensor}` has the shape {shape:?}: no dimension may be 0")]
    ZeroDimension { tensor: String, shape: Vec<u64> },
    #[error("tensor `{tensor}` of shape {shape:?} has more bytes than can be counted")]
    TooLarge { tensor: String, shape: Vec<u64> },
    #[error("tensor `{tensor}` has the unknown type id {id}: {advice}")]
    TensorType { tensor: String, id: u32, advice: &'static str },
    #[error(
        "tensor `{tensor}` has rows of {cols} weights, no whole number of {ty} blocks of {block_len}"
    )]
    RaggedRow { tensor: String, ty: &'static str, cols: u64, block_len: u64 },
    #[error("tensor `{tensor}` begins at {offset} of the data, no multiple of {alignment}")]
    Misaligned { tensor: String, offset: u64, alignment: u64 },
    #[error(
        "tensor `{tensor}` begins at byte {offset}, past the end of the file of {file_len} bytes. \
         Is the download complete?"
    )]
    OffsetPastEnd { tensor: String, offset: u64, file_len: u64 },
    #[error(
        "tensor `{tensor}` takes {size} bytes from byte {offset} on, but the file has only \
         {file_len}. Is the download complete?"
    )]
    TruncatedTensor { tensor: String, offset: u64, size: u64, file_len: u64 },
    #[error("tensors `{first}` and `{second}` overlap at byte {offset}: the file is damaged")]
    Overlap { first: String, second: String, offset: u64 },
    #[error("the tensor `{tensor}` stands twice in the file: it is damaged")]
    DuplicateTensor { tensor: String },

    #[error("the file has no key `{key}`")]
    MissingKey { key: String },
    #[error("the key `{key}` should be {expected}, but is {found}")]
    WrongType { key: String, expected: &'static str, found: String },

    #[error(
        "{} is missing: the model is split into {count} files, and all must lie in one folder",
        path.display()
    )]
    MissingPart { path: PathBuf, count: u32 },
    #[error("{}: not a part of this set: {reason}", path.display())]
    ForeignPart { path: PathBuf, reason: String },
    #[error(
        "{}: the file says it is part {number} of {count}, but its name does not end in \
         `-{number:05}-of-{count:05}.gguf`: give it the name that it was published under",
        path.display()
    )]
    PartName { path: PathBuf, number: u64, count: u64 },

    #[error("writing tensor `{tensor}`: {written} bytes came, but its shape and type make {size}")]
    WrittenSize { tensor: String, size: u64, written: u64 },
    #[error("more bytes were written than the declared tensors have")]
    WrittenTooMuch,
}
