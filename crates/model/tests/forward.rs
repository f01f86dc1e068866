//! What must not change the logits, bit for bit, and what may change them only a little.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::sync::{Arc, Mutex};

use cachalot_gguf::KvType;
use cachalot_kernels::Tier;
use cachalot_model::{
    Error, ExpertCall, Experts, FailedRows, Logits, Model, ModelOptions, PAGE_ROWS, Residency,
    Resident, Routing,
};
use cachalot_store::{Placement, Weights};

const NANO: &str = "nano-ud-q2_k_xl.gguf";
const VOCABULARY: usize = 640;

fn tokens(n: u32) -> Vec<u32> {
    (0..n).map(|i| (i * 61 + 7) % VOCABULARY as u32).collect()
}

fn load(options: &ModelOptions) -> Model {
    Model::load(&common::open(NANO), &common::cpu(2, Tier::detect()), options).unwrap()
}

fn forward(model: &mut Model, cache: &mut cachalot_model::KvCache, tokens: &[u32]) -> Vec<f32> {
    model.forward_sequence(cache, tokens, Logits::All, &mut |_| true).unwrap().to_vec()
}

#[test]
fn threads_and_placement_change_nothing() {
    let tokens = tokens(40);
    for expanded_from in [16, usize::MAX] {
        let options =
            ModelOptions { expanded_from: Some(expanded_from), ..ModelOptions::default() };
        let run = |threads, placement| {
            let weights = Weights::open(common::fixture(NANO), placement).unwrap();
            common::logits(&weights, &common::cpu(threads, Tier::detect()), &options, &tokens)
        };
        let one = run(1, Placement::Mapped);
        assert!(one.iter().all(|logit| logit.is_finite()));
        for threads in [2, 3, 4, 64] {
            assert!(run(threads, Placement::Resident) == one, "{threads} threads");
        }
    }
}

#[test]
fn going_back_and_on_gives_what_a_fresh_start_gives() {
    let (mut model, tokens) = (load(&ModelOptions::default()), tokens(30));
    let mut fresh = model.cache(30, KvType::F16).unwrap();
    forward(&mut model, &mut fresh, &tokens[..20]);
    let expected = forward(&mut model, &mut fresh, &tokens[20..]);
    let mut reused = model.cache(64, KvType::F16).unwrap();
    forward(&mut model, &mut reused, &tokens[..20]);
    forward(&mut model, &mut reused, &[1, 2, 3, 4, 5, 6, 7]);
    reused.truncate(20);
    assert_eq!(reused.len(), 20);
    assert!(forward(&mut model, &mut reused, &tokens[20..]) == expected);
}

#[test]
fn both_forms_and_any_chunks_agree_to_rounding() {
    let tokens = tokens(150);
    let weights = common::open(NANO);
    let cpu = common::cpu(2, Tier::SCALAR);
    let run = |expanded_from, micro_batch| {
        let options = ModelOptions { expanded_from, micro_batch, ..ModelOptions::default() };
        common::logits(&weights, &cpu, &options, &tokens)
    };
    let whole = run(Some(usize::MAX), 2048);
    // 150 tokens in batches of 40: three that are expanded over a growing cache, one that is not.
    for (expanded_from, micro_batch) in [(1, 2048), (40, 40), (usize::MAX, 7)] {
        let other = run(Some(expanded_from), micro_batch);
        let distance = common::distance(&whole, &other, VOCABULARY);
        assert!(distance.max < 1e-3, "from {expanded_from}, by {micro_batch}: {distance:?}");
    }
}

#[test]
fn cache_types_differ_little_and_take_the_bytes_they_say() {
    let weights = common::open(NANO);
    let (cpu, options, tokens) =
        (common::cpu(2, Tier::SCALAR), ModelOptions::default(), tokens(24));
    let exact = common::logits(&weights, &cpu, &options, &tokens);
    for (kind, limit) in [(KvType::F16, 1e-5), (KvType::Q8_0, 1e-3)] {
        let logits = common::logits_with(&weights, &cpu, &options, &tokens, kind);
        let distance = common::distance(&exact, &logits, VOCABULARY);
        assert!(distance.kl_median < limit, "{kind}: {distance:?}");
    }
    let mut model = load(&options);
    // Three layers of 256 + 32 numbers.
    assert_eq!(model.page_bytes(KvType::F16), PAGE_ROWS * 3 * 288 * 2);
    assert_eq!(model.cache(9, KvType::Q8_0).unwrap().bytes_per_token(), 3 * 288 / 32 * 34);
}

#[test]
fn the_last_logits_are_the_last_of_all() {
    let options = ModelOptions { micro_batch: 8, ..ModelOptions::default() };
    let (mut model, tokens) = (load(&options), tokens(20));
    let mut cache = model.cache(40, KvType::F16).unwrap();
    let all = forward(&mut model, &mut cache, &tokens);
    assert_eq!(all.len(), 20 * VOCABULARY);
    cache.truncate(0);
    let last = model.forward_sequence(&mut cache, &tokens, Logits::Last, &mut |_| true).unwrap();
    let distance = common::distance(&all[19 * VOCABULARY..], last, VOCABULARY);
    assert!(distance.kl_mean < 1e-3, "{distance:?}");
    let none =
        model.forward_sequence(&mut cache, &tokens[..3], Logits::None, &mut |_| true).unwrap();
    assert!(none.is_empty());
    assert_eq!(cache.len(), 23);
    assert!(forward(&mut model, &mut cache, &[]).is_empty());
}

#[test]
fn progress_counts_up_and_can_stop() {
    let options = ModelOptions { micro_batch: 8, ..ModelOptions::default() };
    let (mut model, tokens) = (load(&options), tokens(20));
    let mut cache = model.cache(20, KvType::F16).unwrap();
    let mut seen = Vec::new();
    let result = model.forward_sequence(&mut cache, &tokens, Logits::Last, &mut |done| {
        seen.push(done);
        true
    });
    assert!(result.is_ok());
    assert_eq!(seen, [2, 5, 8, 10, 13, 16, 17, 18, 20]);
    cache.truncate(0);
    let stopped = model.forward_sequence(&mut cache, &tokens, Logits::Last, &mut |done| done < 10);
    assert!(matches!(stopped, Err(Error::Stopped)));
    assert_eq!(cache.len(), 8, "the first batch is done");
}

#[test]
fn impossible_calls_are_refused_before_anything_is_computed() {
    let mut model = load(&ModelOptions::default());
    let mut cache = model.cache(4, KvType::F16).unwrap();
    let mut fails = |tokens: &[u32]| {
        let result = model.forward_sequence(&mut cache, tokens, Logits::Last, &mut |_| true);
        result.unwrap_err().to_string()
    };
    assert_eq!(fails(&[1, 640]), "token 640 is not in the vocabulary of 640 tokens");
    let full = "the context holds 4 tokens, 0 of them in use: 5 more do not fit";
    assert_eq!(fails(&[0; 5]), full);
    let error = model.cache(1 << 50, KvType::F16).unwrap_err().to_string();
    assert!(error.starts_with("no memory for a context of 1125899906842624 tokens"), "{error}");
}

/// Experts that record their calls.
struct Recording {
    inner: Resident,
    log: Arc<Mutex<Vec<String>>>,
}

impl Experts for Recording {
    fn begin(&mut self, call: &ExpertCall<'_>) -> Result<(), Error> {
        let used = call.routing.of(0).0.len();
        self.log.lock().unwrap().push(format!("begin {} {used}", call.layer));
        self.inner.begin(call)
    }

    fn finish(&mut self, call: &ExpertCall<'_>, out: &mut [f32]) -> Result<Vec<FailedRows>, Error> {
        self.log.lock().unwrap().push(format!("finish {}", call.layer));
        self.inner.finish(call, out)
    }

    fn includes_shared(&self) -> bool {
        self.inner.includes_shared()
    }

    fn prefetch(&mut self, layer: usize, guess: &Routing) {
        self.log.lock().unwrap().push(format!("prefetch {layer} {}", guess.of(0).0.len()));
    }

    fn residency(&self) -> Option<&dyn Residency> {
        Some(self)
    }
}

impl Residency for Recording {
    fn is_resident(&self, _: usize, _: usize) -> bool {
        true
    }

    fn wants_prefetch(&self) -> bool {
        true
    }

    fn is_preferred(&self) -> bool {
        false
    }
}

#[test]
fn experts_are_called_in_time_and_prefetching_changes_nothing() {
    let (weights, cpu) = (common::open(NANO), common::cpu(2, Tier::detect()));
    let options = ModelOptions { experts: Some(2), ..ModelOptions::default() };
    let mut plain = Model::load(&weights, &cpu, &options).unwrap();
    let log = Arc::new(Mutex::new(Vec::new()));
    let inner = Resident::bind(&weights, &cpu, &plain.config().expert_shape()).unwrap();
    let told = Box::new(Recording { inner, log: Arc::clone(&log) });
    let mut model = Model::load_with_experts(&weights, &cpu, &options, told).unwrap();
    let run = |model: &mut Model| {
        let mut cache = model.cache(4, KvType::F16).unwrap();
        forward(model, &mut cache, &[5])
    };
    assert!(run(&mut model) == run(&mut plain));
    let expected = ["begin 1 2", "prefetch 2 2", "finish 1", "begin 2 2", "finish 2"];
    assert_eq!(*log.lock().unwrap(), expected);
}

#[test]
fn a_layer_of_experts_takes_at_most_twelve_regions() {
    let (weights, cpu) = (common::open(NANO), common::cpu(2, Tier::detect()));
    let mut model = Model::load(&weights, &cpu, &ModelOptions::default()).unwrap();
    let mut cache = model.cache(4, KvType::F16).unwrap();
    let before = cpu.pool().regions();
    forward(&mut model, &mut cache, &[5]);
    let joins = cpu.pool().regions() - before;
    assert!(joins <= 3 * 12 + 1, "{joins} joins for three layers and the head");
}

#[test]
fn a_model_can_move_to_another_thread() {
    let mut model = load(&ModelOptions::default());
    let mut cache = model.cache(1, KvType::F16).unwrap();
    let logits = std::thread::spawn(move || forward(&mut model, &mut cache, &[5]));
    assert_eq!(logits.join().unwrap().len(), VOCABULARY);
}
