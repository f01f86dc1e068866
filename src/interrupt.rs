//! Ctrl-C: ends an answer, not the program, as long as there is an answer to end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::SIGINT;
use signal_hook::flag;

use crate::failure::INTERRUPTED;

/// What Ctrl-C does at the moment.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    cancel: Arc<AtomicBool>,
    /// Nothing is going on that could be ended by itself: Ctrl-C ends the program.
    idle: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes over Ctrl-C.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn install() -> io::Result<Self> {
        let interrupt = Self { cancel: Arc::default(), idle: Arc::new(AtomicBool::new(true)) };
        flag::register_conditional_shutdown(SIGINT, INTERRUPTED, Arc::clone(&interrupt.idle))?;
        // The second one while an answer is still being ended is meant for the program.
        flag::register_conditional_shutdown(SIGINT, INTERRUPTED, Arc::clone(&interrupt.cancel))?;
        flag::register(SIGINT, Arc::clone(&interrupt.cancel))?;
        Ok(interrupt)
    }

    /// Runs `work`, which ends soon after Ctrl-C has set the flag.
    pub(crate) fn during<T>(&self, work: impl FnOnce(&AtomicBool) -> T) -> T {
        self.cancel.store(false, Ordering::SeqCst);
        self.idle.store(false, Ordering::SeqCst);
        let result = work(&self.cancel);
        self.idle.store(true, Ordering::SeqCst);
        self.cancel.store(false, Ordering::SeqCst);
        result
    }
}
