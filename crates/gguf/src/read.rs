//! Reading only the header of a file: a model may have 400 GB, its header has a few MB.

use std::fs::{File, Metadata};
use std::io::Read;
use std::path::Path;

use crate::{Error, Gguf};

/// Size of the first read: enough for a header without a vocabulary.
const FIRST_READ: u64 = 1 << 20;
/// Headers with a vocabulary of 2.6 * 10^5 tokens have about 20 MB.
const HEADER_MAX: u64 = 1 << 30;

impl Gguf {
    /// Describes the file at `path`, reading no more than about twice its header.
    ///
    /// # Errors
    /// [`Error::File`], which names the file, around whatever is wrong with it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let described = || {
            check_regular(path)?;
            let file = File::open(path)?;
            let file_len = file.metadata()?.len();
            Self::read(file, file_len)
        };
        described()
            .map_err(|source| advised(path, source))
            .map_err(|source| Error::File { path: path.to_owned(), source: Box::new(source) })
    }

    /// Describes the file at `path` from all of its bytes, which are mapped.
    ///
    /// # Errors
    /// As [`open`](Self::open), without the name of the file.
    pub fn parse_mapped(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let header = &bytes[..bytes.len().min(HEADER_MAX as usize)];
        Self::parse(header, bytes.len() as u64).map_err(|source| match source {
            Error::NeedMore { .. } => Error::HeaderTooLarge { limit: HEADER_MAX },
            source => advised(path, source),
        })
    }

    /// Describes a file of `file_len` bytes, read from its beginning in steps that double.
    ///
    /// # Errors
    /// Those of [`Gguf::parse`] but for `NeedMore`, and those of `reader`.
    pub fn read(mut reader: impl Read, file_len: u64) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        let mut wanted = FIRST_READ;
        loop {
            let missing = wanted.min(file_len).saturating_sub(bytes.len() as u64);
            let got = reader.by_ref().take(missing).read_to_end(&mut bytes)? as u64;
            // A file may turn out to be shorter than stated.
            let file_len = if got < missing { bytes.len() as u64 } else { file_len };
            match Self::parse(&bytes, file_len) {
                Err(Error::NeedMore { at_least }) if at_least > HEADER_MAX => {
                    return Err(Error::HeaderTooLarge { limit: HEADER_MAX });
                }
                Err(Error::NeedMore { at_least }) => wanted = at_least.max(2 * wanted),
                described => return described,
            }
        }
    }
}

/// Checks that a path names a file, without opening it: that would wait for the other end of a
/// pipe.
///
/// # Errors
/// [`Error::NotRegular`], and those of the system.
pub fn check_regular(path: &Path) -> Result<(), Error> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_file() { Ok(()) } else { Err(not_regular(&metadata)) }
}

/// The advice about pieces, where the file's name suggests it.
fn advised(path: &Path, source: Error) -> Error {
    piece_of(path).filter(|_| is_cut(&source)).unwrap_or(source)
}

fn not_regular(metadata: &Metadata) -> Error {
    #[cfg(unix)]
    let kind = {
        use std::os::unix::fs::FileTypeExt;
        let ty = metadata.file_type();
        match () {
            () if ty.is_fifo() => "a pipe",
            () if ty.is_socket() => "a socket",
            () if ty.is_dir() => "a folder",
            () => "a device",
        }
    };
    #[cfg(not(unix))]
    let kind = if metadata.is_dir() { "a folder" } else { "a device" };
    Error::NotRegular { kind }
}

/// Whether a fault is that of a file whose beginning or end is missing.
fn is_cut(error: &Error) -> bool {
    matches!(
        error,
        Error::NotGguf { .. }
            | Error::Truncated { .. }
            | Error::Count { .. }
            | Error::OffsetPastEnd { .. }
            | Error::TruncatedTensor { .. }
    )
}

/// The advice for a file that is named as pieces of one file are: `m.gguf.part1of2`, `m.gguf.001`,
/// `m.gguf.aa`, `m.gguf-split-b`.
fn piece_of(path: &Path) -> Option<Error> {
    let name = path.file_name()?.to_str()?;
    let at = name.to_ascii_lowercase().rfind(".gguf")?;
    let (stem, piece) = name.split_at(at + ".gguf".len());
    let piece = piece.strip_prefix(['.', '-', '_'])?.to_ascii_lowercase();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let numbered = |text: &str| {
        let text = text.trim_start_matches(['-', '_', '.']);
        text.split_once("of").map_or_else(|| digits(text), |(n, of)| digits(n) && digits(of))
    };
    let lettered = |text: &str| {
        let text = text.trim_start_matches(['-', '_', '.']);
        (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase())
    };
    let rest = ["part", "split", "piece"].iter().find_map(|word| piece.strip_prefix(word));
    let is_piece = match rest {
        Some(rest) => numbered(rest) || lettered(rest),
        None => numbered(&piece) || (piece.len() == 2 && lettered(&piece)),
    };
    is_piece.then(|| Error::Piece { stem: stem.to_owned() })
}
