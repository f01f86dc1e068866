//! How far a pull is. No number here ever gets smaller.

use std::time::{Duration, Instant};

/// How far a pull is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Its files, in order.
    pub files: Vec<FileProgress>,
    /// Bytes that have arrived, those of earlier attempts too.
    pub done: u64,
    /// Bytes to arrive in all; more, once a file has to be fetched again.
    pub total: u64,
    /// Bytes of files whose hash is right.
    pub verified: u64,
    /// Bytes that were here before.
    pub resumed: u64,
    /// Bytes per second, of late.
    pub rate: f64,
    /// Another process is at it, and this one waits for it.
    pub following: bool,
}

/// How far a file is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileProgress {
    /// Its name.
    pub name: String,
    /// Its hash, as the service states it.
    pub sha256: Option<crate::Sha256>,
    /// Its bytes.
    pub size: u64,
    /// Bytes that have arrived; beyond `size` if it is fetched again.
    pub done: u64,
    /// Bytes to arrive: `size`, and what was thrown away.
    pub total: u64,
    /// Its hash is right.
    pub verified: bool,
    /// It is fetched again, because it was wrong or changed.
    pub again: bool,
}

impl Progress {
    /// How long the rest will take at this rate, if that can be said.
    pub fn left(&self) -> Option<Duration> {
        let left = self.total.saturating_sub(self.done) as f64;
        Duration::try_from_secs_f64(left / self.rate).ok().filter(|_| self.rate > 0.0)
    }
}

/// The rate of the last seconds.
#[derive(Debug)]
pub(crate) struct Meter {
    last: Option<(Instant, u64)>,
    rate: f64,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self { last: None, rate: 0.0 }
    }

    /// The rate, now that `done` bytes have arrived.
    pub(crate) fn rate(&mut self, done: u64) -> f64 {
        const MEMORY: f64 = 5.0; // seconds
        let now = Instant::now();
        if let Some((then, before)) = self.last {
            let seconds = (now - then).as_secs_f64();
            if seconds < 0.05 {
                return self.rate;
            }
            let rate = done.saturating_sub(before) as f64 / seconds;
            let weight = if self.rate == 0.0 { 1.0 } else { 1.0 - (-seconds / MEMORY).exp() };
            self.rate += weight * (rate - self.rate);
        }
        self.last = Some((now, done));
        self.rate
    }
}
