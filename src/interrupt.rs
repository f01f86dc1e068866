//! Ctrl-C: cancels the answer in progress; without one it ends the program, as SIGTERM always does.
//! No temporary file is left behind.

use std::io;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::output;

/// What shells add to the number of a signal that ended a program.
const SIGNALLED: i32 = 128;

/// What Ctrl-C does now.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    cancel: Arc<AtomicBool>,
    /// Nothing is in progress: Ctrl-C ends the program.
    idle: Arc<AtomicBool>,
}

/// There is one for the whole program, so that no command ends what another one is doing.
static INSTALLED: Mutex<Option<Interrupt>> = Mutex::new(None);

impl Interrupt {
    /// Starts the thread that handles signals, if it does not run yet.
    ///
    /// # Errors
    /// If the system refuses the handler or the thread.
    pub(crate) fn install() -> io::Result<Self> {
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(interrupt) = &*installed {
            return Ok(interrupt.clone());
        }
        let interrupt = Self { cancel: Arc::default(), idle: Arc::new(AtomicBool::new(true)) };
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let handling = interrupt.clone();
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || signals.forever().for_each(|signal| handling.handle(signal)))?;
        *installed = Some(interrupt.clone());
        Ok(interrupt)
    }

    /// Runs `work`, which must return soon after Ctrl-C sets the flag.
    pub(crate) fn during<T>(&self, work: impl FnOnce(&Arc<AtomicBool>) -> T) -> T {
        self.cancel.store(false, Ordering::SeqCst);
        self.idle.store(false, Ordering::SeqCst);
        let result = work(&self.cancel);
        self.idle.store(true, Ordering::SeqCst);
        self.cancel.store(false, Ordering::SeqCst);
        result
    }

    /// Whether Ctrl-C has been pressed during work.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::SeqCst)
    }

    /// Has the work that is in progress end, as Ctrl-C does.
    pub(crate) fn cancel(&self) {
        if !self.idle.load(Ordering::SeqCst) {
            self.cancel.store(true, Ordering::SeqCst);
        }
    }

    fn handle(&self, signal: i32) {
        // A second Ctrl-C, while an answer is being cancelled, ends the program.
        let is_cancelling = self.cancel.swap(true, Ordering::SeqCst);
        if signal != SIGINT || is_cancelling || self.idle.load(Ordering::SeqCst) {
            output::remove_temporary();
            process::exit(SIGNALLED + signal);
        }
    }
}
