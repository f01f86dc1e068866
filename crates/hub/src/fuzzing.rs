//! Every reader of bytes from outside, for the fuzz target: none of them may panic.

use crate::fileset::RemoteFile;
use crate::library::{Record, Role};
use crate::manifest::Manifest;
use crate::pulling::Plan;
use crate::transfer::journal;
use crate::{Name, hugging_face, registry};

/// Gives these bytes to all readers, and checks what they accept.
///
/// # Panics
/// If one of them accepts what it must not.
pub fn read_all(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::parse(bytes) {
        assert!(!manifest.models.is_empty());
    }
    if let Ok(files) = hugging_face::parse_listing(bytes) {
        assert!(files.iter().all(|file| !file.path.contains("..") || !file.path.starts_with('/')));
        for choice in crate::quant::choices(&files) {
            assert!(!choice.files.is_empty());
        }
    }
    if let Some(sums) = registry::parse_chunksums(bytes, 1 << 40) {
        assert_eq!(sums.last().map(|sum| sum.end), Some(1 << 40));
    }
    let _ = Record::parse(bytes);
    if let Ok(plan) = Plan::parse(bytes) {
        assert!(plan.folders.iter().all(|folder| folder.is_absolute()));
    }
    let file = RemoteFile {
        name: "x.gguf".to_owned(),
        size: 9 * journal::CHUNK + 1,
        sha256: None,
        role: Role::Model,
        url: "https://example.org/x.gguf".to_owned(),
        chunksums: None,
    };
    // With the right beginning, so that records are reached.
    let mut whole = journal::header(&file);
    whole.extend_from_slice(bytes);
    for bytes in [bytes, &whole] {
        let state = journal::parse(bytes, &file);
        assert!(state.safe.count() <= journal::chunks(file.size));
        assert!(state.hashed.is_none_or(|(chunks, _)| state.safe.contains(0..chunks)));
    }
    if let Ok(name) = String::from_utf8_lossy(bytes).parse::<Name>() {
        assert!(name.key().iter().all(|part| !part.contains('/') && !part.starts_with('.')));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::read_all;

    /// The fuzzer's inputs.
    fn corpus() -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/hub");
        let files = fs::read_dir(folder).unwrap().flatten();
        let inputs: Vec<_> = files.map(|file| fs::read(file.path()).unwrap()).collect();
        assert!(inputs.len() >= 6);
        inputs
    }

    proptest! {
        #[test]
        fn inputs_with_changes_are_read(
            which in any::<prop::sample::Index>(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let inputs = corpus();
            let mut input = which.get(&inputs).clone();
            for (at, byte) in changes {
                let at = at.index(input.len());
                input[at] = byte;
            }
            read_all(&input);
            read_all(&input[..cut.index(input.len())]);
        }
    }
}
