//! Fetching files: ranges over several connections, written and checked as they arrive.
//!
//! ```text
//! connections (async): write  --notes-->  commit: fdatasync, journal, fdatasync
//!      ^ ranges          |                  ^ states of hashes
//!   schedule  <-- written +-->  hashing ----+--> events --> the calling thread
//! ```
//!
//! The calling thread names files whose hash is right, begins those again whose is not, and
//! reports.

mod connection;
mod disk;
mod hashing;
mod intervals;
pub(crate) mod journal;
mod limit;
mod progress;
mod schedule;
pub(crate) mod source;

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

pub(crate) use hashing::Chunksum;
pub(crate) use progress::Meter;
pub use progress::{FileProgress, Progress};

use self::connection::Line;
use self::disk::Disk;
use self::journal::{Journal, State};
use self::limit::Limit;
use self::schedule::{Job, Schedule, WIDTH};
use self::source::Source;
use crate::error::at;
use crate::fileset::RemoteFile;
use crate::http::Web;
use crate::pulling::{self, Plan};
use crate::{Arrival, Error, Sha256};

/// Between two reports.
const REPORT: Duration = Duration::from_millis(100);

/// What happened that the calling thread must know.
#[derive(Debug)]
enum Event {
    Fatal(Error),
    Disk { file: usize, error: io::Error },
    Hashed { file: usize, epoch: u32, hash: Sha256 },
    BadRange { file: usize, sum: Chunksum, found: Sha256 },
    Changed { file: usize, epoch: u32 },
}

/// What all threads of a pull share.
#[derive(Debug)]
pub(crate) struct Shared {
    files: Vec<FileState>,
    schedule: Mutex<Schedule>,
    /// Told whenever a chunk is written, a file begins again, or the pull stops.
    changed: Condvar,
    /// The same for connections.
    wake: tokio::sync::Notify,
    /// Files that wait for a thread to hash them.
    to_hash: Mutex<VecDeque<usize>>,
    stopped: AtomicBool,
    /// Someone reads the files already: their bytes are not thrown away.
    is_read: bool,
    events: Mutex<Sender<Event>>,
}

#[derive(Debug)]
struct FileState {
    file: RemoteFile,
    partial: File,
    /// The epoch whose bytes may be written.
    writing: RwLock<u32>,
    journal: Mutex<Journal>,
    /// Which of the folders it goes to.
    disk: usize,
    /// Bytes that have arrived, ever.
    received: AtomicU64,
    hashed: Mutex<Option<(u64, Vec<u8>)>>,
    chunksums: Vec<Chunksum>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FileState {
    /// Writes bytes of an epoch; false if another one has begun. Writers of an earlier epoch are
    /// never between looking and writing while the next one begins.
    fn write(&self, epoch: u32, bytes: &[u8], at: u64) -> io::Result<bool> {
        let current = self.writing.read().unwrap_or_else(PoisonError::into_inner);
        if *current != epoch {
            return Ok(false);
        }
        self.partial.write_all_at(bytes, at)?;
        Ok(true)
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        locked(&self.journal)
    }

    fn take_hashed(&self) -> Option<(u64, Vec<u8>)> {
        locked(&self.hashed).take()
    }

    /// The range that begins at this byte, if its hash is known.
    fn chunksum_at(&self, at: u64) -> Option<Chunksum> {
        let index = self.chunksums.binary_search_by_key(&at, |sum| sum.start).ok()?;
        Some(self.chunksums[index].clone())
    }
}

impl Shared {
    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        locked(&self.schedule)
    }

    fn size(&self, file: usize) -> u64 {
        self.files[file].file.size
    }

    /// Has the chunks of these bytes fetched before others.
    pub(crate) fn want(&self, file: usize, bytes: Range<u64>) {
        self.schedule().want(file, journal::chunks_of(bytes));
    }

    /// Whether the chunks of these bytes are written.
    pub(crate) fn has(&self, file: usize, bytes: Range<u64>) -> bool {
        self.schedule().has(file, journal::chunks_of(bytes))
    }

    /// Waits until the chunks of these bytes are written; `None` if the pull stops before.
    pub(crate) fn wait(&self, file: usize, bytes: Range<u64>) -> Option<()> {
        let chunks = journal::chunks_of(bytes);
        let mut schedule = self.schedule();
        while !schedule.has(file, chunks.clone()) {
            if self.is_stopped() {
                return None;
            }
            schedule = self.changed.wait(schedule).unwrap_or_else(PoisonError::into_inner);
        }
        Some(())
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.announce();
    }

    fn tell(&self, event: Event) {
        let _ = locked(&self.events).send(event);
    }

    /// Wakes everyone who waits for chunks or for work.
    fn announce(&self) {
        let _schedule = self.schedule(); // so that no task is between looking and waiting
        self.changed.notify_all();
        self.wake.notify_waiters();
    }

    /// A range to fetch; `None` when there is nothing left, or the pull stops.
    async fn next_job(&self) -> Option<Job> {
        loop {
            let woken = self.wake.notified();
            {
                let mut schedule = self.schedule();
                if self.is_stopped() {
                    return None;
                }
                if let Some(job) = schedule.next() {
                    return Some(job);
                }
            }
            woken.await;
        }
    }

    /// Waits until bytes after `at` are written; returns where they end. `None` if the file begins
    /// again or the pull stops.
    fn wait_for(&self, file: usize, epoch: u32, at: u64) -> Option<u64> {
        let mut schedule = self.schedule();
        loop {
            if self.is_stopped() || schedule.epoch(file) != epoch {
                return None;
            }
            let until = journal::bytes(0..schedule.frontier(file), self.size(file)).end;
            if until > at {
                return Some(until);
            }
            schedule = self.changed.wait(schedule).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next file to hash; waits for one. `None` once the pull stops.
    fn next_to_hash(&self) -> Option<usize> {
        let mut schedule = self.schedule();
        loop {
            if self.is_stopped() {
                return None;
            }
            if let Some(file) = locked(&self.to_hash).pop_front() {
                return Some(file);
            }
            schedule = self.changed.wait(schedule).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A pull that is under way, as the calling thread sees it.
struct Pull<'a> {
    plan: &'a Plan,
    shared: Arc<Shared>,
    sources: Arc<Line>,
    /// By file of the plan: which file of `shared` it is, unless it is whole.
    index: Vec<Option<usize>>,
    whole: Vec<bool>,
    /// By file of `shared`: how often it began again, and bytes thrown away.
    again: Vec<u32>,
    discarded: Vec<u64>,
    /// By file of the plan: its hash, if it arrived and was hashed now.
    hashes: Vec<Option<Sha256>>,
    /// Ranges that were wrong once: file and first byte.
    bad: HashSet<(usize, u64)>,
    resumed: u64,
    meter: Meter,
}

/// Fetches the files of a plan that are not here yet, each checked and under its name in the end.
/// `report` returns whether to go on. Returns the hashes of those that were fetched.
pub(crate) fn fetch(
    web: &Web,
    plan: &Plan,
    folder: &Path,
    chunksums: Vec<Vec<Chunksum>>,
    arrival: Option<&Arrival>,
    report: &mut dyn FnMut(&Progress) -> bool,
) -> Result<Vec<Option<Sha256>>, Error> {
    let (events, happened) = mpsc::channel();
    let (mut shared, index) = prepare(web, plan, folder, chunksums, events)?;
    shared.is_read = arrival.is_some();
    if shared.is_read {
        shared.schedule().fetch_singly();
    }
    let shared = Arc::new(shared);
    if let Some(arrival) = arrival {
        arrival.begin(&shared, plan, folder, &index)?;
    }
    let disks = (0..folders(plan).len()).map(|_| Disk::start(&shared));
    let disks = disks.collect::<io::Result<Vec<_>>>().map_err(at(folder))?;
    let sources = shared.files.iter().map(|state| Source::new(&state.file));
    let line = Arc::new(Line {
        shared: shared.clone(),
        web: web.clone(),
        sources: sources.collect::<Result<_, _>>()?,
        notes: disks.iter().map(|disk| disk.notes.clone()).collect(),
        limit: Limit::new(web.settings.limit),
    });
    let hashers = (0..WIDTH).map(|_| {
        let shared = shared.clone();
        let notes: Vec<_> = disks.iter().map(|disk| disk.notes.clone()).collect();
        thread::spawn(move || hashing::hash_files(&shared, &notes))
    });
    let hashers: Vec<_> = hashers.collect();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().map_err(at(folder))?;
    for _ in 0..web.settings.connections.clamp(1, 64) {
        runtime.spawn(connection::run(line.clone()));
    }
    let mut pull = Pull::new(plan, shared.clone(), line, index);
    let result = pull.watch(&happened, report);
    shared.stop();
    runtime.shutdown_timeout(Duration::from_secs(5)); // connections end at their next wait
    let hashes = std::mem::take(&mut pull.hashes);
    drop(pull);
    for hasher in hashers {
        let _ = hasher.join();
    }
    disks.into_iter().for_each(Disk::finish);
    result.map(|()| hashes)
}

/// The folders that files go to, each once.
fn folders(plan: &Plan) -> Vec<&Path> {
    let mut folders: Vec<&Path> = Vec::new();
    for folder in &plan.folders {
        if !folders.contains(&folder.as_path()) {
            folders.push(folder);
        }
    }
    folders
}

/// Opens what has arrived of each file that is not whole.
fn prepare(
    web: &Web,
    plan: &Plan,
    folder: &Path,
    chunksums: Vec<Vec<Chunksum>>,
    events: Sender<Event>,
) -> Result<(Shared, Vec<Option<usize>>), Error> {
    let (mut files, mut index, mut work) = (Vec::new(), Vec::new(), Vec::new());
    let folders = folders(plan);
    let mut chunksums = chunksums.into_iter();
    for (number, file) in plan.set.files.iter().enumerate() {
        let chunksums = chunksums.next().unwrap_or_default();
        if plan.is_whole(number) {
            index.push(None);
            continue;
        }
        index.push(Some(files.len()));
        let path = plan.partial_path(number);
        let (partial, len) = open_partial(&path, file.size)?;
        let journal = pulling::journal_path(folder, file);
        let (journal, State { safe, hashed }) = Journal::open(&journal, file, len)?;
        let last = file.size.div_ceil(journal::CHUNK);
        let done: u64 = safe
            .iter()
            .map(|range| journal::bytes(range.start..range.end.min(last), file.size))
            .map(|range| range.end - range.start)
            .sum();
        work.push((journal::chunks(file.size), safe));
        files.push(FileState {
            file: file.clone(),
            partial,
            writing: RwLock::new(0),
            journal: Mutex::new(journal),
            disk: folders.iter().position(|folder| *folder == plan.folders[number]).unwrap_or(0),
            received: AtomicU64::new(done),
            hashed: Mutex::new(hashed),
            chunksums,
        });
    }
    let to_hash = (0..files.len()).collect();
    let shared = Shared {
        files,
        schedule: Mutex::new(Schedule::new(work, web.settings.connections)),
        changed: Condvar::new(),
        wake: tokio::sync::Notify::new(),
        to_hash: Mutex::new(to_hash),
        stopped: AtomicBool::new(false),
        is_read: false,
        events: Mutex::new(events),
    };
    Ok((shared, index))
}

/// Opens the file that chunks are written to, sparse and of its full length; and says how long it
/// was.
fn open_partial(path: &Path, size: u64) -> Result<(File, u64), Error> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(at(folder))?;
    let opened = || {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        let len = file.metadata()?.len();
        file.set_len(size)?;
        File::open(folder)?.sync_all()?; // or a crash could lose the name of the file
        Ok((file, len))
    };
    opened().map_err(at(path))
}

impl<'a> Pull<'a> {
    fn new(
        plan: &'a Plan,
        shared: Arc<Shared>,
        sources: Arc<Line>,
        index: Vec<Option<usize>>,
    ) -> Self {
        let count = shared.files.len();
        let whole: Vec<bool> = index.iter().map(Option::is_none).collect();
        let hashes = vec![None; index.len()];
        let mut pull = Self {
            plan,
            hashes,
            shared,
            sources,
            index,
            whole,
            again: vec![0; count],
            discarded: vec![0; count],
            bad: HashSet::new(),
            resumed: 0,
            meter: Meter::new(),
        };
        pull.resumed = pull.progress().done;
        pull
    }

    fn progress(&mut self) -> Progress {
        let mut progress = Progress { resumed: self.resumed, ..Progress::default() };
        for (number, file) in self.plan.set.files.iter().enumerate() {
            let (received, discarded, again) = match self.index[number] {
                None => (file.size, 0, false),
                Some(index) => {
                    let received = self.shared.files[index].received.load(Ordering::Relaxed);
                    (received, self.discarded[index], self.again[index] > 0)
                }
            };
            let verified = self.whole[number];
            let total = file.size + discarded;
            let shown = FileProgress {
                name: file.name.clone(),
                sha256: file.sha256,
                size: file.size,
                done: received.min(total),
                total,
                verified,
                again: again && !verified,
            };
            progress.done += shown.done;
            progress.total += shown.total;
            progress.verified += if verified { file.size } else { 0 };
            progress.files.push(shown);
        }
        progress.rate = self.meter.rate(progress.done);
        progress
    }

    fn watch(
        &mut self,
        happened: &Receiver<Event>,
        report: &mut dyn FnMut(&Progress) -> bool,
    ) -> Result<(), Error> {
        loop {
            if !report(&self.progress()) {
                return Err(Error::Cancelled);
            }
            if self.whole.iter().all(|whole| *whole) {
                return Ok(());
            }
            match happened.recv_timeout(REPORT) {
                Ok(event) => self.handle(event)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Cancelled),
            }
        }
    }

    fn number(&self, file: usize) -> usize {
        self.index.iter().position(|index| *index == Some(file)).expect("it is one of the plan's")
    }

    fn handle(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Fatal(error) => Err(error),
            Event::Disk { file, error } => Err(self.disk_error(file, error)),
            Event::Hashed { file, epoch, hash } => {
                let is_old = epoch != self.shared.schedule().epoch(file);
                if is_old || self.whole[self.number(file)] {
                    return Ok(());
                }
                match self.shared.files[file].file.sha256 {
                    Some(expected) if expected != hash => self.wrong(file, expected, hash),
                    _ => self.right(file, hash),
                }
            }
            Event::BadRange { file, sum, found } if self.shared.is_read => {
                Err(self.wrong_hash(file, sum.hash, found))
            }
            Event::BadRange { file, sum, found } => {
                self.discarded[file] += sum.end.div_ceil(journal::CHUNK) * journal::CHUNK
                    - sum.start / journal::CHUNK * journal::CHUNK;
                if !self.bad.insert((file, sum.start)) {
                    return self.count_again(file, sum.hash, found);
                }
                self.again[file] = 1;
                Ok(())
            }
            Event::Changed { file, epoch } => {
                if epoch != self.shared.schedule().epoch(file) {
                    return Ok(()); // another connection has said so
                }
                if self.again[file] > 0 || self.shared.is_read {
                    let name = self.shared.files[file].file.name.clone();
                    let host = self.sources.sources[file].host();
                    return Err(Error::Changed { file: name, host });
                }
                self.again[file] += 1;
                self.restart(file)
            }
        }
    }

    /// The file gets its name: from here on it counts as verified, whatever happens.
    fn right(&mut self, file: usize, hash: Sha256) -> Result<(), Error> {
        let number = self.number(file);
        let (partial, path) = (self.plan.partial_path(number), self.plan.path(number));
        let named = || {
            self.shared.files[file].partial.sync_all()?;
            fs::rename(&partial, &path)?;
            File::open(&self.plan.folders[number])?.sync_all()
        };
        named().map_err(at(&path))?;
        self.whole[number] = true;
        self.hashes[number] = Some(hash);
        Ok(())
    }

    fn wrong(&mut self, file: usize, expected: Sha256, found: Sha256) -> Result<(), Error> {
        if self.shared.is_read {
            // Its reader has it mapped: it is written over by the next pull.
            self.begin_again(file, false)?;
            return Err(self.wrong_hash(file, expected, found));
        }
        let result = self.count_again(file, expected, found);
        self.restart(file)?; // even if it is given up: what is wrong is not kept
        result
    }

    /// # Errors
    /// [`Error::WrongHash`] the second time.
    fn count_again(&mut self, file: usize, expected: Sha256, found: Sha256) -> Result<(), Error> {
        self.again[file] += 1;
        if self.again[file] > 1 {
            return Err(self.wrong_hash(file, expected, found));
        }
        Ok(())
    }

    fn wrong_hash(&self, file: usize, expected: Sha256, found: Sha256) -> Error {
        let file = self.shared.files[file].file.name.clone();
        Error::WrongHash { file, expected, found }
    }

    /// Throws away what has arrived of a file, and begins again.
    fn restart(&mut self, file: usize) -> Result<(), Error> {
        self.begin_again(file, true)
    }

    /// Counts nothing of a file as there; its bytes are kept where they are unless it is `emptied`.
    fn begin_again(&mut self, file: usize, emptied: bool) -> Result<(), Error> {
        let state = &self.shared.files[file];
        let path = self.plan.partial_path(self.number(file));
        // Before the new epoch: a request of that must not be compared with the former file.
        self.sources.sources[file].forget();
        {
            let mut journal = state.journal();
            let mut writing = state.writing.write().unwrap_or_else(PoisonError::into_inner);
            self.shared.schedule().reset(file);
            *writing = self.shared.schedule().epoch(file);
            let mut reset = || {
                journal.reset(&state.file)?;
                if emptied {
                    state.partial.set_len(0)?;
                }
                state.partial.set_len(state.file.size)
            };
            reset().map_err(at(&path))?;
        }
        *locked(&state.hashed) = None;
        self.discarded[file] = state.received.load(Ordering::Relaxed);
        {
            let mut to_hash = locked(&self.shared.to_hash);
            if !to_hash.contains(&file) {
                to_hash.push_front(file);
            }
        }
        self.shared.announce();
        Ok(())
    }

    fn disk_error(&self, file: usize, error: io::Error) -> Error {
        let number = self.number(file);
        let folder = &self.plan.folders[number];
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        if full.contains(&error.kind()) {
            let needed = self.plan.set.files[number].size;
            let here = self.shared.files[file].received.load(Ordering::Relaxed);
            let needed = needed.saturating_sub(here);
            let free = crate::room::free(folder).unwrap_or(0);
            return Error::NoSpace { folder: folder.clone(), needed, free };
        }
        at(&self.plan.partial_path(number))(error)
    }
}
