//! SHA-256 of files while they arrive: it follows the chunks that are there from the beginning on.
//!
//! Bytes are read back from the file, so that what is hashed is what was written; that close behind
//! the connections they come from the page cache. The state of the hash goes into the journal, so
//! that a pull that is taken up again does not read what it has read before.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::PoisonError;
use std::sync::mpsc::Sender;

use super::disk::Note;
use super::journal::{self, CHUNK, Entry};
use super::{Event, Shared};
use crate::Sha256;
use crate::digest::Hasher;

/// Chunks between two states in the journal: 64 MiB.
const STATE_CHUNKS: u64 = 32;

/// Hashes files, one after the other, until there is nothing left to hash.
pub(crate) fn hash_files(shared: &Shared, notes: &[Sender<Note>]) {
    while let Some(file) = shared.next_to_hash() {
        let notes = &notes[shared.files[file].disk];
        match hash_file(shared, file, notes) {
            Ok(Some((epoch, hash))) => shared.tell(Event::Hashed { file, epoch, hash }),
            Ok(None) => {}
            Err(error) => shared.tell(Event::Disk { file, error }),
        }
    }
}

/// The hash of a range, which the registry states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunksum {
    /// In bytes.
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) hash: Sha256,
}

/// A file while it is hashed.
struct Hashing<'a> {
    shared: &'a Shared,
    file: usize,
    epoch: u32,
    notes: &'a Sender<Note>,
    hasher: Hasher,
    /// Bytes hashed.
    at: u64,
    /// The range that is being compared, and the hash of its bytes so far.
    range: Option<(Chunksum, Hasher)>,
    /// Where the last ranges began, with the states before them: back to the beginning of the chunk
    /// that the current range begins in, because chunks are what is fetched again.
    begun: Vec<(u64, Hasher)>,
}

/// `None` if the pull stops, or the file begins again.
fn hash_file(
    shared: &Shared,
    file: usize,
    notes: &Sender<Note>,
) -> io::Result<Option<(u32, Sha256)>> {
    let state = &shared.files[file];
    let epoch = shared.schedule().epoch(file);
    let kept =
        state.take_hashed().and_then(|(chunks, hash)| Some((chunks, Hasher::from_state(&hash)?)));
    let (chunks, hasher) = kept.unwrap_or_default();
    let at = journal::bytes(0..chunks, state.file.size).end;
    let begun = vec![(at, hasher.clone())];
    let mut hashing = Hashing { shared, file, epoch, notes, hasher, at, range: None, begun };
    let mut buffer = vec![0; CHUNK as usize / 2];
    while hashing.at < state.file.size {
        let Some(until) = shared.wait_for(file, epoch, hashing.at) else { return Ok(None) };
        while hashing.at < until {
            if shared.is_stopped() {
                return Ok(None);
            }
            if !hashing.advance(until, &mut buffer)? {
                break;
            }
        }
    }
    Ok(Some((epoch, hashing.hasher.finish())))
}

impl Hashing<'_> {
    /// Hashes the next bytes, not beyond `until`, and compares the range that they end. False if it
    /// was wrong, or the file begins again: its bytes have to be waited for.
    fn advance(&mut self, until: u64, buffer: &mut [u8]) -> io::Result<bool> {
        let state = &self.shared.files[self.file];
        if self.range.is_none()
            && let Some(sum) = state.chunksum_at(self.at)
        {
            self.begin(sum);
        }
        let end = self.range.as_ref().map_or(until, |(sum, ..)| sum.end.min(until));
        let len = (end - self.at).min(buffer.len() as u64) as usize;
        let bytes = &mut buffer[..len];
        {
            // The file is not cut while it is read, and what belongs to another epoch is not read.
            let writing = state.writing.read().unwrap_or_else(PoisonError::into_inner);
            if *writing != self.epoch {
                return Ok(false);
            }
            state.partial.read_exact_at(bytes, self.at)?;
        }
        self.hasher.update(bytes);
        if let Some((_, hasher)) = &mut self.range {
            hasher.update(bytes);
        }
        self.at += len as u64;
        if self.range.as_ref().is_some_and(|(sum, ..)| self.at == sum.end) && !self.compare() {
            return Ok(false);
        }
        let chunks = self.at / CHUNK;
        if self.at.is_multiple_of(CHUNK * STATE_CHUNKS) && self.range.is_none() {
            self.note(Entry::Hashed(chunks, self.hasher.state()));
        }
        Ok(true)
    }

    fn begin(&mut self, sum: Chunksum) {
        let chunk = sum.start / CHUNK * CHUNK;
        let needed = self.begun.partition_point(|(start, _)| *start <= chunk);
        self.begun.drain(..needed.saturating_sub(1));
        self.begun.push((sum.start, self.hasher.clone()));
        self.range = Some((sum, Hasher::default()));
    }

    /// Compares a range; if it is wrong, its chunks are fetched and hashed again, with what else is
    /// in them.
    fn compare(&mut self) -> bool {
        let Some((sum, hasher)) = self.range.take() else { return true };
        let found = hasher.finish();
        if found == sum.hash {
            return true;
        }
        let chunks = sum.start / CHUNK..sum.end.div_ceil(CHUNK);
        let before = self.begun.partition_point(|(start, _)| *start <= chunks.start * CHUNK);
        self.begun.truncate(before.max(1));
        let (at, hasher) = self.begun[self.begun.len() - 1].clone();
        (self.hasher, self.at) = (hasher, at);
        self.note(Entry::Lost(chunks.clone()));
        let (file, epoch) = (self.file, self.epoch);
        self.shared.schedule().release(file, epoch, chunks);
        self.shared.tell(Event::BadRange { file, sum, found });
        self.shared.announce();
        false
    }

    fn note(&self, entry: Entry) {
        let (file, epoch) = (self.file, self.epoch);
        let _ = self.notes.send(Note { file, epoch, entry, _permit: None });
    }
}
