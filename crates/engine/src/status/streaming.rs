//! Experts that are streamed from drives, as requests and reports see them.

use cachalot_store::{CacheStats, Monitor, ReadRate};

/// Experts that are streamed.
#[derive(Clone, Debug)]
pub struct Streaming {
    pub(crate) monitor: Monitor,
    /// How fast the drive is, measured while the rest of the model was read.
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

    /// Whether the drive has delivered less than half of its rate, over enough bytes to be no
    /// accident, while it was waited for: other reads share processors with the computation and may
    /// take longer.
    pub fn is_slow(&self, stats: &CacheStats) -> bool {
        const MUCH: u64 = 4 << 30;
        stats.bytes > MUCH
            && stats.read_rate() < self.rate.bytes_per_second / 2.0
            && stats.waited > stats.busy / 2
    }

    /// Releases a part of the cache if less than half of the `headroom` is `available`: with no
    /// memory left, the system would take pages of this process. The cache takes it back once more
    /// than the headroom is available.
    pub(crate) fn respond_to_pressure(&self, available: u64, headroom: u64) {
        if available < headroom / 2 {
            self.monitor.release(headroom - available);
        } else if available > headroom {
            self.monitor.allow(available - headroom);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn streaming(bytes_per_second: f64) -> Streaming {
        let rate = ReadRate { bytes_per_second, direct: true, reader: "io_uring" };
        Streaming { monitor: Monitor::default(), rate, is_locked: true, routed: 1 << 40 }
    }

    #[test]
    fn a_drive_is_slow_if_it_delivers_less_than_half_for_long() {
        let streaming = streaming(2e9);
        let after = |gigabytes: u64, seconds, waited| CacheStats {
            bytes: gigabytes << 30,
            busy: Duration::from_secs(seconds),
            waited: Duration::from_secs(waited),
            ..CacheStats::default()
        };
        assert!(streaming.is_slow(&after(10, 20, 15)), "0.54 GB/s");
        assert!(!streaming.is_slow(&after(10, 20, 5)), "0.54 GB/s, but nobody waits for it");
        assert!(!streaming.is_slow(&after(10, 10, 9)), "1.07 GB/s");
        assert!(!streaming.is_slow(&after(1, 20, 15)), "so little may be an accident");
    }

    #[test]
    fn memory_is_released_only_under_pressure() {
        let streaming = streaming(2e9);
        streaming.respond_to_pressure(600, 1000);
        assert_eq!(streaming.monitor.reclaim_target(), 0, "there is enough");
        streaming.respond_to_pressure(300, 1000);
        assert_eq!(streaming.monitor.reclaim_target(), 700, "up to the headroom");
    }
}
