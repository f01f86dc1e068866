//! What a model consists of, whatever service it comes from.

use serde::{Deserialize, Serialize};

use crate::library::Role;
use crate::{Name, Sha256};

/// The exact files of a model at a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSet {
    /// The name, with the quantization that was chosen.
    pub name: Name,
    /// What pins these files: the hash of a manifest, a commit, the hash of an address.
    pub revision: String,
    /// The parts of the model in order, then what comes with them.
    pub files: Vec<RemoteFile>,
}

/// A file at a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteFile {
    /// Its name here.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// Its hash, if the service states it.
    pub sha256: Option<Sha256>,
    /// What it is for.
    pub role: Role,
    /// Where it is.
    pub url: String,
    /// Where hashes of its ranges may be.
    pub chunksums: Option<String>,
}

impl FileSet {
    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).fold(0, u64::saturating_add)
    }

    /// The parts of the model, in order.
    pub fn parts(&self) -> impl Iterator<Item = &RemoteFile> {
        self.files.iter().filter(|file| file.role == Role::Model)
    }
}

/// Orders parts by their `split.no`, which must be 0, 1, 2 and so on.
///
/// # Errors
/// Which part is missing, or there twice.
pub(crate) fn in_split_order<T>(mut parts: Vec<(u64, T)>) -> Result<Vec<T>, String> {
    parts.sort_by_key(|(number, _)| *number);
    let count = parts.len();
    for (expected, (number, _)) in parts.iter().enumerate() {
        if *number != expected as u64 {
            let expected = expected + 1;
            return Err(format!(
                "the model has {count} files, and part {expected} is not among them by their `split.no`"
            ));
        }
    }
    Ok(parts.into_iter().map(|(_, part)| part).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_ordered_by_their_number() {
        assert_eq!(in_split_order(vec![(2, 'c'), (0, 'a'), (1, 'b')]), Ok(vec!['a', 'b', 'c']));
        assert!(in_split_order(vec![(0, 'a'), (2, 'c')]).unwrap_err().contains("part 2"));
        assert!(in_split_order(vec![(0, 'a'), (0, 'b')]).unwrap_err().contains("part 2"));
        assert!(in_split_order(vec![(u64::MAX, 'a'), (0, 'b')]).is_err(), "one has no number");
    }
}
