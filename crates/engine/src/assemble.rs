//! The one place where everything is put together: a source of bytes becomes weights, a model, a
//! vocabulary and a template. Whoever adds another kind of stage or of expert store adds it here.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cachalot_gguf::{Gguf, KvType, Metadata};
use cachalot_kernels::{Cpu, Tier};
use cachalot_model::{ExpertGroups, Logits, Model};
use cachalot_plan::Stream;
use cachalot_plan::fit::headroom;
use cachalot_store::Weights;
use cachalot_text::{ChatTemplate, Vocab, VocabParts};

use crate::place::{Placed, place};
use crate::session::Session;
use crate::stream::Streaming;
use crate::{Error, Sampling, host};

/// How often memory is looked at while experts are streamed.
const RELIEF_INTERVAL: Duration = Duration::from_secs(1);
/// Tokens whose logits are computed at once when all are wanted.
const LOGITS_CHUNK: usize = 256;

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A GGUF file, or any part of a split one.
    File(PathBuf),
    /// A GGUF that is part of the program.
    Embedded(&'static [u8]),
}

/// How to load and compute a model.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads that compute; `None` is one for each physical core.
    pub threads: Option<usize>,
    /// The best instructions to use.
    pub tier: Tier,
    /// How the cache stores its numbers; `None` is f16, or q8_0 if nothing fits otherwise.
    pub kv_type: Option<KvType>,
    /// Tokens that a conversation can hold; `None` leaves it to the model and the memory.
    pub context: Option<usize>,
    /// Active experts per token; `None` is what the file says.
    pub experts: Option<usize>,
    /// Groups that experts are picked from.
    pub groups: ExpertGroups,
    /// Bytes of memory to use; `None` is what is free, less some headroom.
    pub memory: Option<u64>,
    /// Whether to stream experts from drives.
    pub stream: Stream,
    /// Whether to copy a model that fits into memory of its own, in huge pages.
    pub huge_pages: bool,
    /// Whether memory lies on all NUMA nodes in turn, if there are several: of the thread that loads a model, of
    /// those it starts, and of files that they bring into the page cache.
    pub interleave: bool,
    /// Whether to read experts that the next layer will probably pick, while the drive is idle. It
    /// changes no result.
    pub guesses: bool,
    /// Whether routers shall prefer experts that are in memory, which changes results.
    pub prefer_cached: bool,
    /// Where to write down which experts are picked.
    pub trace: Option<PathBuf>,
    /// The folder that remembers, from run to run, which experts were popular.
    pub expert_stats: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: None,
            tier: Tier::detect(),
            kv_type: None,
            context: None,
            experts: None,
            groups: ExpertGroups::Auto,
            memory: None,
            stream: Stream::Auto,
            huge_pages: false,
            interleave: true,
            guesses: false,
            prefer_cached: false,
            trace: None,
            expert_stats: None,
        }
    }
}

/// A model, ready to answer.
#[derive(Debug)]
pub struct Engine {
    pub(crate) model: Model,
    pub(crate) vocab: Vocab,
    pub(crate) template: ChatTemplate,
    weights: Weights,
    kv_type: KvType,
    context: Context,
    recommended: Sampling,
    load_time: Duration,
    streaming: Option<Streaming>,
    /// When memory is to be looked at again, and what shall be free.
    relief: (Instant, u64),
}

/// How many tokens a conversation can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Tokens of a conversation.
    pub tokens: usize,
    /// Tokens that the model was made for.
    pub model: usize,
    /// Bytes that the cache of a full conversation takes.
    pub bytes: u64,
    /// Nobody asked for fewer tokens than the model was made for: memory, or the default's limit,
    /// did.
    pub reduced: bool,
}

/// The processor as `options` want it. Memory of this thread, and of those that it starts from now on, lies on all
/// NUMA nodes in turn, if that is among them.
pub fn processor(options: &Options) -> Arc<Cpu> {
    let nodes = host::memory_nodes();
    if options.interleave && nodes.len() > 1 {
        // Refused, memory lies where threads are that touch it first: slower, and the same results.
        let _refused = cachalot_store::numa::interleave(&nodes);
    }
    let threads = options.threads.unwrap_or_else(host::physical_cores);
    Arc::new(Cpu::new(threads, options.tier))
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
        let mut engine = Self::assemble(placed, progress).map_err(|error| match source {
            Source::Embedded(_) => error,
            Source::File(path) => Error::InFile { path: path.clone(), source: Box::new(error) },
        })?;
        engine.load_time = begun.elapsed();
        Ok(engine)
    }

    fn assemble(placed: Placed, progress: &mut dyn FnMut(u64, u64)) -> Result<Self, Error> {
        let (model, weights) = (&placed.model, &placed.weights);
        let vocab = vocab_of(weights.metadata())?;
        if vocab.len() != model.vocab_size() {
            return Err(Error::Vocabulary { tokens: vocab.len(), logits: model.vocab_size() });
        }
        let (bos, eos) = (vocab.token_text(vocab.bos()), vocab.token_text(vocab.eos()));
        let context = Context {
            tokens: placed.fit.context as usize,
            model: model.context_length(),
            bytes: placed.fit.kv,
            reduced: placed.fit.context_reduced,
        };
        let template = ChatTemplate::new(vocab.chat_template(), &bos, &eos)?;
        let recommended = Sampling::recommended(weights.metadata())?;
        let kv_type = placed.kv_type();
        // Last, so that nobody waits for a file only to learn that it is of no use.
        placed.warm(progress);
        Ok(Self {
            template,
            recommended,
            model: placed.model,
            vocab,
            weights: placed.weights,
            kv_type,
            context,
            load_time: Duration::ZERO,
            streaming: placed.streaming,
            relief: (Instant::now(), host::memory_available().map_or(0, headroom)),
        })
    }

    /// What is streamed, if anything is.
    pub fn streaming(&self) -> Option<&Streaming> {
        self.streaming.as_ref()
    }

    /// Between tokens: gives memory back if others want it.
    pub(crate) fn relieve(&mut self) {
        let Some(streaming) = &self.streaming else { return };
        if self.relief.0.elapsed() < RELIEF_INTERVAL {
            return;
        }
        self.relief.0 = Instant::now();
        if let Some(available) = host::memory_available() {
            streaming.relieve(available, self.relief.1);
        }
    }

    /// An empty conversation.
    ///
    /// # Errors
    /// If there is no memory for its cache.
    pub fn session(&self) -> Result<Session, Error> {
        Ok(Session::new(self.model.cache(self.context.tokens, self.kv_type)?))
    }

    /// The logits of every one of `tokens`, chunk by chunk: `sink` gets some rows of
    /// `[rows, vocabulary]`, in order. Setting `cancel` ends it soon.
    ///
    /// # Errors
    /// If a token is not in the vocabulary, or there are more than the model was made for, before
    /// anything is computed; if it was cancelled; and the first error of `sink`.
    pub fn logits<E: From<Error>>(
        &mut self,
        tokens: &[u32],
        cancel: &AtomicBool,
        mut sink: impl FnMut(&[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (vocabulary, context) = (self.vocab.len(), self.context.model);
        if tokens.len() > context {
            return Err(Error::PromptTooLong { prompt: tokens.len(), context }.into());
        }
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(Error::from(cachalot_model::Error::Token { token, vocabulary }).into());
        }
        let mut cache = self.model.cache(tokens.len(), self.kv_type).map_err(Error::from)?;
        let mut go_on = |_| !cancel.load(Ordering::Relaxed);
        for chunk in tokens.chunks(LOGITS_CHUNK) {
            let logits = self.model.forward(&mut cache, chunk, Logits::All, &mut go_on);
            sink(logits.map_err(Error::from)?)?;
        }
        Ok(())
    }

    /// Text <-> tokens.
    pub fn vocab(&self) -> &Vocab {
        &self.vocab
    }

    /// The weights, with their description.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The key-value pairs of the file.
    pub fn metadata(&self) -> &Metadata {
        self.weights.metadata()
    }

    /// How many tokens a conversation can hold.
    pub fn context(&self) -> Context {
        self.context
    }

    /// The defaults of sampling, with what the file recommends.
    pub fn recommended(&self) -> &Sampling {
        &self.recommended
    }

    /// How long loading took.
    pub fn load_time(&self) -> Duration {
        self.load_time
    }
}

/// The vocabulary of a file, which need not hold tensors.
///
/// # Errors
/// If it is no GGUF, or has no vocabulary of a supported kind.
pub fn open_vocab(path: &Path) -> Result<Vocab, Error> {
    let first = cachalot_gguf::split::part_paths(path).swap_remove(0);
    let gguf = Gguf::open(&first)?;
    vocab_of(&gguf.metadata)
        .map_err(|source| Error::InFile { path: first, source: Box::new(source) })
}

fn vocab_of(metadata: &Metadata) -> Result<Vocab, Error> {
    Ok(Vocab::new(&VocabParts::from_metadata(metadata)?)?)
}
