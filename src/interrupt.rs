//! Ctrl-C: cancels the answer in progress; without one, it ends the program.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::SIGINT;
use signal_hook::flag;

use crate::failure::INTERRUPTED;

/// What Ctrl-C does now.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    cancel: Arc<AtomicBool>,
    /// Nothing is in progress: Ctrl-C ends the program.
    idle: Arc<AtomicBool>,
}

impl Interrupt {
    /// Installs the signal handler.
    ///
    /// # Errors
    /// If the system refuses the handler.
    pub(crate) fn install() -> io::Result<Self> {
        let interrupt = Self { cancel: Arc::default(), idle: Arc::new(AtomicBool::new(true)) };
        flag::register_conditional_shutdown(SIGINT, INTERRUPTED, Arc::clone(&interrupt.idle))?;
        // A second Ctrl-C, while an answer is being cancelled, ends the program.
        flag::register_conditional_shutdown(SIGINT, INTERRUPTED, Arc::clone(&interrupt.cancel))?;
        flag::register(SIGINT, Arc::clone(&interrupt.cancel))?;
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
}
