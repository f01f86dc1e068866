//! Miniatures of the models, written to memory and run.

use std::sync::{Arc, Mutex};

use cachalot_gguf::{KvType, Metadata};
use cachalot_kernels::{Activations, Cpu, Tier};
use cachalot_model::{
    Batch, Error, ExpertCall, Experts, FailedRows, Model, ModelOptions, PAGE_ROWS, Phase, Segment,
    Wanted,
};
use cachalot_store::Weights as File;
use cachalot_text::{Vocab, VocabParts};
use clap::ValueEnum as _;

use super::*;

fn tokenizer() -> Metadata {
    tokenizer_source(&crate::root().join(VOCABULARY)).unwrap()
}

fn synth(name: Name, recipe: Recipe) -> Synth {
    let mut family = Family::shrunk(name);
    family.shape.experts = 32;
    Synth { family, recipe, skew: 0.075, seed: 1, pool_len: 1 << 14 }
}

fn bytes(synth: &Synth, tokenizer: &Metadata) -> Vec<u8> {
    let writer = synth.describe(tokenizer).unwrap();
    synth.write(&writer, Vec::new(), &mut Progress::new()).unwrap()
}

/// The logits of every token of a prompt.
fn prefill(model: &mut Model, tokens: &[u32]) -> Vec<f32> {
    let pages: Vec<u32> = (0..tokens.len().div_ceil(PAGE_ROWS) as u32).collect();
    model.reserve_pages(pages.len(), KvType::F16).unwrap();
    let (seq, start, rows, pages) = (0, 0, 0..tokens.len(), &pages[..]);
    let (phase, want) = (Phase::Prefill, Wanted::All);
    let segment = Segment { seq, start, rows, pages, phase, want };
    let batch = Batch { tokens, segments: &[segment] };
    model.forward(&batch, &mut |_| true).unwrap().logits(0).to_vec()
}

#[test]
fn every_shape_and_recipe_loads_and_computes_numbers_of_the_right_size() {
    let tokenizer = tokenizer();
    let cpu = Arc::new(Cpu::new(2, Tier::detect()));
    for &name in Name::value_variants() {
        for &recipe in Recipe::value_variants() {
            let bytes = bytes(&synth(name, recipe), &tokenizer);
            let weights = File::from_bytes(bytes).unwrap();
            let mut model = Model::load(&weights, &cpu, &ModelOptions::default()).unwrap();
            let tokens: Vec<u32> = (300..316).collect();
            let logits = prefill(&mut model, &tokens);
            let square = logits.iter().map(|x| x * x).sum::<f32>() / logits.len() as f32;
            assert!((0.3..3.0).contains(&square), "{name:?} {recipe:?}: {square}");
        }
    }
}

#[test]
fn a_seed_names_a_file_and_a_failed_one_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model.gguf");
    let vocabulary = crate::root().join(VOCABULARY);
    let mut synth = synth(Name::V2Lite, Recipe::UdIq1S);
    synth.write_file(&vocabulary, &out, false).unwrap();
    let first = std::fs::read(&out).unwrap();
    assert!(first == bytes(&synth, &tokenizer()), "the same seed, the same bytes");

    synth.seed += 1;
    let refused = synth.write_file(&vocabulary, &out, false).unwrap_err().to_string();
    assert!(refused.contains("--force"), "{refused}");
    // A pool of less than one block: it fails once the file is begun.
    synth.pool_len = 32;
    synth.write_file(&vocabulary, &out, true).unwrap_err();
    assert!(std::fs::read(&out).unwrap() == first, "a failure replaces nothing");
    assert_eq!(folder.path().read_dir().unwrap().count(), 1, "nor does it leave a part");

    synth.pool_len = 1 << 14;
    synth.write_file(&vocabulary, &out, true).unwrap();
    assert!(std::fs::read(&out).unwrap() != first, "another seed, other bytes");
}

#[test]
fn a_cut_vocabulary_still_encodes_every_text_and_keeps_its_special_tokens() {
    let tokenizer = tokenizer();
    for len in [1024, 163_840] {
        let mut metadata = Metadata::default();
        vocabulary::copy(&tokenizer, len, &mut metadata).unwrap();
        let vocab = Vocab::new(&VocabParts::from_metadata(&metadata).unwrap()).unwrap();
        assert_eq!(vocab.len(), len);
        let text = "<think>Pottwale 抹香鲸 dive to 2000 m 🐋</think>";
        let ids = vocab.encode(text, true).unwrap();
        assert_eq!(vocab.decode(&ids), text);
        assert_eq!(ids.first().copied(), vocab.id_of("<think>"));
        for special in ["<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "</think>"]
        {
            assert_eq!(vocab.encode(special, true).unwrap().len(), 1, "{special} of {len}");
        }
    }
    assert!(vocabulary::copy(&tokenizer, 16, &mut Metadata::default()).is_err());
}

/// Counts what the routers pick, and adds nothing.
struct Counter(Arc<Mutex<Vec<Vec<u32>>>>); // [layers, experts]

impl Experts for Counter {
    fn begin(&mut self, call: &ExpertCall<'_>, _: &Activations) -> Result<(), Error> {
        let counts = &mut self.0.lock().unwrap()[call.layer];
        for row in 0..call.routing.rows() {
            call.routing.of(row).0.iter().for_each(|&expert| counts[expert as usize] += 1);
        }
        Ok(())
    }

    fn finish(
        &mut self,
        _: &ExpertCall<'_>,
        _: &mut Activations,
        _: &mut [f32],
    ) -> Result<Vec<FailedRows>, Error> {
        Ok(Vec::new())
    }
}

#[test]
fn experts_are_picked_as_unevenly_as_in_the_published_model() {
    let mut synth = synth(Name::R1, Recipe::Q8_0);
    // Experts are counted, not computed: their width does not matter.
    (synth.family.shape.experts, synth.family.shape.expert_ff) = (256, 32);
    let (dense, layers, tokens) = (1, 9, 768);
    (synth.family.shape.dense_layers, synth.family.shape.layers) = (dense, layers);
    let weights = File::from_bytes(bytes(&synth, &tokenizer())).unwrap();
    let counts = Arc::new(Mutex::new(vec![vec![0; 256]; layers as usize]));
    let experts = Box::new(Counter(Arc::clone(&counts)));
    let (cpu, options) = (Arc::new(Cpu::new(2, Tier::detect())), ModelOptions::default());
    let mut model = Model::load_with_experts(&weights, &cpu, &options, experts).unwrap();
    let ids: Vec<u32> = (0..tokens).collect();
    prefill(&mut model, &ids);

    let mut counts = counts.lock().unwrap().split_off(dense as usize);
    counts.iter_mut().for_each(|counts| counts.sort_unstable_by(|a, b| b.cmp(a)));
    for (part, published) in [(0.10, 0.42), (0.18, 0.60), (0.25, 0.70), (0.45, 0.88)] {
        let hottest = counts.iter().flat_map(|counts| &counts[..(part * 256.0) as usize]);
        let all: u32 = counts.iter().flatten().sum();
        let share = f64::from(hottest.sum::<u32>()) / f64::from(all);
        assert!((share - published).abs() < 0.03, "hottest {part}: {share}, not {published}");
    }
}
