//! What must not change the logits, bit for bit, and what may change them only a little.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::sync::{Arc, Mutex};

use cachalot_gguf::KvType;
use cachalot_kernels::{Activations, Tier};
use cachalot_model::{
    Batch, Config, Error, ExpertCall, Experts, FailedRows, Model, ModelOptions, PAGE_ROWS, Phase,
    Progress, Residency, Resident, Routing, Segment, StageSpec, Wanted, cpu_stage,
};
use cachalot_store::{Placement, Weights};
use common::Sequence;

const NANO: &str = "nano-ud-q2_k_xl.gguf";
const VOCABULARY: usize = 640;

fn tokens(n: u32) -> Vec<u32> {
    (0..n).map(|i| (i * 61 + 7) % VOCABULARY as u32).collect()
}

fn load(options: &ModelOptions) -> Model {
    Model::load(&common::open(NANO), &common::cpu(2, Tier::detect()), options).unwrap()
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
fn layers_in_several_stages_give_the_same_logits() {
    let (weights, cpu, tokens) = (common::open(NANO), common::cpu(2, Tier::detect()), tokens(20));
    let options = ModelOptions::default();
    let whole = common::logits(&weights, &cpu, &options, &tokens);
    let config = Config::of(&weights, &options).unwrap();
    let cuts = [vec![0..1, 1..3], vec![0..2, 2..3], vec![0..1, 1..2, 2..3]];
    for layers in cuts {
        let last = layers.len() - 1;
        let stages = layers.into_iter().enumerate().map(|(index, layers)| {
            let spec = StageSpec { layers, embeds: index == 0, has_head: index == last };
            cpu_stage(&weights, &cpu, &options, &spec, None).unwrap()
        });
        let stages = stages.collect();
        let mut model = Model::of_stages(&weights, config.clone(), stages).unwrap();
        let logits = Sequence::new(&mut model, 20, KvType::F32).prefill(&mut model, &tokens);
        assert!(logits == whole);
    }
}

#[test]
fn going_back_and_on_gives_what_a_fresh_start_gives() {
    let (mut model, tokens) = (load(&ModelOptions::default()), tokens(30));
    let mut fresh = Sequence::new(&mut model, 30, KvType::F16);
    fresh.prefill(&mut model, &tokens[..20]);
    let expected = fresh.prefill(&mut model, &tokens[20..]);
    let mut reused = Sequence::new(&mut model, 64, KvType::F16);
    reused.prefill(&mut model, &tokens[..20]);
    reused.prefill(&mut model, &[1, 2, 3, 4, 5, 6, 7]);
    reused.len = 20;
    assert!(reused.prefill(&mut model, &tokens[20..]) == expected);
}

#[test]
fn both_forms_and_any_chunks_agree_to_rounding() {
    let tokens = tokens(150);
    let weights = common::open(NANO);
    let cpu = common::cpu(2, Tier::SCALAR);
    let run = |expanded_from, chunk: usize| {
        let options = ModelOptions { expanded_from, ..ModelOptions::default() };
        let mut model = Model::load(&weights, &cpu, &options).unwrap();
        let mut sequence = Sequence::new(&mut model, tokens.len(), KvType::F32);
        let chunks = tokens.chunks(chunk).flat_map(|chunk| sequence.prefill(&mut model, chunk));
        chunks.collect::<Vec<f32>>()
    };
    let whole = run(Some(usize::MAX), 2048);
    // 150 tokens in batches of 40: three that are expanded over a growing cache, one that is not.
    for (expanded_from, chunk) in [(1, 2048), (40, 40), (usize::MAX, 7)] {
        let other = run(Some(expanded_from), chunk);
        let distance = common::distance(&whole, &other, VOCABULARY);
        assert!(distance.max < 1e-3, "from {expanded_from}, by {chunk}: {distance:?}");
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
    let model = load(&options);
    // Three layers of 256 + 32 numbers.
    assert_eq!(model.page_bytes(KvType::F16), PAGE_ROWS * 3 * 288 * 2);
    assert_eq!(model.page_bytes(KvType::Q8_0), PAGE_ROWS * 3 * 288 / 32 * 34);
}

#[test]
fn the_last_logits_are_the_last_of_all() {
    let (mut model, tokens) = (load(&ModelOptions::default()), tokens(20));
    let all = Sequence::new(&mut model, 20, KvType::F16).prefill(&mut model, &tokens);
    assert_eq!(all.len(), 20 * VOCABULARY);
    let mut sequence = Sequence::new(&mut model, 40, KvType::F16);
    let mut forward =
        |tokens, want| sequence.forward(&mut model, tokens, Phase::Prefill, want).unwrap();
    let last = forward(&tokens, Wanted::Last);
    let distance = common::distance(&all[19 * VOCABULARY..], &last, VOCABULARY);
    assert!(distance.kl_mean < 1e-3, "{distance:?}");
    assert!(forward(&tokens[..3], Wanted::None).is_empty());
}

#[test]
fn progress_counts_layers_and_can_stop() {
    let (mut model, tokens) = (load(&ModelOptions::default()), tokens(8));
    model.reserve_pages(1, KvType::F16).unwrap();
    let (seq, start, rows, pages) = (0, 0, 0..8, &[0][..]);
    let (phase, want) = (Phase::Prefill, Wanted::Last);
    let segment = Segment { seq, start, rows, pages, phase, want };
    let batch = Batch { tokens: &tokens, segments: &[segment] };
    let mut seen = Vec::new();
    let mut run = |most: usize| {
        let mut progress = |Progress { done, layers }: Progress| {
            assert_eq!(layers, 3);
            seen.push(done);
            done < most
        };
        model.forward(&batch, &mut progress).map(|_| ())
    };
    assert!(run(9).is_ok());
    assert!(matches!(run(2), Err(Error::Stopped)));
    assert!(run(9).is_ok(), "another batch can follow");
    assert_eq!(seen, [1, 2, 3, 1, 2, 1, 2, 3]);
}

#[test]
fn impossible_calls_are_refused_before_anything_is_computed() {
    let mut model = load(&ModelOptions::default());
    let mut sequence = Sequence::new(&mut model, 4, KvType::F16);
    let refused = sequence.forward(&mut model, &[1, 640], Phase::Prefill, Wanted::Last);
    assert_eq!(refused.unwrap_err(), "token 640 is not in the vocabulary of 640 tokens");
    let error = model.reserve_pages(1 << 44, KvType::F16).unwrap_err().to_string();
    assert!(error.starts_with("no memory for a context of 1125899906842624 tokens"), "{error}");
}

/// Experts that record their calls.
struct Recording {
    inner: Resident,
    log: Arc<Mutex<Vec<String>>>,
}

impl Experts for Recording {
    fn begin(&mut self, call: &ExpertCall<'_>, x: &Activations) -> Result<(), Error> {
        let used = call.routing.of(0).0.len();
        self.log.lock().unwrap().push(format!("begin {} {used}", call.layer));
        self.inner.begin(call, x)
    }

    fn finish(
        &mut self,
        call: &ExpertCall<'_>,
        x: &mut Activations,
        out: &mut [f32],
    ) -> Result<Vec<FailedRows>, Error> {
        self.log.lock().unwrap().push(format!("finish {}", call.layer));
        self.inner.finish(call, x, out)
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
    let run = |model: &mut Model| Sequence::new(model, 4, KvType::F16).decode(model, &[5]);
    assert!(run(&mut model) == run(&mut plain));
    let expected = ["begin 1 2", "prefetch 2 2", "finish 1", "begin 2 2", "finish 2"];
    assert_eq!(*log.lock().unwrap(), expected);
}

/// Decoding rows of several sequences, and chunks of prompts in both forms of attention.
#[test]
fn a_layer_of_experts_takes_at_most_twelve_regions() {
    let (weights, cpu) = (common::open(NANO), common::cpu(2, Tier::detect()));
    let layers = 3;
    for (decoding, prompts) in [
        (1, &[][..]),
        (2, &[]),
        (4, &[]),
        (8, &[]),
        (8, &[4]),
        (4, &[100]),
        (8, &[20, 30]),
        (3, &[130]),
        (2, &[130, 20, 150, 140, 128]),
        (0, &[160]),
    ] {
        let mut model = Model::load(&weights, &cpu, &ModelOptions::default()).unwrap();
        let counts = std::iter::repeat_n((1, Phase::Decode), decoding);
        let chunks = prompts.iter().map(|&count| (count, Phase::Prefill));
        let counts: Vec<(usize, Phase)> = counts.chain(chunks).collect();
        let pages: Vec<[u32; 3]> =
            (0..counts.len() as u32).map(|i| [0, 1, 2].map(|p| 3 * i + p)).collect();
        model.reserve_pages(3 * counts.len(), KvType::F16).unwrap();
        let mut first = 0;
        let mut segments = Vec::new();
        for ((&(count, phase), pages), seq) in counts.iter().zip(&pages).zip(0..) {
            let rows = first..first + count;
            first = rows.end;
            segments.push(Segment { seq, start: 0, rows, pages, phase, want: Wanted::Last });
        }
        let tokens = tokens(segments.iter().map(|segment| segment.rows.len() as u32).sum());
        let batch = Batch { tokens: &tokens, segments: &segments };
        let before = cpu.pool().regions();
        let mut of_layers = Vec::new();
        let mut progress = |_| {
            of_layers.push(cpu.pool().regions());
            true
        };
        model.forward(&batch, &mut progress).unwrap();
        let (mut last, mut most_taken) = (before, 0);
        for (layer, regions) in of_layers.into_iter().enumerate() {
            let taken = regions - last;
            assert!(taken <= 12, "layer {layer} of {layers}, {counts:?}: {taken}");
            most_taken = most_taken.max(taken);
            last = regions;
        }
        println!("{decoding} rows and {prompts:?}: {most_taken} regions");
    }
}

#[test]
fn a_model_can_move_to_another_thread() {
    let mut model = load(&ModelOptions::default());
    let mut sequence = Sequence::new(&mut model, 1, KvType::F16);
    let logits = std::thread::spawn(move || sequence.decode(&mut model, &[5]));
    assert_eq!(logits.join().unwrap().len(), VOCABULARY);
}
