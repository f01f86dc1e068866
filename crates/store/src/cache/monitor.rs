//! What other threads see of a cache, and ask of it: statistics, and how much memory it may have.
//!
//! Requests do not wait for the thread that computes, which handles them between two tokens.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Statistics of a cache since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CacheStats {
    /// Chosen experts that were resident.
    pub hits: u64,
    /// Chosen experts that were not.
    pub misses: u64,
    /// Of these, experts that a prefetch had read, or was reading.
    pub prefetch_hits: u64,
    /// Experts that a prefetch read, in whole or in part, and that were not chosen.
    pub prefetch_unused: u64,
    /// Experts chosen by cache-aware routing.
    pub routed: u64,
    /// Of these, experts that are not the router's own choice.
    pub replaced: u64,
    /// Bytes read from drives.
    pub bytes: u64,
    /// Time in which at least one read was in flight.
    pub busy: Duration,
    /// Time in which computing waited for a read.
    pub waited: Duration,
}

impl CacheStats {
    /// The difference from `earlier` statistics.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            hits: self.hits - earlier.hits,
            misses: self.misses - earlier.misses,
            prefetch_hits: self.prefetch_hits - earlier.prefetch_hits,
            prefetch_unused: self.prefetch_unused - earlier.prefetch_unused,
            routed: self.routed - earlier.routed,
            replaced: self.replaced - earlier.replaced,
            bytes: self.bytes - earlier.bytes,
            busy: self.busy.saturating_sub(earlier.busy),
            waited: self.waited.saturating_sub(earlier.waited),
        }
    }

    /// The share of chosen experts that were resident; 1 if none were chosen.
    pub fn hit_rate(&self) -> f64 {
        let all = self.hits + self.misses;
        if all == 0 { 1.0 } else { self.hits as f64 / all as f64 }
    }

    /// The share of experts that are the router's own choice, if routing was cache-aware.
    pub fn agreement(&self) -> Option<f64> {
        (self.routed > 0).then(|| 1.0 - self.replaced as f64 / self.routed as f64)
    }

    /// Bytes per second while reads were in flight; 0 if none were.
    pub fn read_rate(&self) -> f64 {
        if self.busy.is_zero() { 0.0 } else { self.bytes as f64 / self.busy.as_secs_f64() }
    }
}

/// A handle to watch a cache, and to ask it for memory, from another thread.
#[derive(Clone, Debug, Default)]
pub struct Monitor(pub(super) Arc<Shared>);

#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) stats: Mutex<CacheStats>,
    /// Bytes of memory that the cache is asked to release.
    pub(super) reclaim_target: AtomicU64,
    /// Bytes of memory that the cache may take back.
    pub(super) available: AtomicU64,
    /// Bytes of memory in use.
    pub(super) capacity: AtomicU64,
}

impl Monitor {
    /// Statistics of a cache since it was made.
    pub fn stats(&self) -> CacheStats {
        *self.lock()
    }

    /// Bytes of memory that the cache has for experts.
    pub fn capacity(&self) -> u64 {
        self.0.capacity.load(Ordering::Relaxed)
    }

    /// Asks the cache to release memory; it does so with the next token.
    pub fn release(&self, bytes: u64) {
        self.0.reclaim_target.fetch_max(bytes, Ordering::Relaxed);
    }

    /// Lets the cache take back memory that it has released, up to `bytes`; it does so with the
    /// next token.
    pub fn allow(&self, bytes: u64) {
        self.0.available.store(bytes, Ordering::Relaxed);
    }

    /// Bytes of memory that are still to be released.
    pub fn reclaim_target(&self) -> u64 {
        self.0.reclaim_target.load(Ordering::Relaxed)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, CacheStats> {
        self.0.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
