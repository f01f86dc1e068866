//! The one place where everything is put together: what a plan has loaded becomes a model with its
//! vocabulary and template, which answers requests in a thread of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cachalot_kernels::Cpu;
use cachalot_model::{Batch, Config, Model, Progress};
use cachalot_plan::Layout;
use cachalot_plan::fit::headroom;
use cachalot_probe::system;
use cachalot_text::Vocab;

use super::load_plan::{LoadPlan, Loaded};
use super::options::{Options, PrefixCache, Source};
use super::verdict::check_vocabulary;
use crate::Error;
use crate::blocks::PageId;
use crate::handle::{Handle, Limits, Shared};
use crate::pages::Store;
use crate::request::vocab_of;
use crate::status::{Context, ModelInfo, model_info};
use crate::step::{Compute, Computed, Core, Sizes};

/// How often available memory is checked while experts are streamed.
const PRESSURE_INTERVAL: Duration = Duration::from_secs(1);

/// A loaded model.
#[derive(Debug)]
pub struct Engine {
    pub(crate) model: Model,
    pub(crate) info: Arc<ModelInfo>,
    pub(crate) cpu: Arc<Cpu>,
    interleave: bool,
    /// Where the logits of the last batch's segments are, or why there are none.
    results: Vec<Computed>,
    prefix_cache: Option<PrefixCache>,
    /// When available memory is checked next, and how much should be free then.
    pressure: (Instant, u64),
}

/// The processor as `options` describe it. With `options.interleave`, memory of its threads is
/// interleaved over all NUMA nodes.
pub(super) fn processor(options: &Options) -> Arc<Cpu> {
    let threads = options.threads.unwrap_or_else(system::physical_cores);
    interleaved(options, || Arc::new(Cpu::with_pinning(threads, options.tier, options.pinning)))
}

/// Runs `work` with interleaved memory, if `options` say so and there are several NUMA nodes. Where
/// the system refuses, memory is on the node of the thread that touches it first: slower, with the
/// same results.
pub(super) fn interleaved<R>(options: &Options, work: impl FnOnce() -> R) -> R {
    on_all_nodes(options.interleave, work)
}

fn on_all_nodes<R>(interleave: bool, work: impl FnOnce() -> R) -> R {
    let nodes = system::memory_nodes();
    if interleave && nodes.len() > 1 {
        cachalot_store::numa::interleaved(&nodes, work)
    } else {
        work()
    }
}

/// A model that was loaded as planned, with what [`ModelInfo`] reports about it.
pub(super) struct Parts {
    pub(super) loaded: Loaded,
    pub(super) layout: Layout,
    /// Whether the context is shorter than the model's without having been asked for.
    pub(super) reduced: bool,
    pub(super) cpu: Arc<Cpu>,
    pub(super) begun: Instant,
}

impl Engine {
    /// Plans and loads a model: [`LoadPlan::of`] and [`LoadPlan::load`] in one.
    ///
    /// # Errors
    /// As those.
    pub fn load(
        source: &Source,
        options: &Options,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, Error> {
        LoadPlan::of(source, options)?.load(progress)
    }

    pub(super) fn assemble(
        parts: Parts,
        source: &Source,
        options: &Options,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, Error> {
        let Parts { loaded: Loaded { weights, model, streaming }, layout, reduced, cpu, begun } =
            parts;
        let metadata = weights.metadata();
        let vocab = vocab_of(metadata)?;
        check_vocabulary(&vocab, model.vocab_size())?;
        let context = Context {
            tokens: layout.kv.context as usize,
            model: model.context_length(),
            bytes: layout.kv.bytes / layout.kv.parallel.max(1),
            reduced,
        };
        // What is left of memory for mapped files, beside everything else.
        let room = system::memory_available().unwrap_or(u64::MAX);
        let room = room.saturating_sub(layout.kv.bytes + layout.buffers);
        let info = ModelInfo {
            threads: cpu.pool().threads(),
            threads_missing: cpu.pool().missing(),
            tier: cpu.tier(),
            streaming,
            ..model_info(source, options, weights, vocab, context, layout)?
        };
        // Last, so that a file is not read only to find that it is of no use.
        interleaved(options, || info.weights.warm(room, progress));
        let info = ModelInfo { load_time: begun.elapsed(), ..info };
        let pressure = (Instant::now(), system::memory_available().map_or(0, headroom));
        let (interleave, prefix_cache) = (options.interleave, options.prefix_cache.clone());
        let (info, results) = (Arc::new(info), Vec::new());
        Ok(Self { model, info, cpu, interleave, results, prefix_cache, pressure })
    }

    /// Starts answering requests, in a thread of its own.
    ///
    /// # Errors
    /// If there is no memory for the KV cache, or no thread can be started.
    pub fn start(mut self, limits: Limits) -> Result<Handle, Error> {
        let shared = Arc::new(Shared::new(Arc::clone(&self.info), limits));
        let Layout { kv, micro_batch, .. } = &self.info.layout;
        let sizes = Sizes { pages: kv.pages as usize, micro_batch: *micro_batch as usize };
        self.model.reserve_pages(sizes.pages, self.info.kv_type)?;
        let store = self.prefix_cache.take().map(|place| {
            let theirs = Arc::clone(&shared);
            let wake = Box::new(move || theirs.wake());
            Store::open(&place, self.info.fingerprint, self.page_bytes(), wake)
                .map_err(|source| Error::PrefixCache { folder: place.folder, source })
        });
        let store = store.transpose()?;
        let interleave = self.interleave;
        // Pages and buffers are on the nodes that the policy of the thread says which writes them
        // first.
        Handle::start(shared, move |shared| {
            on_all_nodes(interleave, || Core::new(shared, self, sizes, store).run());
        })
    }

    /// Between steps: releases memory if other programs need it.
    fn respond_to_pressure(&mut self) {
        let Some(streaming) = &self.info.streaming else { return };
        if self.pressure.0.elapsed() < PRESSURE_INTERVAL {
            return;
        }
        self.pressure.0 = Instant::now();
        if let Some(available) = system::memory_available() {
            streaming.respond_to_pressure(available, self.pressure.1);
        }
    }

    /// What there is to know about the model.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// What computes.
    #[doc(hidden)]
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    /// Sizes and switches of the model.
    #[doc(hidden)]
    pub fn config(&self) -> &Config {
        self.model.config()
    }

    /// Text <-> tokens.
    pub fn vocab(&self) -> &Vocab {
        &self.info.vocab
    }
}

impl Compute for Engine {
    fn copy_page(&mut self, from: PageId, to: PageId) {
        self.model.copy_page(from, to);
    }

    fn read_page(&self, page: PageId) -> Vec<u8> {
        self.model.read_page(page)
    }

    fn write_page(&mut self, page: PageId, bytes: &[u8]) {
        self.model.write_page(page, bytes, self.info.kv_type);
    }

    fn forward(
        &mut self,
        batch: &Batch<'_>,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(), cachalot_model::Error> {
        let output = self.model.forward(batch, progress)?;
        self.results.clear();
        let mut start = 0;
        for (index, segment) in batch.segments.iter().enumerate() {
            let failure = output.failures().iter().find(|failure| failure.seq == segment.seq);
            let end = start + output.logits(index).len();
            self.results.push(match failure {
                Some(failure) => Err(Arc::clone(&failure.error)),
                None => Ok(start..end),
            });
            start = end;
        }
        Ok(())
    }

    fn result(&self, segment: usize) -> Computed {
        self.results[segment].clone()
    }

    fn logits(&self) -> &[f32] {
        self.model.logits()
    }

    fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    fn page_bytes(&self) -> u64 {
        self.model.page_bytes(self.info.kv_type) as u64
    }

    fn rest(&mut self) {
        self.respond_to_pressure();
    }
}
