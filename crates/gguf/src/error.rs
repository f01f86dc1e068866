//! What can be wrong with a GGUF. Every message names the place and what to do.

use std::path::PathBuf;

/// Why a file cannot be described, a value cannot be read, or a file cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the messages describe the variants and their fields
pub enum Error {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: Box<Self> },
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("not a regular file but {kind}: a model must be a file on a drive or in memory")]
    NotRegular { kind: &'static str },
    #[error(
        "this is one piece of a file that was cut up for its download, not a part of a split model: \
         join the pieces in order, as in `cat {stem}.* > {stem}`, and use the result"
    )]
    Piece { stem: String },
    #[error(
        "{}: {count} parts of a split model were joined by `cat`, which does not make a model: get \
         the parts again and keep them side by side, or join them with `llama-gguf-split --merge`",
        path.display()
    )]
    JoinedParts { path: PathBuf, count: u64 },

    /// Not a fault of the file: the caller passed only part of the header. Call again with this
    /// many bytes.
    #[error("the header is incomplete: at least {at_least} bytes of the file are needed")]
    NeedMore { at_least: u64 },
    #[error(
        "the header is larger than {limit} bytes, the limit for any model: the file is damaged"
    )]
    HeaderTooLarge { limit: u64 },

    #[error("not a GGUF file: {looks_like}")]
    NotGguf { looks_like: &'static str },
    #[error("GGUF version 1 is not supported: convert the model again or get a newer file")]
    Version1,
    #[error("GGUF version {version} is newer than versions 2 and 3, which are supported")]
    NewVersion { version: u32 },
    #[error("the file is big-endian GGUF: get the little-endian file or convert it")]
    BigEndian,

    #[error(
        "the file ends inside {reading}: {needed} bytes are needed from byte {offset}, but the file \
         has only {file_len}. Is the download complete?"
    )]
    Truncated { reading: String, offset: u64, needed: u64, file_len: u64 },
    #[error(
        "{reading} claims {count} elements at byte {offset}, more than the file of {file_len} bytes \
         can hold: it is damaged or its download is incomplete"
    )]
    Count { reading: String, count: u64, offset: u64, file_len: u64 },
    #[error("{reading} is not UTF-8 (at byte {offset}): the file is damaged")]
    NotUtf8 { reading: String, offset: u64 },
    #[error("{reading} is empty (at byte {offset}): the file is damaged")]
    EmptyName { reading: String, offset: u64 },
    #[error("{reading} has the unknown value type {id} (at byte {offset}): the file is damaged")]
    ValueType { reading: String, id: u32, offset: u64 },
    #[error("{reading} is a boolean of value {byte} (at byte {offset}): only 0 and 1 are allowed")]
    NotBool { reading: String, byte: u8, offset: u64 },
    #[error("{reading} nests arrays deeper than {limit}")]
    TooDeep { reading: String, limit: u32 },
    #[error("the key `{key}` appears twice: the file is damaged")]
    DuplicateKey { key: String },
    #[error("general.alignment is {alignment}: it must be a power of two from 8 to 2^30")]
    Alignment { alignment: u64 },

    #[error("tensor `{tensor}` has {count} dimensions: 1 to 4 are allowed")]
    Dimensions { tensor: String, count: u32 },
    #[error("tensor `{tensor}` has the shape {shape:?}: no dimension may be 0")]
    ZeroDimension { tensor: String, shape: Vec<u64> },
    #[error("tensor `{tensor}` of shape {shape:?} is too large: its size overflows")]
    TooLarge { tensor: String, shape: Vec<u64> },
    #[error("tensor `{tensor}` has the unknown type id {id}: {advice}")]
    TensorType { tensor: String, id: u32, advice: &'static str },
    #[error(
        "tensor `{tensor}` has rows of {cols} weights, not a multiple of {ty}'s block length \
         {block_len}"
    )]
    RaggedRow { tensor: String, ty: &'static str, cols: u64, block_len: u64 },
    #[error("tensor `{tensor}` starts at data offset {offset}, not a multiple of {alignment}")]
    Misaligned { tensor: String, offset: u64, alignment: u64 },
    #[error(
        "tensor `{tensor}` starts at byte {offset}, past the end of the file of {file_len} bytes. \
         Is the download complete?"
    )]
    OffsetPastEnd { tensor: String, offset: u64, file_len: u64 },
    #[error(
        "tensor `{tensor}` has {size} bytes from byte {offset}, but the file has only {file_len}. \
         Is the download complete?"
    )]
    TruncatedTensor { tensor: String, offset: u64, size: u64, file_len: u64 },
    #[error("tensors `{first}` and `{second}` overlap at byte {offset}: the file is damaged")]
    Overlap { first: String, second: String, offset: u64 },
    #[error("the tensor `{tensor}` appears twice: the file is damaged")]
    DuplicateTensor { tensor: String },

    #[error("the file has no key `{key}`")]
    MissingKey { key: String },
    #[error("the key `{key}` should be {expected}, but is {found}")]
    WrongType { key: String, expected: &'static str, found: String },

    #[error(
        "{} is missing: the model is split into {count} files, which must be in one folder",
        path.display()
    )]
    MissingPart { path: PathBuf, count: u32 },
    #[error("{}: not a part of this set: {reason}", path.display())]
    ForeignPart { path: PathBuf, reason: String },
    #[error(
        "{}: its metadata say it is part {number} of {count}, but its name does not end in \
         `-{number:05}-of-{count:05}.gguf`: rename it to the name it was published under",
        path.display()
    )]
    PartName { path: PathBuf, number: u64, count: u64 },

    #[error("tensor `{tensor}`: {written} bytes were written, but its shape and type need {size}")]
    WrittenSize { tensor: String, size: u64, written: u64 },
    #[error("more bytes were written than the declared tensors have")]
    WrittenTooMuch,
}
