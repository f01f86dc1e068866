//! The scheduler over a stand-in for the model, against a slow model of what it should do
//! (`slow_model.rs`), and its answers against what each request would get alone.
//!
//! The stand-in keeps in its pages the tokens that a model would keep keys and values of, and
//! computes logits from all that it reads there. So a page that is shared, copied, evicted or
//! reused wrongly changes the text.

mod slow_model;

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

use self::slow_model::SlowModel;
use super::*;
use crate::handle::{Generation, Limits};
use crate::layout::{Engine, Options, PrefixCache, Source};
use crate::random::SplitMix64;
use crate::request::{Constraint, Request, Sampling, SubmitError, ThoughtState};
use crate::status::Fingerprint;

const CONTEXT: usize = 512;

/// calf's description; calf itself computes nothing here.
fn info() -> Arc<ModelInfo> {
    static INFO: OnceLock<Arc<ModelInfo>> = OnceLock::new();
    let load = || {
        let calf = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/calf.gguf");
        let options = Options { threads: Some(1), context: Some(CONTEXT), ..Options::default() };
        let engine = Engine::load(&Source::File(calf.into()), &options, &mut |_, _| {}).unwrap();
        Arc::clone(&engine.info)
    };
    Arc::clone(INFO.get_or_init(load))
}

/// The token after these: by their hash.
fn next_token(tokens: &[u32]) -> u32 {
    let vocab = &info().vocab;
    let mut hash = SplitMix64::new(tokens.len() as u64);
    for token in tokens {
        hash = SplitMix64::new(hash.next_u64() ^ u64::from(*token));
    }
    let random = hash.next_u64();
    if random.is_multiple_of(29) {
        return vocab.eos().unwrap();
    }
    let ordinary = (random % (vocab.len() as u64 / 2)) as u32;
    if vocab.is_end(ordinary) { ordinary + 1 } else { ordinary }
}

struct Fake {
    pages: Vec<[u32; PAGE_ROWS]>,
    logits: Vec<f32>,
    /// Of the last batch: where the logits of each segment are, unless it has failed.
    results: Vec<Computed>,
    /// One segment in this many fails.
    failing: Option<(u64, SplitMix64)>,
    /// The sequences that have failed.
    failed: Vec<u64>,
    /// The most rows of a batch, and of all batches.
    rows_max: usize,
    computed: usize,
}

impl Fake {
    fn new(pages: usize, failing: Option<u64>) -> Self {
        Self {
            pages: vec![[u32::MAX; PAGE_ROWS]; pages],
            logits: Vec::new(),
            results: Vec::new(),
            failed: Vec::new(),
            failing: failing.map(|one_in| (one_in, SplitMix64::new(7))),
            rows_max: 0,
            computed: 0,
        }
    }
}

impl Compute for Fake {
    fn copy_page(&mut self, from: PageId, to: PageId) {
        self.pages[to as usize] = self.pages[from as usize];
    }

    fn read_page(&self, page: PageId) -> Vec<u8> {
        self.pages[page as usize].iter().flat_map(|token| token.to_le_bytes()).collect()
    }

    fn write_page(&mut self, page: PageId, bytes: &[u8]) {
        for (token, bytes) in self.pages[page as usize].iter_mut().zip(bytes.chunks(4)) {
            *token = u32::from_le_bytes(bytes.try_into().unwrap());
        }
    }

    fn forward(
        &mut self,
        batch: &Batch<'_>,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(), cachalot_model::Error> {
        if !progress(Progress { done: 1, layers: 1 }) {
            return Err(cachalot_model::Error::Stopped);
        }
        self.rows_max = self.rows_max.max(batch.tokens.len());
        self.computed += batch.tokens.len();
        let vocabulary = info().vocab.len();
        self.logits.clear();
        self.results.clear();
        for segment in batch.segments {
            for (token, position) in batch.tokens[segment.rows.clone()].iter().zip(segment.start..)
            {
                let page = segment.pages[position / PAGE_ROWS] as usize;
                self.pages[page][position % PAGE_ROWS] = *token;
            }
            let end = segment.start + segment.rows.len();
            let held: Vec<u32> = (0..end)
                .map(|p| self.pages[segment.pages[p / PAGE_ROWS] as usize][p % PAGE_ROWS])
                .collect();
            let fails = |(one_in, random): &mut (u64, SplitMix64)| {
                random.next_u64().is_multiple_of(*one_in)
            };
            let has_failed = self.failing.as_mut().is_some_and(fails);
            self.failed.extend(has_failed.then_some(segment.seq));
            let start = self.logits.len();
            if segment.want == Wanted::Last {
                self.logits.resize(start + vocabulary, 0.0);
                self.logits[start + next_token(&held) as usize] = 20.0;
            }
            let error = || Arc::new(cachalot_model::Error::NotFinite);
            self.results.push(if has_failed { Err(error()) } else { Ok(start..self.logits.len()) });
        }
        Ok(())
    }

    fn result(&self, segment: usize) -> Computed {
        self.results[segment].clone()
    }

    fn logits(&self) -> &[f32] {
        &self.logits
    }

    fn cpu(&self) -> &Cpu {
        static CPU: OnceLock<Cpu> = OnceLock::new();
        CPU.get_or_init(|| Cpu::new(1, cachalot_kernels::Tier::detect()))
    }
    fn page_bytes(&self) -> u64 {
        256
    }
}

fn request(prompt: Vec<u32>, max_tokens: usize) -> Request {
    Request {
        prompt,
        thought: ThoughtState::Ignored,
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        max_tokens: Some(max_tokens),
        ..Request::default()
    }
}

/// What an answer should be: one token after the other.
fn expected(request: &Request) -> (Vec<u32>, FinishReason) {
    let mut tokens = request.prompt.clone();
    let limit = request.max_tokens.unwrap();
    let reason = loop {
        if tokens.len() - request.prompt.len() >= limit {
            break FinishReason::Length;
        }
        if tokens.len() > CONTEXT {
            break FinishReason::ContextFull;
        }
        let next = next_token(&tokens);
        if info().vocab.is_end(next) {
            break FinishReason::Stop;
        }
        tokens.push(next);
    };
    (tokens.split_off(request.prompt.len()), reason)
}

/// What was received of a request.
struct Received {
    request: Request,
    generation: Option<Generation>,
    tokens: Vec<u32>,
    end: Option<Result<FinishReason, Error>>,
    text: String,
    cancelled: bool,
    id: u64,
}

impl Received {
    fn new(request: Request, generation: Generation) -> Self {
        let (tokens, text) = (Vec::new(), String::new());
        let id = generation.id().0;
        let generation = Some(generation);
        Self { request, generation, tokens, end: None, text, cancelled: false, id }
    }

    fn receive(&mut self) {
        let Some(generation) = &mut self.generation else { return };
        while let Some(event) = generation.try_recv() {
            match event {
                Event::Token(event) => {
                    self.tokens.extend(event.tokens.iter().map(|token| token.id));
                    self.text += &event.text;
                }
                Event::Finished(finished) => self.end = Some(Ok(finished.reason)),
                Event::Failed(error) => self.end = Some(Err(error)),
                Event::Queued { .. } | Event::Prefill { .. } => {
                    assert!(self.end.is_none(), "nothing follows the end");
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        self.end.is_some() || self.generation.is_none()
    }

    fn check(&self) {
        match &self.end {
            None => assert!(self.generation.is_none(), "it has no end"),
            Some(Err(Error::Computation(_))) => {}
            Some(Err(error)) => panic!("{error}"),
            Some(Ok(FinishReason::Cancelled)) => assert!(self.cancelled),
            Some(Ok(FinishReason::Stop)) if self.request.constraint.is_some() => {
                let digits = self.text.bytes().all(|byte| byte.is_ascii_digit());
                assert!(digits && (1..=12).contains(&self.text.len()), "{:?}", self.text);
            }
            Some(Ok(_)) if self.request.constraint.is_some() => {}
            Some(Ok(reason)) => {
                let (tokens, expected) = expected(&self.request);
                assert_eq!((&self.tokens, *reason), (&tokens, expected));
            }
        }
        if self.request.constraint.is_none() {
            let whole = expected(&self.request).0;
            assert!(whole.starts_with(&self.tokens), "what was sent was right");
        }
    }
}

fn core(shared: &Shared, pages: usize, failing: Option<u64>) -> Core<'_, Fake> {
    Core::new(shared, Fake::new(pages, failing), Sizes { pages, micro_batch: 128 }, None)
}

/// As [`core`], with a prefix cache in `folder` that keeps `kept` pages.
fn core_with_disk<'a>(
    shared: &'a Arc<Shared>,
    pages: usize,
    folder: &Path,
    kept: u64,
) -> Core<'a, Fake> {
    let compute = Fake::new(pages, None);
    let place = PrefixCache { folder: folder.to_owned(), size: kept * 1024 };
    let theirs = Arc::clone(shared);
    let wake = Box::new(move || theirs.wake());
    let store = Store::open(&place, Fingerprint([3; 32]), compute.page_bytes(), wake).unwrap();
    Core::new(shared, compute, Sizes { pages, micro_batch: 128 }, Some(store))
}

/// Answers one request after the other, then ends as at a shutdown; returns how many tokens were
/// computed.
fn answer_all(mut core: Core<'_, Fake>, shared: &Arc<Shared>, requests: &[Request]) -> usize {
    for request in requests {
        let generation = Shared::submit(shared, request.clone()).unwrap();
        let mut received = Received::new(request.clone(), generation);
        while !received.is_over() {
            assert!(core.receive(true));
            core.step();
            check_pages(&core);
            received.receive();
        }
        received.check();
    }
    core.disk.finish(&mut core.scheduler.pages, &core.compute);
    core.compute.computed
}

#[test]
fn pages_return_from_disk_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let prompt: Vec<u32> = (0..300).map(|i| i * 5 % 640).collect();
    let requests = [request(prompt.clone(), 3)];
    let limits = Limits { parallel: 5, queue: 20 };
    let run = |requests: &[Request]| {
        let shared = Arc::new(Shared::new(info(), limits));
        let core = core_with_disk(&shared, 8, folder.path(), 100);
        answer_all(core, &shared, requests)
    };
    let whole = run(&requests);
    assert!(whole >= 300);
    assert_eq!(run(&requests), whole - 4 * PAGE_ROWS, "the full pages are not computed again");
    let longer = request([prompt, vec![1; 100]].concat(), 1);
    assert_eq!(run(&[longer]), 400 - 4 * PAGE_ROWS);
    let uncached = Request { cache_prompt: false, ..requests[0].clone() };
    assert_eq!(run(&[uncached]), whole);
    // what is damaged is computed
    let folders = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    for file in folders.flat_map(|folder| std::fs::read_dir(folder).unwrap()) {
        std::fs::write(file.unwrap().path(), "cachalot kv v1\r\n and then nothing").unwrap();
    }
    assert_eq!(run(&requests), whole);
}

#[test]
fn answers_are_right_while_pages_go_to_disk_and_return() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = SplitMix64::new(5);
    for _ in 0..6 {
        let mut below = |n: usize| (random.next_u64() % n as u64) as usize;
        let requests: Vec<Request> = (0..12).map(|_| random_request(&mut below)).collect();
        let shared = Arc::new(Shared::new(info(), Limits { parallel: 5, queue: 20 }));
        // fewer pages than the prompts of one run have, in memory and on disk
        let core = core_with_disk(&shared, 9, folder.path(), 12);
        answer_all(core, &shared, &requests);
    }
}

/// No page is lost, and none is in use that no sequence has.
fn check_pages(core: &Core<'_, Fake>) {
    let mut users: HashMap<PageId, usize> = HashMap::new();
    for sequence in &core.scheduler.running {
        assert!(sequence.pages.len() * PAGE_ROWS >= sequence.computed);
        sequence.pages.iter().for_each(|page| *users.entry(*page).or_default() += 1);
    }
    assert!(core.scheduler.waiting.iter().all(|sequence| sequence.pages.is_empty()));
    let pages = &core.scheduler.pages;
    assert_eq!(pages.len() - pages.available(), users.len());
}

/// A random request: prompts begin alike and end differently, or not.
fn random_request(below: &mut dyn FnMut(usize) -> usize) -> Request {
    let vocabulary = info().vocab.len();
    let (start, seed) = (1 + below(399), below(4));
    let mut prompt: Vec<u32> =
        (0..start).map(|i| ((i * (7 + seed) + seed) % vocabulary) as u32).collect();
    prompt.extend((0..below(60)).map(|_| below(vocabulary) as u32).collect::<Vec<_>>());
    let mut request = request(prompt, below(70));
    request.cache_prompt = below(8) > 0;
    if below(12) == 0 {
        request.constraint = Some(Constraint::Regex("[0-9]{1,12}".to_owned()));
    }
    request
}

/// A run of random requests.
#[derive(Clone, Copy)]
struct Run {
    seed: u64,
    /// Pages of the KV cache: a context takes eight.
    pages: usize,
    /// One segment in this many fails, as if its experts could not be read.
    failing: Option<u64>,
    micro_batch: usize,
}

/// Submits `count` requests at random times, of which some are cancelled and some are not read for
/// a while, and looks at every step. Returns what was received, and how many were preempted.
fn run(Run { seed, pages, failing, micro_batch }: Run, count: usize) -> (Vec<Received>, u64) {
    let limits = Limits { parallel: 5, queue: 20 };
    let shared = Arc::new(Shared::new(info(), limits));
    let sizes = Sizes { pages, micro_batch };
    let mut core = Core::new(&shared, Fake::new(pages, failing), sizes, None);
    let mut model = SlowModel::default();
    let mut random = SplitMix64::new(seed);
    let mut below = |n: usize| (random.next_u64() % n as u64) as usize;
    let mut active: Vec<Received> = Vec::new();
    let mut done = Vec::new();
    let (mut submitted, mut refused) = (0, 0);
    while submitted < count || !active.is_empty() {
        for _ in 0..below(3).min(count - submitted) {
            let request = random_request(&mut below);
            match Shared::submit(&shared, request.clone()) {
                Ok(generation) => {
                    submitted += 1;
                    active.push(Received::new(request, generation));
                }
                Err(SubmitError::QueueFull { position, .. }) => {
                    assert!(position >= limits.queue);
                    refused += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        if !active.is_empty() && below(20) == 0 {
            let index = below(active.len());
            active[index].cancelled = true;
            match below(2) {
                0 => active[index].generation = None,
                _ => active[index].generation.as_ref().unwrap().cancel(),
            }
        }
        assert!(core.receive(false));
        for sequence in &mut core.scheduler.running {
            sequence.is_paused = below(10) == 0; // until the engine looks again
        }
        model.step(&mut core, CONTEXT + 1, limits.parallel);
        check_pages(&core);
        active.iter_mut().for_each(Received::receive);
        done.extend(active.extract_if(.., |received| received.is_over()));
    }
    assert!(core.receive(false));
    check_pages(&core);
    assert_eq!(core.scheduler.pages.available(), pages, "all pages are back");
    assert!(refused > 0, "the queue was full at times");
    for received in &done {
        let has_failed = core.compute.failed.contains(&received.id);
        let ended_with_error = matches!(received.end, Some(Err(_)));
        assert!(ended_with_error || !has_failed || received.cancelled, "a failure is reported");
        assert!(!ended_with_error || has_failed, "and ends no other sequence");
    }
    (done, core.scheduler.preempted)
}

#[test]
fn a_thousand_requests_end_as_they_would_alone() {
    let (mut preempted, mut requests) = (0, 0);
    for (seed, pages, failing, micro_batch) in [
        (1, 9, None, 128),
        (2, 9, Some(150), 48),
        (3, 12, Some(400), 16),
        (4, 16, None, 24),
        (5, 60, Some(90), 16),
    ] {
        let (done, lost) = run(Run { seed, pages, failing, micro_batch }, 210);
        done.iter().for_each(Received::check);
        let failed = done.iter().filter(|received| matches!(received.end, Some(Err(_)))).count();
        assert_eq!(failed > 0, failing.is_some(), "{failed} failed");
        let finished = done.iter().filter(|received| matches!(received.end, Some(Ok(_)))).count();
        assert!(finished > 80, "{finished}");
        preempted += lost;
        requests += done.len();
    }
    assert!(requests >= 1000 && preempted > 10, "{requests} requests, {preempted} preemptions");
}

/// Steps until all are over.
fn finish(core: &mut Core<'_, Fake>, all: &mut [Received]) {
    for _ in 0..10_000 {
        core.receive(false);
        core.step();
        all.iter_mut().for_each(Received::receive);
        if all.iter().all(Received::is_over) {
            return;
        }
    }
    panic!("they do not end");
}

fn submit(shared: &Arc<Shared>, request: Request) -> Received {
    let generation = Shared::submit(shared, request.clone()).unwrap();
    Received::new(request, generation)
}

#[test]
fn prompts_that_begin_alike_are_computed_once() {
    let shared = Arc::new(Shared::new(info(), Limits { parallel: 4, queue: 8 }));
    let mut core = core(&shared, 40, None);
    let system: Vec<u32> = (0..400).map(|i| i % 300).collect();
    let ask = |question: u32| request([system.clone(), vec![question; 3]].concat(), 1);
    finish(&mut core, &mut [submit(&shared, ask(1))]);
    let before = core.compute.computed;
    finish(&mut core, &mut [submit(&shared, ask(2)), submit(&shared, ask(3))]);
    // 400 tokens are 6 pages and 16 tokens, which are copied.
    assert_eq!(core.compute.computed - before, 6);
    let before = core.compute.computed;
    finish(&mut core, &mut [submit(&shared, Request { cache_prompt: false, ..ask(2) })]);
    assert_eq!(core.compute.computed - before, 403, "unless that is not wanted");
}

#[test]
fn running_answers_go_on_while_prompts_are_computed_in_shares() {
    let shared = Arc::new(Shared::new(info(), Limits { parallel: 4, queue: 8 }));
    let mut core = core(&shared, 40, None);
    core.chunk = 32;
    let is_long = |request: &Request| expected(request).0.len() == 40;
    let long = (0..).map(|i| request(vec![i % 500, i / 500, 5], 40)).find(is_long).unwrap();
    let mut all = vec![submit(&shared, long)];
    core.receive(false);
    core.step();
    all.extend((0..2).map(|i| submit(&shared, request(vec![20 + i; 300], 2))));
    core.compute.rows_max = 0;
    for step in 0..5 {
        core.receive(false);
        core.step();
        core.chunk = 32;
        all[0].receive();
        assert_eq!(all[0].tokens.len(), step + 2, "one token for each step");
    }
    assert!(core.compute.rows_max <= 33);
    let done: Vec<usize> = core.scheduler.running.iter().map(|s| s.computed).collect();
    assert_eq!(done[1..], [80, 80], "equal shares");
    finish(&mut core, &mut all);
    all.iter().for_each(Received::check);
}

#[test]
fn a_long_prompt_is_not_passed_over_by_short_ones_that_come_and_go() {
    let shared = Arc::new(Shared::new(info(), Limits { parallel: 5, queue: 8 }));
    let sizes = Sizes { pages: 40, micro_batch: SHARE_MIN };
    let mut core = Core::new(&shared, Fake::new(40, None), sizes, None);
    let long = submit(&shared, request(vec![5; 500], 1));
    let mut all = vec![long];
    let (mut computed, mut without) = (0, 0);
    for step in 0..30 {
        // As many as make this step another one's turn, if turns are counted by places.
        let running = core.scheduler.running.len().max(2);
        let wanted = (running..=5).find(|count| step % count != 0).unwrap_or(5);
        all.extend((core.scheduler.running.len().max(1)..wanted).map(|_| {
            let short = Request { cache_prompt: false, ..request(vec![7; SHARE_MIN], 0) };
            submit(&shared, short)
        }));
        core.receive(false);
        core.step();
        let oldest = &core.scheduler.running[0];
        assert_eq!(oldest.ticket.id.0, all[0].id);
        without = if oldest.computed > computed { 0 } else { without + 1 };
        computed = oldest.computed;
        assert!(without < 5, "each of four others had a share");
    }
    finish(&mut core, &mut all);
}

#[test]
fn a_reader_that_is_behind_pauses_its_own_request_and_ends_it_after_a_while() {
    let shared = Arc::new(Shared::new(info(), Limits { parallel: 2, queue: 8 }));
    let mut core = core(&shared, 40, None);
    // Log probabilities of the whole vocabulary fill the buffer soon.
    let verbose = |reader_timeout| Request {
        logprobs: Some(1_000_000),
        reader_timeout,
        ignore_eos: true,
        ..request(vec![1, 2, 3], 450)
    };
    let mut patient = submit(&shared, verbose(None));
    let mut hasty = submit(&shared, verbose(Some(Duration::ZERO)));
    for _ in 0..450 {
        core.receive(false);
        core.step();
    }
    assert_eq!(core.scheduler.running.len(), 1, "the other one was ended");
    assert!(core.scheduler.running[0].is_paused);
    hasty.receive();
    assert!(matches!(hasty.end, Some(Ok(FinishReason::ReaderStalled))));
    finish(&mut core, std::slice::from_mut(&mut patient));
    assert!(matches!(patient.end, Some(Ok(FinishReason::Length))), "it went on");
    assert_eq!(patient.tokens.len(), 450);
}
