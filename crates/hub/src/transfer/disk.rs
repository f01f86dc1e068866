//! Recording what is written, in the order that `journal` explains.
//!
//! Connections write what arrives themselves. A thread for each folder waits for its drive; while
//! it waits, more chunks are written, so that one wait serves all of them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use tokio::sync::OwnedSemaphorePermit;

use super::journal::Entry;
use super::{Event, Shared};

/// What is to be recorded.
#[derive(Debug)]
pub(crate) struct Note {
    pub(crate) file: usize,
    pub(crate) epoch: u32,
    pub(crate) entry: Entry,
    /// Given back when the note is dropped, its entry being on the drive: this bounds the chunks of
    /// a connection that are not.
    pub(crate) _permit: Option<OwnedSemaphorePermit>,
}

/// The thread of one folder. Dropping all senders ends it, when all is done that was sent.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) notes: Sender<Note>,
    thread: JoinHandle<()>,
}

impl Disk {
    pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let (notes, noted) = mpsc::channel();
        let shared = shared.clone();
        let thread = thread::Builder::new().name("commit".to_owned());
        let thread = thread.spawn(move || commit_all(&shared, &noted))?;
        Ok(Self { notes, thread })
    }

    /// Waits until everything sent is safe.
    pub(crate) fn finish(self) {
        drop(self.notes);
        let _ = self.thread.join();
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
        let entries = notes.iter().filter(|note| note.epoch == epoch);
        let entries: Vec<Entry> = entries.map(|note| note.entry.clone()).collect();
        journal.append(&entries).map_err(named)?;
    }
    Ok(())
}
