//! Which chunks of a file are on the drive: a file of small records, one after the other.
//!
//! The order of writes that survives a crash at any point, of the process or of the machine:
//!
//! 1. the bytes of a chunk are written to `NAME.partial`;
//! 2. `fdatasync` of `NAME.partial`: the bytes are on the drive;
//! 3. a record that says so is written to the journal, after all others;
//! 4. `fdatasync` of the journal: from here on the chunk is not fetched again.
//!
//! A record is believed if its check agrees, and ends the journal if not: what a crash leaves half
//! written is the tail, and zeros are no record. A connection has at most [`PENDING_CHUNKS`] chunks
//! between 1 and 4 and one that is arriving, 6 MiB together, and the system may have received some
//! more: below 8 MiB in all.
//!
//! At the end the hash is checked, the file is renamed to its name, its folder is synchronized, the
//! manifest is written, and only then the journal goes.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::intervals::Intervals;
use crate::digest::Hasher;
use crate::error::at;
use crate::fileset::RemoteFile;
use crate::{Error, Sha256};

/// Bytes of a chunk, but for the last one of a file.
pub(crate) const CHUNK: u64 = 2 << 20;
/// Chunks of a connection that have arrived and are not yet safe.
pub(crate) const PENDING_CHUNKS: usize = 2;
/// The largest file that is believed in: 2^50 bytes.
pub(crate) const SIZE_MAX: u64 = 1 << 50;

const MAGIC: &[u8; 8] = b"cachjnl1";
const CHECK: usize = 4;
/// Zeros that are written ahead.
const ROOM: usize = 64 << 10;
/// No journal is longer; it is made short again each time that a pull begins.
const JOURNAL_MAX: u64 = 256 << 20;

/// What happened to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// These chunks are on the drive.
    Safe(Range<u64>),
    /// These chunks are there no more: they were wrong.
    Lost(Range<u64>),
    /// The state of the hash after this number of chunks from the beginning.
    Hashed(u64, Vec<u8>),
}

/// What a journal says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Chunks that are on the drive.
    pub(crate) safe: Intervals,
    /// Chunks that are in the hash's state, and the state.
    pub(crate) hashed: Option<(u64, Vec<u8>)>,
}

/// How many chunks a file has.
pub(crate) fn chunks(size: u64) -> u64 {
    size.div_ceil(CHUNK)
}

/// The chunks that have these bytes.
pub(crate) fn chunks_of(bytes: Range<u64>) -> Range<u64> {
    bytes.start / CHUNK..bytes.end.div_ceil(CHUNK)
}

/// The bytes of these chunks.
pub(crate) fn bytes(chunks: Range<u64>, size: u64) -> Range<u64> {
    (chunks.start * CHUNK).min(size)..(chunks.end * CHUNK).min(size)
}

/// What a journal belongs to: chunks of another version of the file are of no use.
fn identity(file: &RemoteFile) -> Sha256 {
    match file.sha256 {
        Some(hash) => hash,
        None => Sha256::of(file.url.as_bytes()),
    }
}

/// What a journal begins with.
pub(crate) fn header(file: &RemoteFile) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(file.size.to_le_bytes());
    bytes.extend(CHUNK.to_le_bytes());
    bytes.extend(identity(file).bytes());
    let check = check(&bytes);
    bytes.extend(check);
    bytes
}

fn check(bytes: &[u8]) -> [u8; CHECK] {
    let hash = Sha256::of(bytes).bytes();
    [hash[0], hash[1], hash[2], hash[3]]
}

impl Entry {
    fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        match self {
            Self::Safe(range) | Self::Lost(range) => {
                out.push(if matches!(self, Self::Safe(_)) { 1 } else { 2 });
                out.extend(range.start.to_le_bytes());
                out.extend(range.end.to_le_bytes());
            }
            Self::Hashed(chunks, state) => {
                out.push(3);
                out.extend(chunks.to_le_bytes());
                out.extend(state);
            }
        }
        let check = check(&out[start..]);
        out.extend(check);
    }

    /// The entry at the beginning of `bytes`, and the bytes that it takes.
    fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let (entry, len) = match bytes.first()? {
            1 => (Self::Safe(number(1)?..number(9)?), 17),
            2 => (Self::Lost(number(1)?..number(9)?), 17),
            3 => {
                let state = bytes.get(9..9 + Hasher::STATE_BYTES)?;
                (Self::Hashed(number(1)?, state.to_vec()), 9 + Hasher::STATE_BYTES)
            }
            _ => return None,
        };
        let sound = bytes.get(len..len + CHECK)? == check(&bytes[..len]);
        sound.then_some((entry, len + CHECK))
    }
}

/// What the bytes of a journal say of `file`. Any bytes give a state that fits it: nothing, if they
/// belong to another file.
pub(crate) fn parse(bytes: &[u8], file: &RemoteFile) -> State {
    let mut state = State::default();
    let Some(mut rest) = bytes.strip_prefix(&*header(file)) else { return state };
    let all = chunks(file.size);
    while let Some((entry, len)) = Entry::read(rest) {
        rest = &rest[len..];
        match entry {
            Entry::Safe(range) if range.start < range.end && range.end <= all => {
                state.safe.insert(range);
            }
            Entry::Lost(range) if range.start < range.end && range.end <= all => {
                if state.hashed.as_ref().is_some_and(|(chunks, _)| *chunks > range.start) {
                    state.hashed = None;
                }
                state.safe.remove(range);
            }
            Entry::Hashed(chunks, hash)
                if state.safe.contains(0..chunks) && Hasher::from_state(&hash).is_some() =>
            {
                state.hashed = Some((chunks, hash));
            }
            _ => break,
        }
    }
    state
}

/// Bytes that the journal at `path` calls safe.
pub(crate) fn done(path: &Path, file: &RemoteFile) -> u64 {
    let safe = read(path, file).map(|state| state.safe).unwrap_or_default();
    let all = chunks(file.size);
    let missing_tail = match safe.contains(all.saturating_sub(1)..all) && all > 0 {
        true => all * CHUNK - file.size,
        false => 0,
    };
    safe.count() * CHUNK - missing_tail
}

fn read(path: &Path, file: &RemoteFile) -> io::Result<State> {
    if file.size > SIZE_MAX {
        return Ok(State::default());
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(JOURNAL_MAX).read_to_end(&mut bytes)?;
    Ok(parse(&bytes, file))
}

/// A journal that is being written. Zeros follow what has been written, so that the drive has room
/// for entries before they come, and their synchronization has nothing but them to write.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    end: u64,
    len: u64,
}

impl Journal {
    /// Opens the journal of `file` and makes it short. Chunks beyond the end of the partial file
    /// are not believed: it was cut, or is another one.
    pub(crate) fn open(
        path: &Path,
        file: &RemoteFile,
        partial_len: u64,
    ) -> Result<(Self, State), Error> {
        let mut state = read(path, file).unwrap_or_default();
        let there = if partial_len >= file.size { chunks(file.size) } else { partial_len / CHUNK };
        if let Some(last) = state.safe.last() {
            state.safe.remove(there..last + 1);
        }
        if state.hashed.as_ref().is_some_and(|(chunks, _)| *chunks > there) {
            state.hashed = None;
        }
        let mut bytes = header(file);
        for range in state.safe.iter() {
            Entry::Safe(range).write(&mut bytes);
        }
        if let Some((chunks, hash)) = &state.hashed {
            Entry::Hashed(*chunks, hash.clone()).write(&mut bytes);
        }
        crate::library::write_atomically(path, &bytes)?;
        let file = File::options().write(true).open(path).map_err(at(path))?;
        let end = bytes.len() as u64;
        Ok((Self { file, end, len: end }, state))
    }

    /// Appends entries and waits until they are on the drive.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(entries.len() * 24);
        entries.iter().for_each(|entry| entry.write(&mut bytes));
        let end = self.end + bytes.len() as u64;
        if end > self.len {
            let zeros = vec![0; (end - self.len) as usize + ROOM];
            self.file.write_all_at(&zeros, self.len)?;
            self.len += zeros.len() as u64;
        }
        self.file.write_all_at(&bytes, self.end)?;
        self.end = end;
        self.file.sync_data()
    }

    /// Forgets everything.
    pub(crate) fn reset(&mut self, file: &RemoteFile) -> io::Result<()> {
        let header = header(file);
        self.file.set_len(0)?;
        self.file.write_all_at(&header, 0)?;
        self.end = header.len() as u64;
        self.len = self.end;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::library::Role;

    fn file(size: u64) -> RemoteFile {
        RemoteFile {
            name: "x.gguf".into(),
            size,
            sha256: Some(Sha256::of(b"x")),
            role: Role::Model,
            url: "http://127.0.0.1/x".into(),
            chunksums: None,
        }
    }

    fn range(range: Range<u64>) -> Entry {
        Entry::Safe(range)
    }

    #[test]
    fn what_was_appended_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let file = file(10 * CHUNK - 5);
        let (mut journal, state) = Journal::open(&path, &file, 0).unwrap();
        assert_eq!(state, State::default());
        let hash = Hasher::default().state();
        journal.append(&[range(0..2), range(9..10)]).unwrap();
        journal.append(&[Entry::Hashed(1, hash.clone()), range(4..5)]).unwrap();
        assert_eq!(done(&path, &file), 4 * CHUNK - 5);
        let (mut journal, state) = Journal::open(&path, &file, file.size).unwrap();
        assert_eq!(state.safe.iter().collect::<Vec<_>>(), [0..2, 4..5, 9..10]);
        assert_eq!(state.hashed, Some((1, hash)));
        journal.append(&[Entry::Lost(0..1)]).unwrap();
        let (_, state) = Journal::open(&path, &file, 3 * CHUNK).unwrap();
        assert!(state.safe.contains(1..2) && state.safe.count() == 1, "the partial file was cut");
        assert_eq!(state.hashed, None, "what was hashed is lost");
        let other = RemoteFile { sha256: None, ..file };
        assert_eq!(done(&path, &other), 0, "another file's");
    }

    #[test]
    fn a_journal_cut_anywhere_says_what_is_before_the_cut() {
        let file = file(100 * CHUNK);
        let mut bytes = header(&file);
        let mut ends = vec![bytes.len()];
        for i in 0..20 {
            range(i * 2..i * 2 + 1).write(&mut bytes);
            ends.push(bytes.len());
        }
        for cut in 0..=bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1);
            assert_eq!(parse(&bytes[..cut], &file).safe.count(), whole as u64, "{cut}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_state_that_fits(
            head in any::<bool>(),
            tail in prop::collection::vec(any::<u8>(), 0..200),
            entries in prop::collection::vec((0u64..12, 0u64..12), 0..8),
            flip in any::<prop::sample::Index>(),
        ) {
            let file = file(8 * CHUNK + 1);
            let mut bytes = if head { header(&file) } else { Vec::new() };
            entries.iter().for_each(|(start, end)| range(*start..*end).write(&mut bytes));
            bytes.extend(&tail);
            let state = parse(&bytes, &file);
            prop_assert!(state.safe.count() <= chunks(file.size));
            if !bytes.is_empty() {
                let at = flip.index(bytes.len());
                bytes[at] ^= 1;
                prop_assert!(parse(&bytes, &file).safe.count() <= chunks(file.size));
            }
        }
    }
}
