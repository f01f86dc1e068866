//! Whether a model fits into memory, and what is streamed from drives if it does not.
//!
//! What every token reads comes first, then keys and values and the buffers of a prompt; routed experts
//! get what is left. The arithmetic is a pure function of numbers.

use cachalot_model::Config;
use cachalot_plan::{CacheType, Demand, Group};
use cachalot_store::{CacheStats, Monitor, ReadRate, Weights};

use crate::{Error, KvType};

/// Whether to stream experts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stream {
    /// If the model does not fit into memory.
    #[default]
    Auto,
    /// Even if it does.
    Always,
    /// Not even if it does not: the system pages it in and out.
    Never,
}

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

/// What a model needs, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Weights that every token reads.
    pub(crate) dense: u64,
    /// All routed experts.
    pub(crate) routed: u64,
    /// Those of one token.
    pub(crate) routed_per_token: u64,
    /// What each token of context adds.
    pub(crate) kv_per_token: u64,
    /// What each token of a micro-batch takes while it is computed.
    pub(crate) buffers_per_token: u64,
}

impl Needs {
    pub(crate) fn of(weights: &Weights, config: &Config, kv_type: KvType) -> Self {
        let tensors = weights.tensors().iter().map(|tensor| &tensor.info);
        let demand = Demand::of(weights.metadata(), tensors);
        let kind = match kv_type {
            KvType::F32 => CacheType::F32,
            KvType::F16 => CacheType::F16,
            KvType::Q8_0 => CacheType::Q8_0,
        };
        let routed = demand.group(Group::RoutedExperts).bytes;
        let share = |experts: &cachalot_model::ExpertConfig| {
            (u128::from(routed) * experts.used as u128 / experts.count.max(1) as u128) as u64
        };
        // Queries in the absorbed form, and what attention makes of them, are the most of it.
        let widest = config.heads * (config.latent + config.rope);
        Self {
            dense: demand.total.bytes - routed,
            routed,
            routed_per_token: config.experts.as_ref().map_or(0, share),
            kv_per_token: demand.cache.as_ref().map_or(0, |cache| cache.bytes_per_token(kind)),
            buffers_per_token: (2 * size_of::<f32>() * widest) as u64,
        }
    }
}

/// Where a model goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// All of it into memory.
    Resident,
    /// Experts are streamed.
    Streamed {
        /// Bytes of the cache of experts.
        cache: u64,
        /// Tokens of context that there is room for.
        context: u64,
        /// Tokens of a prompt that are computed at once.
        micro_batch: usize,
    },
}

/// A default context is not shortened below this for the sake of experts.
const CONTEXT_MIN: u64 = 512;
/// The shares of what the weights leave that a context and a prompt's buffers may take.
const CONTEXT_SHARE: u64 = 8;
const BUFFERS_SHARE: u64 = 8;
/// Tokens of a prompt that are computed at once: with fewer, each reads too many experts alone.
const MICRO_BATCH_MIN: u64 = 64;
const MICRO_BATCH_MAX: u64 = 2048;

/// Bytes of `available` memory to leave to others. At the brink, the system takes pages of this very
/// process, and everything is slower by a factor; about 6 % is what streaming engines have found.
pub(crate) fn headroom(available: u64) -> u64 {
    (available / 16).clamp(128 << 20, 8 << 30).min(available)
}

/// Decides where a model goes that is wanted with `context` tokens, or by default at most
/// `context_max`, given the `room` for it.
///
/// # Errors
/// If not even what one token needs has room.
pub(crate) fn plan(
    needs: &Needs,
    stream: Stream,
    (context, context_max): (Option<u64>, u64),
    room: u64,
) -> Result<Plan, Error> {
    let Needs { dense, routed, routed_per_token, kv_per_token, buffers_per_token } = *needs;
    let kv = |tokens: u64| kv_per_token.saturating_mul(tokens);
    let least = context.unwrap_or(CONTEXT_MIN.min(context_max));
    let fits = dense + routed + kv(least) <= room;
    if routed == 0 || stream == Stream::Never || (fits && stream == Stream::Auto) {
        return Ok(Plan::Resident);
    }
    let buffers_min = MICRO_BATCH_MIN * buffers_per_token;
    let needed = [routed_per_token, kv(least), buffers_min].iter().fold(dense, |a, b| a + b);
    let Some(left) = room.checked_sub(dense).filter(|_| needed <= room) else {
        return Err(Error::Room { dense, token: routed_per_token, needed, room });
    };
    let spare = room - needed;
    let tokens = context.unwrap_or_else(|| {
        let affordable = kv(least) + spare.min(left / CONTEXT_SHARE);
        (affordable / kv_per_token.max(1)).clamp(least, context_max)
    });
    let spare = spare - (kv(tokens) - kv(least));
    let affordable = buffers_min + (left / BUFFERS_SHARE).min(spare);
    let micro_batch =
        (affordable / buffers_per_token.max(1)).clamp(MICRO_BATCH_MIN, MICRO_BATCH_MAX);
    let cache = left - kv(tokens) - micro_batch * buffers_per_token;
    let micro_batch = micro_batch as usize;
    Ok(Plan::Streamed { cache: cache.min(routed), context: tokens, micro_batch })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// DeepSeek-R1 UD-IQ1_S: 131 GiB.
    const R1: Needs = Needs {
        dense: 10 * GIB,
        routed: 121 * GIB,
        routed_per_token: 121 * GIB / 32,
        kv_per_token: 70_272,
        buffers_per_token: 589_824,
    };

    fn plan_for(room: u64, stream: Stream, context: Option<u64>) -> Result<Plan, Error> {
        plan(&R1, stream, (context, 32_768), room)
    }

    #[test]
    fn what_fits_is_resident_unless_told_otherwise() {
        assert_eq!(plan_for(140 * GIB, Stream::Auto, None).unwrap(), Plan::Resident);
        assert_eq!(plan_for(20 * GIB, Stream::Never, None).unwrap(), Plan::Resident);
        let streamed = plan_for(140 * GIB, Stream::Always, None).unwrap();
        assert!(matches!(streamed, Plan::Streamed { cache, .. } if cache == 121 * GIB));
        assert!(matches!(plan_for(131 * GIB, Stream::Auto, None).unwrap(), Plan::Streamed { .. }));
        let dense = Needs { routed: 0, routed_per_token: 0, ..R1 };
        assert_eq!(plan(&dense, Stream::Always, (None, 512), 0).unwrap(), Plan::Resident);
    }

    #[test]
    fn experts_get_what_is_left_and_nothing_exceeds_the_room() {
        for gib in [15, 16, 20, 24, 32, 64, 96, 128] {
            for asked in [None, Some(4096)] {
                let room = gib * GIB;
                let plan = plan_for(room, Stream::Auto, asked).unwrap();
                let Plan::Streamed { cache, context, micro_batch } = plan else {
                    panic!("{gib} GiB: {plan:?}")
                };
                let all = R1.dense
                    + cache
                    + context * R1.kv_per_token
                    + micro_batch as u64 * R1.buffers_per_token;
                assert!(all <= room && cache >= R1.routed_per_token, "{gib} GiB: {plan:?}");
                assert!(room - all < GIB, "{gib} GiB are used: {plan:?}");
                assert!(cache > (room - R1.dense) / 2, "{gib} GiB: {plan:?}");
                assert!(asked.is_none_or(|asked| asked == context));
                assert!((512..=32_768).contains(&context) && micro_batch >= 64);
            }
        }
    }

    #[test]
    fn too_little_is_refused_with_the_numbers() {
        let error = plan_for(12 * GIB, Stream::Auto, None).unwrap_err().to_string();
        assert!(error.contains("10.0 GiB") && error.contains("12.0 GiB"), "{error}");
        assert!(plan_for(16 * GIB, Stream::Auto, Some(163_840)).is_err(), "11 GiB of cache");
    }

    #[test]
    fn headroom_is_a_share_within_limits() {
        assert_eq!(headroom(1 << 30), 128 << 20);
        assert_eq!(headroom(96 * GIB), 6 * GIB);
        assert_eq!(headroom(2048 * GIB), 8 * GIB);
        assert_eq!(headroom(100), 100);
    }
}
