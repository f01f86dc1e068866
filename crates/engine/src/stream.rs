//! Experts that are streamed from drives, as a request and its reader see them.

use cachalot_store::{CacheStats, Monitor, ReadRate};

/// Experts that are streamed.
#[derive(Clone, Debug)]
pub struct Streaming {
    pub(crate) monitor: Monitor,
    /// How fast the drive is, as found out while the rest of the model was read.
    pub rate: ReadRate,
    /// Whether the cache's memory is safe from being swapped out.
    pub is_locked: bool,
    /// Bytes of all routed experts.
    pub routed: u64,
}

impl Streaming {
    /// What the cache has done so far.
    pub fn stats(&self) -> CacheStats {
        self.monitor.stats()
    }

    /// Bytes of memory for experts.
    pub fn cache_bytes(&self) -> u64 {
        self.monitor.capacity()
    }

    /// Whether the drive has delivered less than half of its rate, over so much that this is no accident.
    pub fn is_slow(&self, stats: &CacheStats) -> bool {
        const MUCH: u64 = 4 << 30;
        stats.bytes > MUCH && stats.read_rate() < self.rate.bytes_per_second / 2.0
    }

    /// Gives a part of the cache back if less than half of the `headroom` is `available`: at the
    /// brink, the system would take pages of this very process.
    pub(crate) fn relieve(&self, available: u64, headroom: u64) {
        if available < headroom / 2 {
            self.monitor.give_back(headroom - available);
        }
    }
}
