//! Which computation gives an answer: the model's bytes, and every option that changes results.
//!
//! Two engines with the same fingerprint give the same answers, and can use each other's keys and
//! values.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use cachalot_gguf::{KvType, split::part_paths};
use sha2::{Digest, Sha256};

use crate::layout::{Options, Source};

/// Bytes that are read at each place of a file.
const SAMPLE_BYTES: u64 = 64 << 10;
/// Places at which a model is read, over all of its files, and of each file at least.
const SAMPLES: u64 = 32;
const SAMPLES_MIN: u64 = 2;

/// Names a computation: a SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The computation of this model with these options and this KV type, by this version.
    ///
    /// Reading 400 GB would take minutes, so files count with their lengths and with samples: their
    /// beginnings, which hold the header, their ends, and places between.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn of(source: &Source, options: &Options, kv_type: KvType) -> io::Result<Self> {
        let mut hash = Sha256::new();
        let Options { tier, experts, groups, reproducible, prefer_cached, .. } = options;
        let version = env!("CARGO_PKG_VERSION");
        let settings = format!(
            "cachalot {version} {tier:?} {experts:?} {groups:?} {reproducible} {prefer_cached} \
             {kv_type}"
        );
        hash.update((settings.len() as u64).to_le_bytes());
        hash.update(settings);
        match source {
            Source::Embedded(bytes) => sample(&mut io::Cursor::new(bytes), SAMPLES, &mut hash)?,
            Source::File(path) => {
                let paths = part_paths(path);
                let samples = (SAMPLES / paths.len() as u64).max(SAMPLES_MIN);
                for path in paths {
                    sample(&mut File::open(path)?, samples, &mut hash)?;
                }
            }
        }
        Ok(Self(hash.finalize().into()))
    }
}

/// Takes in a file's length, and its bytes at `count` places, evenly spaced from start to end.
fn sample(file: &mut (impl Read + Seek), count: u64, hash: &mut Sha256) -> io::Result<()> {
    let len = file.seek(SeekFrom::End(0))?;
    hash.update(len.to_le_bytes());
    let last = len.saturating_sub(SAMPLE_BYTES);
    let mut bytes = Vec::new();
    for i in 0..count {
        let at = u128::from(last) * u128::from(i) / u128::from(count - 1);
        file.seek(SeekFrom::Start(at as u64))?;
        bytes.clear();
        file.take(SAMPLE_BYTES).read_to_end(&mut bytes)?;
        hash.update(&bytes);
    }
    Ok(())
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_bytes_lengths_and_options_are_another_computation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let options = Options::default();
        let mut bytes = vec![7; 3 << 20];
        let of = |bytes: &[u8], options: &Options, kv_type| {
            std::fs::write(&path, bytes).unwrap();
            Fingerprint::of(&Source::File(path.clone()), options, kv_type).unwrap()
        };
        let first = of(&bytes, &options, KvType::F16);
        assert_eq!(of(&bytes, &options, KvType::F16), first);
        assert_eq!(first.to_string().len(), 64);
        assert_ne!(of(&bytes, &options, KvType::Q8_0), first);
        let other = Options { reproducible: true, ..Options::default() };
        assert_ne!(of(&bytes, &other, KvType::F16), first);
        assert_ne!(of(&bytes[1..], &options, KvType::F16), first);
        for at in [0, (3 << 20) - 1] {
            bytes[at] = 8;
            assert_ne!(of(&bytes, &options, KvType::F16), first, "byte {at}");
            bytes[at] = 7;
        }
        let missing = Source::File(folder.path().join("none.gguf"));
        assert!(Fingerprint::of(&missing, &options, KvType::F16).is_err());
        assert_eq!(of(b"", &options, KvType::F16), of(b"", &options, KvType::F16));
    }
}
