//! Reading only the header of a file: a model may have 400 GB, its header has a few MB.

use std::fs::File;
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
            let file = File::open(path)?;
            let file_len = file.metadata()?.len();
            Self::read(file, file_len)
        };
        described()
            .map_err(|source| Error::File { path: path.to_owned(), source: Box::new(source) })
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
