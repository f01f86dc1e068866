//! The prefix cache on disk: a folder of full pages, bounded in size, found again after a restart.
//!
//! ```text
//! FOLDER/FINGERPRINT/KEY.page   one page (`record.rs`)
//! FOLDER/FINGERPRINT/*.tmp      a page that is being written; removed at the next start
//! ```
//!
//! Two threads read and write; the engine never waits for them. A file is complete when it has its
//! name, and whatever is wrong with it (its checksum, its model) makes it a page that is not there.
//! The time of a file's last change says when the page was last used: the longest unused page of
//! all models goes first.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use super::record::PageData;
use crate::blocks::PageKey;
use crate::handle::Ticket;
use crate::layout::PrefixCache;
use crate::request::RequestId;
use crate::status::Fingerprint;

/// Pages that wait to be written, and that were read and not yet taken.
const WAITING_MAX: usize = 4;
/// How often a reader that waits for room looks whether its request was cancelled.
const PAUSE: Duration = Duration::from_millis(20);

/// What is in the folder.
#[derive(Debug, Default)]
struct Index {
    files: HashMap<PathBuf, (SystemTime, u64)>,
    by_age: BTreeSet<(SystemTime, PathBuf)>,
    bytes: u64,
}

impl Index {
    fn insert(&mut self, path: PathBuf, used: SystemTime, bytes: u64) {
        self.remove(&path);
        self.by_age.insert((used, path.clone()));
        self.files.insert(path, (used, bytes));
        self.bytes += bytes;
    }

    fn remove(&mut self, path: &Path) {
        if let Some((used, bytes)) = self.files.remove(path) {
            self.by_age.remove(&(used, path.to_owned()));
            self.bytes -= bytes;
        }
    }

    /// All pages in the folders of all computations. What a dead process was writing is removed.
    fn read(folder: &Path) -> Self {
        let mut index = Self::default();
        let folders = fs::read_dir(folder).into_iter().flatten().flatten();
        for folder in folders.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            for entry in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                let path = entry.path();
                // Only plain files count.
                let Some(data) = entry.metadata().ok().filter(fs::Metadata::is_file) else {
                    continue;
                };
                let used = data.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("page") => index.insert(path, used, data.len()),
                    Some("tmp") => drop(fs::remove_file(path)),
                    _ => {}
                }
            }
        }
        index
    }
}

/// What the engine and both threads share.
struct Shared {
    /// The folder of this computation.
    folder: PathBuf,
    size: u64,
    page_bytes: u64,
    fingerprint: Fingerprint,
    index: Mutex<Index>,
    arrived: Mutex<VecDeque<Arrived>>,
    /// There is room for more pages.
    taken: Condvar,
    ending: AtomicBool,
    /// Wakes the engine.
    wake: Box<dyn Fn() + Send + Sync>,
}

/// Pages that a request wants.
struct Wanted {
    ticket: Arc<Ticket>,
    keys: Vec<PageKey>,
}

/// Something that was read.
pub(crate) enum Arrived {
    Page(PageData),
    /// This request gets no more.
    End(RequestId),
}

/// The prefix cache.
pub(crate) struct Store {
    shared: Arc<Shared>,
    writes: Option<SyncSender<PageData>>,
    reads: Option<Sender<Wanted>>,
    threads: Vec<JoinHandle<()>>,
}

impl Store {
    /// Opens the cache. `wake` is called when pages have arrived.
    ///
    /// # Errors
    /// If the folder cannot be created, or no thread be started.
    pub(crate) fn open(
        place: &PrefixCache,
        fingerprint: Fingerprint,
        page_bytes: u64,
        wake: Box<dyn Fn() + Send + Sync>,
    ) -> io::Result<Self> {
        let folder = place.folder.join(fingerprint.to_string());
        fs::create_dir_all(&folder)?;
        let index = Index::read(&place.folder);
        let shared = Arc::new(Shared {
            folder,
            size: place.size,
            page_bytes,
            fingerprint,
            index: Mutex::new(index),
            arrived: Mutex::default(),
            taken: Condvar::new(),
            ending: AtomicBool::new(false),
            wake,
        });
        let (writes, to_write) = sync_channel(WAITING_MAX);
        let (reads, to_read) = channel();
        let mut store =
            Self { shared, writes: Some(writes), reads: Some(reads), threads: Vec::new() };
        let shared = Arc::clone(&store.shared);
        store.spawn("prefix write", move || shared.write_all(&to_write))?;
        let shared = Arc::clone(&store.shared);
        store.spawn("prefix read", move || shared.read_all(&to_read))?;
        Ok(store)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        self.threads.push(thread);
        Ok(())
    }

    /// Whether a page is there, as far as its name says.
    pub(crate) fn has(&self, key: PageKey) -> bool {
        self.shared.index().files.contains_key(&self.shared.path(key))
    }

    /// Writes a page in the background; gives it back if the writer is behind.
    pub(crate) fn write(&self, page: PageData) -> Result<(), PageData> {
        let Some(writes) = &self.writes else { return Ok(()) };
        match writes.try_send(page) {
            Err(TrySendError::Full(page)) => Err(page),
            _ => Ok(()),
        }
    }

    /// Writes a page, waiting for the writer.
    pub(crate) fn write_in_the_end(&self, page: PageData) {
        if let Some(writes) = &self.writes {
            let _ = writes.send(page); // a writer that is gone has said why
        }
    }

    /// Reads pages in the background, until the first that is not sound.
    pub(crate) fn read(&self, ticket: &Arc<Ticket>, keys: Vec<PageKey>) {
        if let Some(reads) = &self.reads {
            let _ = reads.send(Wanted { ticket: Arc::clone(ticket), keys });
        }
    }

    /// The next of what was read.
    pub(crate) fn take(&self) -> Option<Arrived> {
        let next = self.shared.arrived().pop_front();
        self.shared.taken.notify_all();
        next
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        (self.writes, self.reads) = (None, None);
        // A reader that waits for room does so no longer.
        self.shared.ending.store(true, Ordering::SeqCst);
        self.shared.taken.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // a panic was printed already
        }
    }
}

impl Shared {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrived(&self) -> MutexGuard<'_, VecDeque<Arrived>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, key: PageKey) -> PathBuf {
        let name: String = key.0.iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(name + ".page")
    }

    /// The writer's thread. The first failure is reported, and others of the same kind are not.
    fn write_all(&self, pages: &Receiver<PageData>) {
        let mut reported = false;
        for page in pages {
            if let Err(error) = self.write(&page)
                && !std::mem::replace(&mut reported, true)
            {
                let folder = self.folder.display();
                tracing::warn!("{folder}: the prefix cache cannot be written: {error}");
            }
        }
    }

    fn write(&self, page: &PageData) -> io::Result<()> {
        let path = self.path(page.key());
        let bytes = page.encode_len();
        if bytes > self.size || self.index().files.contains_key(&path) {
            return Ok(());
        }
        self.make_room(bytes);
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let written = fs::write(&temporary, page.encode(&self.fingerprint))
            .and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written?;
        self.index().insert(path, SystemTime::now(), bytes);
        Ok(())
    }

    /// Removes the pages that were not used for the longest time.
    fn make_room(&self, bytes: u64) {
        loop {
            let oldest = {
                let mut index = self.index();
                if index.bytes + bytes <= self.size {
                    return;
                }
                let Some((_, oldest)) = index.by_age.first().cloned() else { return };
                index.remove(&oldest);
                oldest
            };
            let _ = fs::remove_file(oldest); // it may be gone already
        }
    }

    /// The reader's thread.
    fn read_all(&self, wanted: &Receiver<Wanted>) {
        for Wanted { ticket, keys } in wanted {
            let mut keys = keys.into_iter();
            while let Some(key) = keys.next() {
                let is_wanted = || !ticket.is_cancelled() && !self.ending.load(Ordering::SeqCst);
                if !is_wanted() {
                    break;
                }
                let Some(page) = self.read(key) else {
                    // What follows is computed again, and so it is written again.
                    keys.for_each(|key| self.remove(&self.path(key)));
                    break;
                };
                let mut arrived = self.arrived();
                while arrived.len() >= WAITING_MAX && is_wanted() {
                    let waited = self.taken.wait_timeout(arrived, PAUSE);
                    arrived = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                arrived.push_back(Arrived::Page(page));
                drop(arrived);
                (self.wake)();
            }
            self.arrived().push_back(Arrived::End(ticket.id));
            (self.wake)();
        }
    }

    /// A page, if it is sound. One that is not is removed.
    fn read(&self, key: PageKey) -> Option<PageData> {
        let path = self.path(key);
        let read = File::open(&path).and_then(|mut file| {
            let page = PageData::decode(&mut file, &self.fingerprint, self.page_bytes)?;
            Ok((page, file))
        });
        match read {
            Ok((Some(page), file)) if page.key() == key && page.is_full() => {
                let now = SystemTime::now();
                let _ = file.set_modified(now); // where it is not allowed, it is forgotten sooner
                self.index().insert(path, now, page.encode_len());
                Some(page)
            }
            Ok(_) => self.give_up(&path, "it is not the page that its name says"),
            Err(error) => self.give_up(&path, &error.to_string()),
        }
    }

    fn give_up(&self, path: &Path, why: &str) -> Option<PageData> {
        tracing::warn!("{}: this page of the prefix cache is ignored: {why}", path.display());
        self.remove(path);
        None
    }

    fn remove(&self, path: &Path) {
        self.index().remove(path);
        let _ = fs::remove_file(path); // it may be gone already
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::pages::record::record_bytes;

    const PAGE_BYTES: u64 = 128;

    fn page(parent: PageKey, seed: u32) -> PageData {
        let bytes = (0..PAGE_BYTES).map(|i| i as u8 ^ seed as u8).collect();
        PageData { parent, tokens: (seed..seed + 64).collect(), bytes }
    }

    fn chain(count: u32) -> Vec<PageData> {
        let mut parent = PageKey::default();
        let mut next = |seed| {
            let page = page(parent, seed);
            parent = page.key();
            page
        };
        (0..count).map(&mut next).collect()
    }

    fn open(folder: &Path, pages: usize) -> (Store, Receiver<()>) {
        let size = (pages * record_bytes(64, PAGE_BYTES as usize)) as u64;
        let place = PrefixCache { folder: folder.to_owned(), size };
        let (send, woken) = channel();
        let wake = Box::new(move || send.send(()).unwrap_or_default());
        (Store::open(&place, Fingerprint([1; 32]), PAGE_BYTES, wake).unwrap(), woken)
    }

    fn read(store: &Store, woken: &Receiver<()>, keys: Vec<PageKey>) -> Vec<PageData> {
        store.read(&Arc::new(Ticket::new(RequestId(7), None)), keys);
        let mut pages = Vec::new();
        loop {
            match store.take() {
                Some(Arrived::Page(page)) => pages.push(page),
                Some(Arrived::End(id)) => {
                    assert_eq!(id, RequestId(7));
                    return pages;
                }
                None => drop(woken.recv_timeout(Duration::from_millis(50))),
            }
        }
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let folder = folder.join(Fingerprint([1; 32]).to_string());
        let mut files: Vec<PathBuf> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    #[test]
    fn pages_are_found_after_a_restart_and_damaged_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let pages = chain(10);
        let keys: Vec<PageKey> = pages.iter().map(PageData::key).collect();
        let (store, _woken) = open(folder.path(), 100);
        pages.iter().for_each(|page| store.write_in_the_end(page.clone()));
        drop(store);
        fs::write(files(folder.path())[0].with_extension("1.tmp"), "half").unwrap();
        let (store, woken) = open(folder.path(), 100);
        assert_eq!(files(folder.path()).len(), 10, "what was half written is gone");
        assert!(store.has(keys[9]) && !store.has(PageKey::default()));
        assert_eq!(read(&store, &woken, keys.clone()), pages);
        // a folder in the place of a page, a changed byte, a cut file, another page's content
        let path = |n: usize| store.shared.path(keys[n]);
        fs::remove_file(path(8)).unwrap();
        fs::create_dir(path(8)).unwrap();
        assert_eq!(read(&store, &woken, keys.clone()), pages[..8]);
        assert!(!store.has(keys[8]) && !store.has(keys[9]), "what follows is removed, too");
        let mut bytes = fs::read(path(6)).unwrap();
        bytes[200] ^= 1;
        fs::write(path(6), bytes).unwrap();
        assert_eq!(read(&store, &woken, keys.clone()), pages[..6]);
        let whole = fs::read(path(4)).unwrap();
        fs::write(path(4), &whole[..whole.len() - 1]).unwrap();
        assert_eq!(read(&store, &woken, keys.clone()), pages[..4]);
        fs::copy(path(0), path(2)).unwrap();
        assert_eq!(read(&store, &woken, keys.clone()), pages[..2]);
    }

    #[test]
    fn the_longest_unused_page_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let pages: Vec<PageData> = (0..4).map(|i| page(PageKey::default(), 100 * i)).collect();
        let (store, woken) = open(folder.path(), 2);
        store.write_in_the_end(pages[0].clone());
        store.write_in_the_end(pages[1].clone());
        while !store.has(pages[1].key()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(read(&store, &woken, vec![pages[0].key()]), pages[..1]);
        store.write_in_the_end(pages[2].clone());
        drop(store);
        let (store, _woken) = open(folder.path(), 2);
        let has: Vec<bool> = pages.iter().map(|page| store.has(page.key())).collect();
        assert_eq!(has, [true, false, true, false]);
        assert_eq!(files(folder.path()).len(), 2);
    }

    #[test]
    fn a_request_that_is_cancelled_is_not_read_for() {
        let folder = tempfile::tempdir().unwrap();
        let pages = chain(20);
        let (store, woken) = open(folder.path(), 100);
        pages.iter().for_each(|page| store.write_in_the_end(page.clone()));
        drop(store);
        let (store, _) = (open(folder.path(), 100).0, woken);
        let ticket = Arc::new(Ticket::new(RequestId(1), None));
        store.read(&ticket, pages.iter().map(PageData::key).collect());
        ticket.cancel();
        drop(store); // returns although no page that was read is taken
    }
}
