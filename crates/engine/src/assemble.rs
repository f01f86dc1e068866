//! The one place where everything is put together: a source of bytes becomes weights, a model, a
//! vocabulary and a template. Another kind of stage or of expert store is added here.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cachalot_gguf::{Gguf, Metadata};
use cachalot_kernels::Cpu;
use cachalot_model::{Batch, Logits, Model, PAGE_ROWS, Progress};
use cachalot_plan::fit::headroom;
use cachalot_text::{ChatTemplate, Vocab, VocabParts};

use crate::blocks::PageId;
use crate::handle::{Handle, Limits, Shared};
use crate::info::{Context, ModelInfo};
use crate::options::{Options, Source};
use crate::output::ThoughtTags;
use crate::place::{Placed, place};
use crate::step::{Compute, Computed, Core, Sizes};
use crate::verdict::check_vocabulary;
use crate::{Error, Sampling, host};

/// How often available memory is checked while experts are streamed.
const PRESSURE_INTERVAL: Duration = Duration::from_secs(1);
/// Tokens whose logits are computed at once when all are wanted.
const LOGITS_CHUNK: usize = 256;

/// A loaded model.
#[derive(Debug)]
pub struct Engine {
    pub(crate) model: Model,
    pub(crate) info: Arc<ModelInfo>,
    sizes: Sizes,
    /// When available memory is checked next, and how much should be free then.
    pressure: (Instant, u64),
}

/// The processor as `options` describe it. With `options.interleave`, memory of its threads is
/// interleaved over all NUMA nodes.
pub fn processor(options: &Options) -> Arc<Cpu> {
    let threads = options.threads.unwrap_or_else(host::physical_cores);
    interleaved(options, || Arc::new(Cpu::with_pinning(threads, options.tier, options.pinning)))
}

/// Runs `work` with interleaved memory, if `options` say so and there are several NUMA nodes. Where
/// the system refuses, memory is on the node of the thread that touches it first: slower, with the
/// same results.
pub(crate) fn interleaved<R>(options: &Options, work: impl FnOnce() -> R) -> R {
    let nodes = host::memory_nodes();
    if options.interleave && nodes.len() > 1 {
        cachalot_store::numa::interleaved(&nodes, work)
    } else {
        work()
    }
}

impl Engine {
    /// Loads a model. `progress` gets the bytes read and their total.
    ///
    /// # Errors
    /// If the source is no valid model of a supported architecture, or the options do not fit it or
    /// this machine.
    pub fn load(
        source: &Source,
        options: &Options,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, Error> {
        let begun = Instant::now();
        let cpu = processor(options);
        let placed = place(source, options, &cpu, progress)?;
        Self::assemble(placed, source, options, &cpu, begun, progress).map_err(|error| match source
        {
            Source::Embedded(_) => error,
            Source::File(path) => Error::InFile { path: path.clone(), source: Box::new(error) },
        })
    }

    fn assemble(
        placed: Placed,
        source: &Source,
        options: &Options,
        cpu: &Cpu,
        begun: Instant,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, Error> {
        let (model, metadata) = (&placed.model, placed.weights.metadata());
        let vocab = vocab_of(metadata)?;
        check_vocabulary(&vocab, model.vocab_size())?;
        let parallel = placed.fit.parallel.max(1);
        let context = Context {
            tokens: placed.fit.context as usize,
            model: model.context_length(),
            bytes: placed.fit.kv / parallel,
            reduced: placed.fit.context_reduced,
        };
        let template = ChatTemplate::new(options.chat_template.as_deref(), &vocab)?;
        let tensors = placed.weights.tensors().iter().map(|tensor| &tensor.info);
        let mut warnings = cachalot_model::check_header(metadata, tensors)?;
        warnings.extend(vocab.warnings().iter().cloned());
        warnings.extend(template.warning().map(str::to_owned));
        let recommended = Sampling::recommended(metadata)?;
        let kv_type = placed.kv_type();
        // Last, so that a file is not read only to find that it is of no use.
        placed.warm(progress);
        let info = ModelInfo {
            name: name(source, metadata),
            thought_tags: ThoughtTags::of(&vocab),
            vocab,
            template,
            warnings,
            context,
            kv_type,
            recommended,
            threads: cpu.pool().threads(),
            threads_missing: cpu.pool().missing(),
            tier: cpu.tier(),
            streaming: placed.streaming,
            weights: placed.weights,
            load_time: begun.elapsed(),
        };
        let pressure = (Instant::now(), host::memory_available().map_or(0, headroom));
        let sizes = Sizes {
            pages: context.tokens.div_ceil(PAGE_ROWS) * parallel as usize,
            micro_batch: placed.fit.micro_batch as usize,
        };
        Ok(Self { model: placed.model, info: Arc::new(info), sizes, pressure })
    }

    /// Starts answering requests, in a thread of its own.
    ///
    /// # Errors
    /// If there is no memory for the KV cache, or no thread can be started.
    pub fn start(mut self, limits: Limits) -> Result<Handle, Error> {
        let shared = Arc::new(Shared::new(Arc::clone(&self.info), limits));
        let sizes = self.sizes;
        self.model.reserve_pages(sizes.pages, self.info.kv_type)?;
        Handle::start(shared, move |shared| Core::new(shared, self, sizes).run())
    }

    /// Between steps: releases memory if other programs need it.
    fn respond_to_pressure(&mut self) {
        let Some(streaming) = &self.info.streaming else { return };
        if self.pressure.0.elapsed() < PRESSURE_INTERVAL {
            return;
        }
        self.pressure.0 = Instant::now();
        if let Some(available) = host::memory_available() {
            streaming.respond_to_pressure(available, self.pressure.1);
        }
    }

    /// The logits of every one of `tokens`, chunk by chunk: `sink` gets some rows of
    /// `[rows, vocabulary]`, in order. Setting `cancel` ends it soon.
    ///
    /// # Errors
    /// If a token is not in the vocabulary, or there are more than the model was made for, before
    /// anything is computed; if a logit is not finite; if it was cancelled; and the first error of `sink`.
    pub fn logits<E: From<Error>>(
        &mut self,
        tokens: &[u32],
        cancel: &AtomicBool,
        mut sink: impl FnMut(&[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (vocabulary, context) = (self.vocab().len(), self.info.context.model);
        if tokens.len() > context {
            return Err(Error::PromptTooLong { prompt: tokens.len(), context }.into());
        }
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(Error::from(cachalot_model::Error::Token { token, vocabulary }).into());
        }
        let kv_type = self.info.kv_type;
        let mut cache = self.model.cache(tokens.len(), kv_type).map_err(Error::from)?;
        let mut keep_going = |_| !cancel.load(Ordering::Relaxed);
        for chunk in tokens.chunks(LOGITS_CHUNK) {
            let logits =
                self.model.forward_sequence(&mut cache, chunk, Logits::All, &mut keep_going);
            let logits = logits.map_err(Error::from)?;
            if !logits.iter().all(|logit| logit.is_finite()) {
                return Err(Error::NotFinite.into());
            }
            sink(logits)?;
        }
        Ok(())
    }

    /// What there is to know about the model.
    pub fn info(&self) -> &ModelInfo {
        &self.info
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

    fn forward<'a>(
        &'a mut self,
        batch: &'a Batch<'_>,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Vec<Computed<'a>>, cachalot_model::Error> {
        let output = self.model.forward(batch, progress)?;
        let computed = batch.segments.iter().enumerate().map(|(index, segment)| {
            let failure = output.failures().iter().find(|failure| failure.seq == segment.seq);
            match failure {
                Some(failure) => Err(Arc::clone(&failure.error)),
                None => Ok(output.logits(index)),
            }
        });
        Ok(computed.collect())
    }

    fn page_bytes(&self) -> u64 {
        self.model.page_bytes(self.info.kv_type) as u64
    }

    fn rest(&mut self) {
        self.respond_to_pressure();
    }
}

/// What a file calls its model, or else the file's own name.
fn name(source: &Source, metadata: &Metadata) -> String {
    let named = metadata.str("general.name").ok().filter(|name| !name.trim().is_empty());
    named.map(str::to_owned).unwrap_or_else(|| match source {
        Source::Embedded(_) => "calf".to_owned(),
        Source::File(path) => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
    })
}

/// The vocabulary of a file, which need not hold tensors.
///
/// # Errors
/// If it is not a GGUF file, or has no vocabulary of a supported kind.
pub fn open_vocab(path: &Path) -> Result<Vocab, Error> {
    let first = cachalot_gguf::split::part_paths(path).swap_remove(0);
    let gguf = Gguf::open(&first)?;
    vocab_of(&gguf.metadata)
        .map_err(|source| Error::InFile { path: first, source: Box::new(source) })
}

/// The vocabulary of a GGUF in memory.
///
/// # Errors
/// As [`open_vocab`].
pub fn embedded_vocab(bytes: &[u8]) -> Result<Vocab, Error> {
    vocab_of(&Gguf::parse(bytes, bytes.len() as u64)?.metadata)
}

pub(crate) fn vocab_of(metadata: &Metadata) -> Result<Vocab, Error> {
    Ok(Vocab::new(&VocabParts::from_metadata(metadata)?)?)
}
