//! Writing chunks and recording them, in the order that `journal` explains.
//!
//! Two threads for each folder that files go to: one writes, the other waits for the drive. While it
//! waits, more chunks arrive, so that one wait serves all of them.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use tokio::sync::OwnedSemaphorePermit;

use super::journal::{CHUNK, Entry};
use super::{Event, Shared};

/// A chunk that has arrived.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) file: usize,
    pub(crate) epoch: u32,
    pub(crate) chunk: u64,
    pub(crate) bytes: Vec<u8>,
    /// Given back once the chunk is safe: what bounds the chunks that are not.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// What is to be recorded.
#[derive(Debug)]
pub(crate) struct Note {
    pub(crate) file: usize,
    pub(crate) epoch: u32,
    pub(crate) entry: Entry,
    /// Given back when the note is dropped, its entry being on the drive.
    pub(crate) _permit: Option<OwnedSemaphorePermit>,
}

/// The threads of one folder. Dropping the senders ends them, when all is done that was sent.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) arrivals: Sender<Arrival>,
    pub(crate) notes: Sender<Note>,
    threads: [JoinHandle<()>; 2],
}

impl Disk {
    pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let (arrivals, arriving) = mpsc::channel();
        let (notes, noted) = mpsc::channel();
        let (writer, committer, to_commit) = (shared.clone(), shared.clone(), notes.clone());
        let writing = thread::Builder::new()
            .name("write".to_owned())
            .spawn(move || write_all(&writer, &arriving, &to_commit))?;
        let committing = thread::Builder::new()
            .name("commit".to_owned())
            .spawn(move || commit_all(&committer, &noted))?;
        Ok(Self { arrivals, notes, threads: [writing, committing] })
    }

    /// Waits until everything sent is safe.
    pub(crate) fn finish(self) {
        let Self { arrivals, notes, threads } = self;
        drop((arrivals, notes));
        for thread in threads {
            let _ = thread.join();
        }
    }
}

fn write_all(shared: &Shared, arriving: &Receiver<Arrival>, notes: &Sender<Note>) {
    for Arrival { file, epoch, chunk, bytes, permit } in arriving {
        if shared.schedule().epoch(file) != epoch {
            continue;
        }
        let state = &shared.files[file];
        if let Err(error) = state.partial.write_all_at(&bytes, chunk * CHUNK) {
            shared.tell(Event::Disk { file, error });
            return;
        }
        let note =
            Note { file, epoch, entry: Entry::Safe(chunk..chunk + 1), _permit: Some(permit) };
        let _ = notes.send(note);
        if shared.schedule().arrived(file, epoch, chunk) {
            shared.announce();
        }
    }
}

fn commit_all(shared: &Shared, notes: &Receiver<Note>) {
    while let Ok(first) = notes.recv() {
        let batch: Vec<Note> = std::iter::once(first).chain(notes.try_iter()).collect();
        if let Err((file, error)) = commit(shared, batch) {
            shared.tell(Event::Disk { file, error });
            return;
        }
    }
}

/// Steps 2 to 4 for a batch.
fn commit(shared: &Shared, batch: Vec<Note>) -> Result<(), (usize, io::Error)> {
    let mut by_file: BTreeMap<usize, Vec<Note>> = BTreeMap::new();
    for note in batch {
        by_file.entry(note.file).or_default().push(note);
    }
    for (file, notes) in by_file {
        let state = &shared.files[file];
        let named = |error| (file, error);
        if notes.iter().any(|note| matches!(note.entry, Entry::Safe(_))) {
            state.partial.sync_data().map_err(named)?;
        }
        let mut journal = state.journal();
        let epoch = shared.schedule().epoch(file); // it changes under the journal's lock alone
        let entries: Vec<Entry> = notes
            .iter()
            .filter(|note| note.epoch == epoch)
            .map(|note| note.entry.clone())
            .collect();
        journal.append(&entries).map_err(named)?;
        drop(journal);
        let safe = entries.iter().filter(|entry| matches!(entry, Entry::Safe(_))).count();
        shared.committed.fetch_add(safe as u64, Ordering::Relaxed);
    }
    Ok(())
}
