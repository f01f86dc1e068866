//! SIGBUS while a mapped file is read: the file became shorter, or its drive failed.
//!
//! The default action would end the program without a word. The handler, which is installed with
//! the first mapped file, writes the file's path to standard error and ends the program with exit
//! code 1. It does only what is safe in a signal handler: it reads atomics and calls `write` and
//! `_exit`. Signals at addresses outside mapped files go to the handler that was there before.

use std::cell::UnsafeCell;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};

/// Files that can be mapped at a time; more are not watched.
const FILES_MAX: usize = 256;
/// Bytes of a path that are kept.
const PATH_MAX: usize = 480;

/// A mapped file.
struct Entry {
    start: AtomicUsize, // 0: free
    end: AtomicUsize,
    path: UnsafeCell<[u8; PATH_MAX]>,
    path_len: AtomicUsize,
}

// SAFETY: `path` is written only while `start` is 0 and `TAKING` is held; it is read only by the
// handler, for an entry whose file is mapped and which is therefore not written.
unsafe impl Sync for Entry {}

static ENTRIES: [Entry; FILES_MAX] = [const {
    Entry {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        path: UnsafeCell::new([0; PATH_MAX]),
        path_len: AtomicUsize::new(0),
    }
}; FILES_MAX];
/// Held while an entry is taken.
static TAKING: Mutex<()> = Mutex::new(());
/// The handler that was there before; read by the handler.
static PREVIOUS: Previous = Previous(UnsafeCell::new(None));

struct Previous(UnsafeCell<Option<libc::sigaction>>);

// SAFETY: written once, before the handler that reads it is installed.
unsafe impl Sync for Previous {}

/// Watches a range of memory as long as it lives.
#[derive(Debug)]
pub(crate) struct Watch(Option<usize>);

impl Watch {
    /// Watches `bytes`, a mapping of the file `path`.
    pub(crate) fn new(bytes: &[u8], path: &Path) -> Self {
        install();
        let range = bytes.as_ptr_range();
        let (start, end) = (range.start as usize, range.end as usize);
        let _taking = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let free = |entry: &Entry| entry.start.load(Ordering::Relaxed) == 0;
        let Some(at) = ENTRIES.iter().position(free).filter(|_| start < end) else {
            return Self(None);
        };
        let (entry, path) = (&ENTRIES[at], path.as_os_str().as_encoded_bytes());
        let len = path.len().min(PATH_MAX);
        // SAFETY: the entry is free, so that neither the handler nor, while `TAKING` is held,
        // another thread accesses it.
        unsafe { (&mut *entry.path.get())[..len].copy_from_slice(&path[..len]) };
        entry.path_len.store(len, Ordering::Relaxed);
        entry.end.store(end, Ordering::Relaxed);
        entry.start.store(start, Ordering::Release);
        Self(Some(at))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(at) = self.0 {
            ENTRIES[at].start.store(0, Ordering::Release);
        }
    }
}

/// Installs the handler, once.
fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = handle;
        // SAFETY: a zeroed `sigaction` is a valid one; the pointers are valid for the calls. The
        // previous action is stored before the handler that reads it can run.
        unsafe {
            let mut previous: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut previous) != 0 {
                return;
            }
            *PREVIOUS.0.get() = Some(previous);
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut());
        }
    });
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system hands a valid `siginfo_t` to a handler with SA_SIGINFO.
    let address = unsafe { (*info).si_addr() } as usize;
    let hit = |entry: &&Entry| {
        let start = entry.start.load(Ordering::Acquire);
        start != 0 && (start..entry.end.load(Ordering::Relaxed)).contains(&address)
    };
    match ENTRIES.iter().find(hit) {
        Some(entry) => end(entry),
        None => chain(signal, info, context),
    }
}

/// Reports the file and ends the program.
fn end(entry: &Entry) -> ! {
    let len = entry.path_len.load(Ordering::Relaxed).min(PATH_MAX);
    // SAFETY: the file is mapped, so that its entry is not written.
    let path = unsafe { &(&*entry.path.get())[..len] };
    let text: &[u8] =
        b": cannot be read any more: the file became shorter, or its drive failed, while \
the model was in use\n";
    for part in [b"\nerror: ", path, text] {
        // SAFETY: `write` is safe in a handler, and reads the part alone.
        unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
    }
    // SAFETY: `_exit` is safe in a handler.
    unsafe { libc::_exit(1) }
}

/// Does what would have been done without this handler.
fn chain(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: written once, before this handler was installed.
    let previous = unsafe { *PREVIOUS.0.get() };
    let Some(previous) = previous else { return };
    match previous.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: the previous action is restored; the instruction runs again, and faults
            // again.
            unsafe { libc::sigaction(signal, &raw const previous, ptr::null_mut()) };
        }
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: an action with SA_SIGINFO holds a function with these parameters.
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: an action without SA_SIGINFO holds a function of the signal alone.
            let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}
