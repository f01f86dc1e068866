//! Experts over a cache compute what resident ones do, bit for bit, however little memory there is;
//! and when they cannot be had, the pass fails and the next one lives.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cachalot_gguf::KvType;
use cachalot_kernels::Tier;
use cachalot_model::{
    Batch, Config, Model, ModelOptions, Phase, Resident, Segment, Streamed, Traced, Wanted,
};
use cachalot_store::trace::Trace;
use cachalot_store::{CacheOptions, Monitor, Placement, ReadFunction, Reader, Weights};
use common::Sequence;

const FILES: [&str; 3] = ["nano-ud-iq1_s.gguf", "nano-ud-q2_k_xl.gguf", "nano-iq-mix.gguf"];
const VOCABULARY: u32 = 640;

fn tokens(n: u32) -> Vec<u32> {
    (0..n).map(|i| (i * 61 + 7) % VOCABULARY).collect()
}

/// A model whose experts have a cache of `budget` bytes.
fn streamed(name: &str, reader: Reader, budget: u64, options: &ModelOptions) -> (Model, Monitor) {
    let cache = |plain| CacheOptions { budget, stall_timeout: Duration::from_secs(20), ..plain };
    streamed_with(&common::fixture(name), reader, &cache, &|_| {}, options)
}

/// As [`streamed`], with all of a cache's options and whatever is to be set before the model is
/// bound.
fn streamed_with(
    path: &Path,
    reader: Reader,
    cache: &dyn Fn(CacheOptions) -> CacheOptions,
    set: &dyn Fn(&mut Streamed),
    options: &ModelOptions,
) -> (Model, Monitor) {
    let mut reader = reader;
    let (weights, config) = common::open_streamed(path, &mut reader, options);
    let experts = config.experts.clone().unwrap();
    let plain = CacheOptions::new(1, config.dense_layers, experts.count, experts.used);
    let cpu = common::cpu(2, Tier::detect());
    let mut experts =
        Streamed::bind(&weights, &cpu, &config.expert_shape(), reader, &cache(plain)).unwrap();
    set(&mut experts);
    let monitor = experts.monitor();
    let model = Model::load_with_experts(&weights, &cpu, options, Box::new(experts)).unwrap();
    (model, monitor)
}

/// A prompt in chunks of at most `chunk` tokens, then tokens one by one, or a few at once.
fn run_in(model: &mut Model, chunk: usize) -> Vec<f32> {
    let mut sequence = Sequence::new(model, 64, KvType::F16);
    let all = tokens(50);
    let (prompt, rest) = all.split_at(30);
    let mut logits = Vec::new();
    for tokens in prompt.chunks(chunk) {
        logits.extend(sequence.prefill(model, tokens));
    }
    for tokens in rest.chunk_by(|a, _| a % 3 != 0) {
        logits.extend(sequence.decode(model, tokens));
    }
    logits
}

fn run(model: &mut Model) -> Vec<f32> {
    run_in(model, 30)
}

#[test]
fn logits_are_those_of_resident_experts_at_any_size_on_any_path() {
    for name in FILES {
        for chunk in [30, 9] {
            let options = ModelOptions::default();
            let cpu = common::cpu(2, Tier::detect());
            let expected =
                run_in(&mut Model::load(&common::open(name), &cpu, &options).unwrap(), chunk);
            for budget in [1, 200 << 10, 900 << 10, u64::MAX] {
                let (mut model, monitor) =
                    streamed(name, Reader::start().unwrap(), budget.min(1 << 30), &options);
                let logits = run_in(&mut model, chunk);
                assert!(logits == expected, "{name}, chunks of {chunk}, {budget} bytes");
                let stats = monitor.stats();
                assert!(stats.misses > 0 && stats.bytes > 0, "{stats:?}");
                if budget == 1 {
                    assert!(stats.hit_rate() < 0.6, "evictions are constant: {stats:?}");
                }
            }
        }
    }
}

#[test]
fn guesses_change_no_bit_and_are_read_once() {
    for name in FILES {
        let options = ModelOptions::default();
        let cpu = common::cpu(2, Tier::detect());
        let expected = run(&mut Model::load(&common::open(name), &cpu, &options).unwrap());
        let (mut prefetch_hits, mut prefetch_unused) = (0, 0);
        for budget in [200 << 10, 900 << 10, 2 << 20] {
            let cache = |plain| CacheOptions { budget, prefetch: true, ..plain };
            let path = common::fixture(name);
            let reader = Reader::start().unwrap();
            let (mut model, monitor) = streamed_with(&path, reader, &cache, &|_| {}, &options);
            for _ in 0..3 {
                assert!(run(&mut model) == expected, "{name}, {budget} bytes, with prefetches");
            }
            let stats = monitor.stats();
            (prefetch_hits, prefetch_unused) =
                (prefetch_hits + stats.prefetch_hits, prefetch_unused + stats.prefetch_unused);
            let most = 8 + stats.misses * 8 / 100;
            assert!(
                stats.prefetch_unused <= most + 8,
                "what is read in vain is bounded: {stats:?}"
            );
        }
        assert!(
            prefetch_hits > 0,
            "{name}: some prefetches are right ({prefetch_unused} were wrong)"
        );
    }
}

#[test]
fn a_prompt_reads_each_of_its_experts_once() {
    let options = ModelOptions::default();
    let path = common::fixture(FILES[1]);
    for budget in [1, 300 << 10, 1 << 30] {
        let cache = |plain| CacheOptions { budget, ..plain };
        let reader = Reader::start().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let trace = folder.path().join("trace");
        let (mut model, monitor) = streamed_with(&path, reader, &cache, &|_| {}, &options);
        Sequence::new(&mut model, 64, KvType::F16).prefill(&mut model, &tokens(60));
        // What the routers pick, from a run that has all experts in memory.
        let weights = common::open(FILES[1]);
        let config = Config::of(&weights, &options).unwrap();
        let cpu = common::cpu(2, Tier::detect());
        let resident = Box::new(Resident::bind(&weights, &cpu, &config.expert_shape()).unwrap());
        let traced =
            Traced::new(resident, &config.expert_shape(), File::create(&trace).unwrap()).unwrap();
        let mut whole =
            Model::load_with_experts(&weights, &cpu, &options, Box::new(traced)).unwrap();
        Sequence::new(&mut whole, 64, KvType::F16).prefill(&mut whole, &tokens(60));
        drop(whole);
        let trace = Trace::read(&std::fs::read(&trace).unwrap()).unwrap();
        let used = usize::from(trace.header.used);
        let picked: std::collections::BTreeSet<(usize, u16)> = trace
            .tokens()
            .flat_map(|token| token.iter().enumerate().map(|(at, &pick)| (at / used, pick)))
            .collect();
        let stats = monitor.stats();
        assert_eq!(stats.misses, picked.len() as u64, "with {budget} bytes: {stats:?}");
        assert_eq!(stats.hits, 0, "nothing was there before");
    }
}

#[test]
fn a_split_model_is_read_from_all_its_files() {
    let path = common::fixture("split/split-nano-q4_k_m-00001-of-00003.gguf");
    let options = ModelOptions::default();
    let whole = Weights::open(&path, Placement::Mapped).unwrap();
    let cpu = common::cpu(2, Tier::detect());
    let expected = run(&mut Model::load(&whole, &cpu, &options).unwrap());
    let cache = |plain| CacheOptions { budget: 1, ..plain };
    let reader = Reader::start().unwrap();
    let (mut model, monitor) = streamed_with(&path, reader, &cache, &|_| {}, &options);
    assert!(run(&mut model) == expected);
    assert!(monitor.stats().misses > 0);
}

#[test]
fn routers_that_prefer_what_is_cached_read_less_and_say_how_far_they_stray() {
    let options = ModelOptions::default();
    let cache = |plain| CacheOptions { budget: 500 << 10, ..plain };
    let path = common::fixture(FILES[1]);
    let mut seen = Vec::new();
    for preferring in [false, true] {
        let set = |experts: &mut Streamed| {
            if preferring {
                experts.route_cache_aware();
            }
        };
        let reader = Reader::start().unwrap();
        let (mut model, monitor) = streamed_with(&path, reader, &cache, &set, &options);
        run(&mut model);
        seen.push(monitor.stats());
    }
    let [plain, preferring] = seen[..] else { panic!("two runs") };
    assert_eq!(plain.agreement(), None, "nobody prefers anything unasked");
    let agreement = preferring.agreement().unwrap();
    assert!((0.94..1.0).contains(&agreement), "{agreement} of the routing are the router's");
    assert!(preferring.misses < plain.misses, "{preferring:?} after {plain:?}");
}

#[test]
fn threads_that_read_give_what_a_ring_gives() {
    let options = ModelOptions::default();
    let pread: ReadFunction =
        Arc::new(|file: &File, bytes: &mut [u8], offset| file.read_at(bytes, offset));
    // Each read a moment late, so that experts land in another order.
    let count = AtomicUsize::new(0);
    let shuffled: ReadFunction = Arc::new(move |file: &File, bytes: &mut [u8], offset| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_micros([900, 0, 300, 600][n % 4]));
        file.read_at(bytes, offset)
    });
    let mut logits = Vec::new();
    for reader in
        [Reader::start(), Reader::pool(1, "one", &pread), Reader::pool(7, "shuffled", &shuffled)]
    {
        let (mut model, _) = streamed(FILES[1], reader.unwrap(), 300 << 10, &options);
        logits.push(run(&mut model));
    }
    assert!(logits[0] == logits[1] && logits[1] == logits[2]);
}

#[test]
fn a_failed_read_fails_the_pass_with_its_place_and_the_next_one_lives() {
    let broken = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&broken);
    let read: ReadFunction = Arc::new(move |file: &File, bytes: &mut [u8], offset| {
        if seen.load(Ordering::Relaxed) {
            return Err(std::io::Error::from_raw_os_error(5)); // EIO
        }
        file.read_at(bytes, offset)
    });
    let reader = Reader::pool(3, "faulty", &read).unwrap();
    let (mut model, _) = streamed(FILES[0], reader, 1, &ModelOptions::default());
    let expected = run(&mut model);
    for count in [1, 40] {
        broken.store(true, Ordering::Relaxed);
        let mut sequence = Sequence::new(&mut model, 64, KvType::F16);
        let phase = if count == 1 { Phase::Decode } else { Phase::Prefill };
        let error = sequence.forward(&mut model, &tokens(count), phase, Wanted::Last).unwrap_err();
        for part in [FILES[0], "expert ", " of layer ", "os error 5"] {
            assert!(error.contains(part), "`{part}` in: {error}");
        }
        broken.store(false, Ordering::Relaxed);
        assert!(run(&mut model) == expected, "after a failure with {count} tokens");
    }
}

#[test]
fn routing_is_recorded_wherever_the_experts_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let weights = common::open(FILES[1]);
    let options = ModelOptions::default();
    let config = Config::of(&weights, &options).unwrap();
    let cpu = common::cpu(2, Tier::detect());
    let resident = Box::new(Resident::bind(&weights, &cpu, &config.expert_shape()).unwrap());
    let traced =
        Traced::new(resident, &config.expert_shape(), File::create(&path).unwrap()).unwrap();
    let mut model = Model::load_with_experts(&weights, &cpu, &options, Box::new(traced)).unwrap();
    let logits = run(&mut model);
    assert!(logits == run(&mut Model::load(&weights, &cpu, &options).unwrap()));
    drop(model);
    let trace = Trace::read(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(trace.tokens().len(), 50);
    let experts = config.experts.unwrap();
    assert_eq!(usize::from(trace.header.used), experts.used);
    let various = trace.tokens().map(<[u16]>::to_vec).collect::<std::collections::BTreeSet<_>>();
    assert!(various.len() > 10, "tokens are routed differently");
}

#[test]
fn a_model_without_its_experts_in_memory_is_told_from_one_with_them() {
    let mut reader = Reader::start().unwrap();
    let path = common::fixture(FILES[0]);
    let (weights, _) = common::open_streamed(&path, &mut reader, &ModelOptions::default());
    let whole = common::open(FILES[0]);
    let elsewhere = weights.tensors().iter().filter(|tensor| tensor.bytes.is_empty()).count();
    assert_eq!(elsewhere, 2 * 3, "two layers of experts, three tensors each");
    for (streamed, mapped) in weights.tensors().iter().zip(whole.tensors()) {
        assert_eq!(streamed.info, mapped.info);
        assert!(streamed.bytes.is_empty() || *streamed.bytes == *mapped.bytes);
    }
    let error = Model::load(&weights, &common::cpu(1, Tier::SCALAR), &ModelOptions::default());
    assert!(error.unwrap_err().to_string().contains("ffn_"), "resident experts need their bytes");
}

/// Rows of three sequences in one batch.
const ROWS: [std::ops::Range<usize>; 3] = [0..3, 3..4, 4..9];

/// The logits of the last token of each sequence, unless it has failed.
type Results = Vec<Option<Vec<f32>>>;

/// Computes three sequences; returns the failures as well.
fn three_sequences(model: &mut Model) -> (Results, Vec<(u64, String)>) {
    model.reserve_pages(3, KvType::F16).unwrap();
    let tokens = tokens(9);
    let segment = |at: usize| Segment {
        seq: at as u64,
        start: 0,
        rows: ROWS[at].clone(),
        pages: [&[0][..], &[1], &[2]][at],
        phase: if at == 1 { Phase::Decode } else { Phase::Prefill },
        want: Wanted::Last,
    };
    let segments = [0, 1, 2].map(segment);
    let batch = Batch { tokens: &tokens, segments: &segments };
    let output = model.forward(&batch, &mut |_| true).unwrap();
    let logits = |at: usize| (!output.has_failed(at)).then(|| output.logits(at).to_vec());
    let failures = output.failures().iter().map(|f| (f.seq, f.error.to_string()));
    ((0..3).map(logits).collect(), failures.collect())
}

/// An expert of layer 1 that sequence `seq` alone uses, and where its down projection is in the
/// file.
fn own_expert(seq: usize, options: &ModelOptions) -> (usize, std::ops::Range<u64>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let weights = common::open(FILES[1]);
    let shape = Config::of(&weights, options).unwrap().expert_shape();
    let cpu = common::cpu(2, Tier::detect());
    let resident = Box::new(Resident::bind(&weights, &cpu, &shape).unwrap());
    let traced = Box::new(Traced::new(resident, &shape, File::create(&path).unwrap()).unwrap());
    let mut model = Model::load_with_experts(&weights, &cpu, options, traced).unwrap();
    three_sequences(&mut model);
    drop(model);
    let trace = Trace::read(&std::fs::read(&path).unwrap()).unwrap();
    let rows: Vec<&[u16]> = trace.tokens().map(|row| &row[..shape.used]).collect();
    let uses = |rows: &[&[u16]], expert: u16| rows.iter().any(|row| row.contains(&expert));
    let expert = (0..shape.count as u16).find(|&expert| {
        let others = (0..3).filter(|&other| other != seq);
        uses(&rows[ROWS[seq].clone()], expert)
            && others.into_iter().all(|other| !uses(&rows[ROWS[other].clone()], expert))
    });
    let expert = usize::from(expert.expect("an expert of its own"));
    let info = &weights.tensor("blk.1.ffn_down_exps.weight").unwrap().info;
    let len = info.size / shape.count as u64;
    let start = info.offset + expert as u64 * len;
    // Its neighbours' reads are aligned, and touch the first and last page.
    (expert, start + 4096..start + len - 4096)
}

#[test]
fn an_expert_that_cannot_be_read_fails_the_sequences_that_use_it_and_no_others() {
    let options = ModelOptions { reproducible: true, ..ModelOptions::default() };
    for seq in 0..3 {
        let (expert, bytes) = own_expert(seq, &options);
        for budget in [1, 1 << 30] {
            let broken = Arc::new(AtomicBool::new(false));
            let (seen, range) = (Arc::clone(&broken), bytes.clone());
            let read: ReadFunction = Arc::new(move |file: &File, bytes: &mut [u8], offset| {
                let hit = offset < range.end && range.start < offset + bytes.len() as u64;
                if hit && seen.load(Ordering::Relaxed) {
                    return Err(std::io::Error::from_raw_os_error(5)); // EIO
                }
                file.read_at(bytes, offset)
            });
            let new = || {
                let reader = Reader::pool(3, "faulty", &read).unwrap();
                streamed(FILES[1], reader, budget, &options).0
            };
            let (expected, failures) = three_sequences(&mut new());
            assert_eq!(failures, []);
            let mut model = new();
            broken.store(true, Ordering::Relaxed);
            let (logits, failures) = three_sequences(&mut model);
            let [(failed, error)] = &failures[..] else { panic!("one failure: {failures:?}") };
            assert_eq!(*failed, seq as u64);
            assert!(error.contains(&format!("expert {expert} of layer 1")), "{error}");
            for at in (0..3).filter(|&at| at != seq) {
                assert!(logits[at] == expected[at], "sequence {at} beside {seq}, {budget} bytes");
            }
            broken.store(false, Ordering::Relaxed);
            assert!(three_sequences(&mut model) == (expected, vec![]), "afterwards");
        }
    }
}
