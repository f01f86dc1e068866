//! Where a model comes from, and how to load and compute it.

use std::path::PathBuf;
use std::sync::Arc;

use cachalot_gguf::KvType;
use cachalot_kernels::{Pinning, Tier};
use cachalot_model::ExpertGroups;
use cachalot_plan::Stream;
use cachalot_store::Ranges;

use super::device::{Device, PROCESSOR_ALONE};
use crate::status::ExpertUse;

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A GGUF file, or any part of a split one.
    File(PathBuf),
    /// A GGUF that is part of the program.
    Embedded(&'static [u8]),
}

/// Where the prefix cache is, and how large it may become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixCache {
    /// A folder of its own; it is created.
    pub folder: PathBuf,
    /// Bytes of all files in it.
    pub size: u64,
}

/// How to load and compute a model.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads that compute; `None` is one for each physical core.
    pub threads: Option<usize>,
    /// The best instructions to use.
    pub tier: Tier,
    /// KV-cache data type; `None` is f16, or q8_0 if nothing fits otherwise.
    pub kv_type: Option<KvType>,
    /// Context window, in tokens; `None` leaves it to the model and the memory.
    pub context: Option<usize>,
    /// Sequences that the KV cache holds full contexts of.
    pub parallel: usize,
    /// Active experts per token; `None` is what the file says.
    pub experts: Option<usize>,
    /// Groups that experts are chosen from.
    pub groups: ExpertGroups,
    /// Whether a request's text depends on nothing but itself: neither on others that run beside
    /// it, nor on how its prompt is divided, or was cached. Prompts are then about as slow as
    /// decoding.
    pub reproducible: bool,
    /// Bytes of memory to use; `None` is what is free, less some headroom.
    pub memory: Option<u64>,
    /// Whether to stream experts from drives.
    pub stream: Stream,
    /// Whether to copy a model that fits into memory of its own, in huge pages.
    pub huge_pages: bool,
    /// Whether memory is interleaved over all NUMA nodes, if there are several: that of the thread
    /// that loads a model, of those it starts, and of files that they bring into the page cache.
    pub interleave: bool,
    /// Whether threads stay on CPUs of their own.
    pub pinning: Pinning,
    /// Whether to read experts that the next layer will probably need, while the drive is idle. It
    /// changes no result.
    pub prefetch: bool,
    /// Whether routing prefers experts that are in memory, which changes results.
    pub prefer_cached: bool,
    /// Counts the experts that decoding batches use.
    pub count_experts: Option<Arc<ExpertUse>>,
    /// The devices that a model may be placed on, the processor among them.
    pub devices: &'static [&'static dyn Device],
    /// The chat template to use instead of the file's.
    pub chat_template: Option<String>,
    /// Where to record which experts are chosen.
    pub trace: Option<PathBuf>,
    /// The folder for statistics of expert use, from which the next start fills its cache.
    pub expert_stats: Option<PathBuf>,
    /// Where pages of the KV cache are kept over restarts.
    pub prefix_cache: Option<PrefixCache>,
    /// Who is still writing the model's files. Its headers are there.
    pub arriving: Option<Arc<dyn Ranges>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: None,
            tier: Tier::detect(),
            kv_type: None,
            context: None,
            parallel: 1,
            experts: None,
            groups: ExpertGroups::Auto,
            reproducible: false,
            memory: None,
            stream: Stream::Auto,
            huge_pages: false,
            interleave: true,
            pinning: Pinning::Auto,
            prefetch: false,
            prefer_cached: false,
            count_experts: None,
            devices: PROCESSOR_ALONE,
            chat_template: None,
            trace: None,
            expert_stats: None,
            prefix_cache: None,
            arriving: None,
        }
    }
}
