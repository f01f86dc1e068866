//! `cachalot bench`: how fast a model is here, and how near to what this machine can do.
//!
//! A rate alone says little. Decoding is bound by the bytes of weights that a token reads, so
//! beside it stand the bytes per second that it amounts to and those that this machine can read; a
//! prompt is bound by products. Tokens are pseudo-random, so that the router spreads them over the
//! experts, and the same in every run; they are not sampled.

mod parallel;
mod report;

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cachalot_engine::Error;
use cachalot_engine::layout::{Engine, Feed, LoadPlan, Options, Source};
use cachalot_engine::status::Streaming;
use cachalot_kernels::probe;
use cachalot_model::{Phase, Wanted};
use cachalot_probe::system;
use cachalot_store::{CacheStats, Weights};

use self::report::{Measured, Memory, Report, Work};
use crate::args::ModelArgs;
use crate::failure::usage;
use crate::forecast::Forecast;
use crate::hardware;
use crate::settings::{Environment, model_options};
use crate::terminal::{Progress, loading, note};
use crate::values;

/// Tokens of the prompt that goes first, to warm everything up, and those decoded after it.
const WARM_PROMPT: usize = 32;
const WARM_DECODE: usize = 4;
/// The smallest piece that the system brings into memory.
const PAGE: usize = 4096;
/// Bytes over which the memory's rate is measured at least, whatever the budget: more than most
/// caches hold.
const PROBED_MIN: u64 = 64 << 20;
/// Bytes that one thread brings into memory at a time.
const TOUCHED: usize = 16 << 20;

/// What `cachalot bench` takes.
#[derive(clap::Args, Debug)]
pub(crate) struct BenchArgs {
    /// A .gguf file (of a split model, any part) or the name of a model in the library
    /// [default: the embedded calf]
    #[arg(short = 'm', long = "model", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Tokens of the prompt; 0 leaves this part out
    #[arg(short, long, value_name = "TOKENS", default_value_t = 512, value_parser = values::tokens)]
    pub(crate) prompt: usize,
    /// Tokens to decode, one after the other; 0 leaves this part out
    #[arg(short = 'n', long, value_name = "TOKENS", default_value_t = 48, value_parser = values::tokens)]
    pub(crate) decode: usize,
    /// Tokens in the cache before the first one that is decoded
    #[arg(short, long, value_name = "TOKENS", default_value_t = 0, value_parser = values::tokens)]
    pub(crate) depth: usize,
    /// How often each part is measured; the median counts
    #[arg(short, long, value_name = "TIMES", default_value_t = 3,
          value_parser = values::within::<u32>(1..=1000))]
    pub(crate) repetitions: u32,
    /// Then answer as many requests at a time as each of these numbers says
    #[arg(long, value_name = "USERS", value_delimiter = ',',
          value_parser = values::within::<u16>(1..=64))]
    pub(crate) parallel: Vec<u16>,
    /// Print everything as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

/// Measures, and prints what came out.
pub(crate) fn run(
    args: &BenchArgs,
    environment: &Environment,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    if args.prompt == 0 && args.decode == 0 {
        return Err(usage("-p and -n are both 0: there is nothing to measure"));
    }
    let tokens = args.depth.saturating_add(args.decode).max(args.prompt);
    let options = Options { context: Some(tokens), ..model_options(&args.model, environment) };
    let source = args.file.clone().map_or(crate::embedded::SOURCE, Source::File);
    let plan = LoadPlan::of(&source, &options)?;
    let forecast = Forecast::of_noise(&plan, environment);
    let report = Subject::load(plan)?.measure(args, options.memory)?;
    let users = parallel::measure(args, &options)?;
    let now = report.read_bandwidth;
    if let Some(kept) = hardware::forget_outdated(environment, &options, now) {
        note(&format!(
            "the rates kept of this machine are from a busier time: its memory delivered {:.1} GB/s \
             then, and {:.1} GB/s now. Predictions here are by the old rates, the next ones by new ones.",
            kept / 1e9,
            now / 1e9
        ));
    }
    let (tokens, rate) = report.decoded().unwrap_or((0, 0.0));
    let depth = args.depth + args.decode / 2;
    let compared =
        forecast.as_ref().and_then(|forecast| forecast.compare(depth, tokens, rate, environment));
    if args.json {
        let mut object = report.json();
        object["predicted"] =
            serde_json::json!(forecast.and_then(|forecast| forecast.decode(depth)));
        object["parallel"] = users.iter().map(|users| users.json(report.reads())).collect();
        serde_json::to_writer_pretty(&mut *out, &object)?;
        writeln!(out)?;
    } else {
        out.write_all(report.text().as_bytes())?;
        if !users.is_empty() {
            writeln!(out, "\n{}", parallel::table(&users, report.reads()))?;
        }
        if let Some(compared) = compared.filter(|_| tokens > 0) {
            writeln!(out, "planner: {compared}")?;
        }
    }
    Ok(out.flush()?)
}

/// A model on the bench.
struct Subject {
    name: String,
    engine: Engine,
}

impl Subject {
    fn load(plan: LoadPlan) -> anyhow::Result<Self> {
        let name = match plan.source() {
            Source::File(path) => path.display().to_string(),
            Source::Embedded(_) => "calf (embedded)".to_owned(),
        };
        let mut engine = loading(|progress| plan.load(progress))?;
        for warning in &engine.info().warnings {
            note(&format!("{warning}."));
        }
        engine.begin_feed(engine.info().context.tokens)?;
        if engine.info().streaming.is_none() {
            touch(&engine.info().weights, engine.info().threads);
        }
        Ok(Self { name, engine })
    }

    /// Runs what `args` say; `budget` is what memory was limited to.
    fn measure(mut self, args: &BenchArgs, budget: Option<u64>) -> anyhow::Result<Report> {
        let ends = args.prompt.max(args.depth + args.decode);
        let tokens = random_tokens(ends, self.engine.vocab().len());
        self.warm_up(&tokens)?;
        let begun = self.streamed();
        let prefill = self.prefill(&tokens[..args.prompt], args.repetitions)?;
        let prefill_streamed = since(self.streamed(), begun);
        let (before, after) = tokens.split_at(args.depth);
        let after = &after[..args.decode];
        if !after.is_empty() {
            self.fill(before)?;
        }
        let between = self.streamed();
        let joins = self.engine.cpu().pool().regions();
        let decode = self.decode(before.len(), after, args.repetitions)?;
        let joins = self.engine.cpu().pool().regions() - joins;
        let memory = Memory::now(); // before the probes take some, too
        let free = system::memory_available().map_or(u64::MAX, |free| free / 2);
        // What the budget leaves, but enough to be no cache.
        let budgeted = budget.map_or(u64::MAX, |all| all.saturating_sub(memory.peak.unwrap_or(0)));
        let room = free.min(budgeted.max(PROBED_MIN)) as usize;
        let (info, cpu) = (self.engine.info(), self.engine.cpu());
        let page_tokens = cachalot_plan::layout::PAGE_TOKENS * info.layout.kv.pages;
        Ok(Report {
            work: Work::of(&info.weights, self.engine.config()),
            threads: info.threads,
            tier: info.tier,
            kv_type: info.kv_type,
            cache_bytes_per_token: (info.layout.kv.bytes / page_tokens.max(1)) as usize,
            load_time: info.load_time,
            joins,
            prefill_streamed,
            decode_streamed: since(self.streamed(), between),
            streaming: info.streaming.clone(),
            prefill,
            decode,
            memory,
            read_bandwidth: probe::read_bandwidth_over(cpu, room),
            product_rate: probe::product_rate(cpu),
            name: self.name,
        })
    }

    /// What was read of experts so far, if they are streamed.
    fn streamed(&self) -> Option<CacheStats> {
        self.engine.info().streaming.as_ref().map(Streaming::stats)
    }

    /// Takes tokens through the model, from position `start` on; fails if a logit is not finite.
    fn feed(
        &mut self,
        start: usize,
        tokens: &[u32],
        want: Wanted,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(), Error> {
        let phase = if tokens.len() > 1 { Phase::Prefill } else { Phase::Decode };
        let mut go_on = |done| {
            progress(done);
            true
        };
        self.engine.feed(Feed { tokens, start, phase, want }, &mut go_on, |_| Ok(()))
    }

    /// A short prompt and a few tokens: threads start, buffers are made.
    fn warm_up(&mut self, tokens: &[u32]) -> Result<(), Error> {
        self.feed(0, &tokens[..tokens.len().min(WARM_PROMPT)], Wanted::Last, &mut |_| {})?;
        for (start, token) in tokens.iter().take(WARM_DECODE).enumerate() {
            self.feed(start, std::slice::from_ref(token), Wanted::Last, &mut |_| {})?;
        }
        Ok(())
    }

    /// Takes all `tokens` at once through the model, with the logits of the last.
    fn prefill(&mut self, tokens: &[u32], repetitions: u32) -> Result<Option<Measured>, Error> {
        if tokens.is_empty() {
            return Ok(None);
        }
        let mut progress = Progress::new("prefill");
        let all = tokens.len() as u64 * u64::from(repetitions);
        let mut seconds = Vec::new();
        for repetition in 0..u64::from(repetitions) {
            let before = repetition * tokens.len() as u64;
            let begun = Instant::now();
            let mut set = |done: usize| progress.set(before + done as u64, all);
            self.feed(0, tokens, Wanted::Last, &mut set)?;
            seconds.push(begun.elapsed().as_secs_f64());
        }
        Ok(Some(Measured::new(tokens.len(), 0, seconds)))
    }

    /// Fills the cache with what is there before the first token that is decoded.
    fn fill(&mut self, before: &[u32]) -> Result<(), Error> {
        let mut progress = Progress::new("filling the cache");
        let mut set = |done: usize| progress.set(done as u64, before.len() as u64);
        self.feed(0, before, Wanted::None, &mut set)?;
        progress.clear();
        Ok(())
    }

    /// Takes `tokens` one at a time through the model, with logits, after the `depth` tokens that
    /// [`Self::fill`] left.
    fn decode(
        &mut self,
        depth: usize,
        tokens: &[u32],
        repetitions: u32,
    ) -> Result<Option<Measured>, Error> {
        if tokens.is_empty() {
            return Ok(None);
        }
        let mut progress = Progress::new("decode");
        let all = tokens.len() as u64 * u64::from(repetitions);
        let mut seconds = Vec::new();
        for _ in 0..repetitions {
            let mut time = Duration::ZERO;
            for (done, token) in tokens.iter().enumerate() {
                let begun = Instant::now();
                self.feed(depth + done, std::slice::from_ref(token), Wanted::Last, &mut |_| {})?;
                time += begun.elapsed();
                progress.set((seconds.len() * tokens.len() + done) as u64, all);
            }
            seconds.push(time.as_secs_f64());
        }
        Ok(Some(Measured::new(tokens.len(), depth, seconds)))
    }
}

fn since(late: Option<CacheStats>, early: Option<CacheStats>) -> Option<CacheStats> {
    Some(late?.since(&early?))
}

/// Reads something of every page, so that no run waits for a drive; not of a model that memory
/// cannot hold, whose runs are to show just that.
fn touch(weights: &Weights, threads: usize) {
    let total = weights.size();
    if system::memory_available().is_some_and(|free| total > free) {
        return;
    }
    let pieces: Vec<&[u8]> =
        weights.tensors().iter().flat_map(|tensor| tensor.bytes.chunks(TOUCHED)).collect();
    let next = AtomicUsize::new(0);
    let mut progress = Progress::new("reading");
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..threads {
            let (sender, next, pieces) = (sender.clone(), &next, &pieces);
            scope.spawn(move || {
                while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                    std::hint::black_box(
                        piece.iter().step_by(PAGE).map(|&b| u64::from(b)).sum::<u64>(),
                    );
                    if sender.send(piece.len() as u64).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut done = 0;
        for bytes in receiver {
            done += bytes;
            progress.set(done, total);
        }
    });
}

/// The same pseudo-random tokens each time; none of the last of a vocabulary, where the special
/// ones are. The constants are Knuth's, for MMIX.
fn random_tokens(count: usize, vocabulary: usize) -> Vec<u32> {
    let ordinary = vocabulary.saturating_sub((vocabulary / 64).max(64)).max(1) as u64;
    let mut state = 671u64;
    let step = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The product of two numbers of 32 bits: its upper half is below the second one.
        (((state >> 32) * ordinary) >> 32) as u32
    };
    std::iter::repeat_with(step).take(count).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn tokens_are_ordinary_and_various_and_the_same_each_time() {
        let tokens = random_tokens(1000, 129_280);
        assert!(tokens.iter().all(|&token| token < 128_000), "special tokens of R1 begin there");
        assert!(tokens.iter().collect::<BTreeSet<_>>().len() > 950);
        assert!(tokens.iter().any(|&token| token > 100_000));
        assert_eq!(tokens[..10], random_tokens(10, 129_280));
        assert_eq!(random_tokens(3, 1), [0, 0, 0]);
    }
}
