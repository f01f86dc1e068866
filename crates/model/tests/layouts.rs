//! The same model in the layouts that converters have used gives the same logits.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use cachalot_kernels::Tier;
use cachalot_model::ModelOptions;
use common::{File, distance};

const VOCABULARY: usize = 640;
const LAYERS: usize = 3;
const HEADS: usize = 8;
const NOPE: usize = 64;
const VALUE: usize = 32;
const LATENT: usize = 256;

fn tokens(n: u32) -> Vec<u32> {
    (0..n).map(|i| (i * 37 + 5) % VOCABULARY as u32).collect()
}

fn nano() -> File {
    File::of(&common::open("nano-iq-mix.gguf"))
}

/// Compares the logits of two files in both forms of attention: the scalar tier's to rounding, and
/// those of the best tier to the rounding of derived weights.
fn assert_same(a: &File, b: &File) {
    let (a, b) = (a.weights(), b.weights());
    for (tier, limit) in [(Tier::SCALAR, 1e-9), (Tier::detect(), 1e-3)] {
        let cpu = common::cpu(2, tier);
        for expanded_from in [1, usize::MAX] {
            let options =
                ModelOptions { expanded_from: Some(expanded_from), ..ModelOptions::default() };
            let logits = |weights| common::logits(weights, &cpu, &options, &tokens(24));
            let distance = distance(&logits(&a), &logits(&b), VOCABULARY);
            assert!(distance.kl_median <= limit, "{tier}, from {expanded_from}: {distance:?}");
        }
    }
}

/// The key and value projections of a layer as one matrix per head.
fn kv_b(file: &File, layer: usize) -> Vec<f32> {
    let keys = file.numbers(&format!("blk.{layer}.attn_k_b.weight")); // [heads][latent, nope]
    let values = file.numbers(&format!("blk.{layer}.attn_v_b.weight")); // [heads][value, latent]
    let mut both = Vec::new();
    for h in 0..HEADS {
        for n in 0..NOPE {
            both.extend((0..LATENT).map(|l| keys[(h * LATENT + l) * NOPE + n]));
        }
        both.extend(&values[h * VALUE * LATENT..][..VALUE * LATENT]);
    }
    both
}

#[test]
fn key_and_value_projections_may_be_joined_apart_or_both() {
    let new = nano();
    let (mut all, mut old) = (new.clone(), new.clone());
    for layer in 0..LAYERS {
        let name = format!("blk.{layer}.attn_kv_b.weight");
        let shape = [LATENT as u64, (HEADS * (NOPE + VALUE)) as u64];
        all.put(&name, &shape, &kv_b(&new, layer));
        old.put(&name, &shape, &kv_b(&new, layer));
        old.remove(&format!("blk.{layer}.attn_k_b.weight"));
        old.remove(&format!("blk.{layer}.attn_v_b.weight"));
    }
    old.set("deepseek2.attention.head_count_kv", HEADS as u32);
    old.set("deepseek2.attention.key_length", 96u32);
    old.set("deepseek2.attention.value_length", VALUE as u32);
    old.remove_key("deepseek2.attention.key_length_mla");
    old.remove_key("deepseek2.attention.value_length_mla");
    assert_same(&new, &all);
    assert_same(&new, &old);
}

#[test]
fn gate_and_up_of_experts_may_be_one_tensor() {
    let separate = nano();
    let mut merged = separate.clone();
    for layer in 1..LAYERS {
        let name = |part: &str| format!("blk.{layer}.ffn_{part}_exps.weight");
        let (gate, up) = (separate.numbers(&name("gate")), separate.numbers(&name("up")));
        let experts = gate.chunks(256 * 256).zip(up.chunks(256 * 256));
        let both: Vec<f32> = experts.flat_map(|(g, u)| [g, u].concat()).collect();
        merged.remove(&name("gate"));
        merged.remove(&name("up"));
        merged.put(&name("gate_up"), &[256, 512, 16], &both);
    }
    assert_same(&separate, &merged);
}

#[test]
fn tensors_may_have_scales_of_their_own() {
    let plain = nano();
    let mut scaled = plain.clone();
    let name = "blk.2.ffn_down_exps.weight";
    let factor = |expert: usize| (expert as f32 - 8.5) / 4.0;
    let experts = plain.numbers(name);
    let experts = experts.chunks(256 * 256).enumerate();
    let experts: Vec<f32> =
        experts.flat_map(|(e, w)| w.iter().map(move |w| w / factor(e))).collect();
    scaled.put(name, &[256, 256, 16], &experts);
    scaled.put("blk.2.ffn_down_exps.scale", &[16], &(0..16).map(factor).collect::<Vec<_>>());
    for name in ["blk.0.attn_output", "blk.1.attn_v_b", "token_embd", "output"] {
        let weight = format!("{name}.weight");
        let shape =
            plain.tensors.iter().find(|(info, _)| info.name == weight).unwrap().0.shape.clone();
        let numbers: Vec<f32> = plain.numbers(&weight).iter().map(|w| w * 4.0).collect();
        scaled.put(&weight, &shape, &numbers);
        scaled.put(&format!("{name}.scale"), &[1], &[0.25]);
    }
    assert_same(&plain, &scaled);
}

#[test]
fn without_a_head_the_embedding_is_it_and_predicting_layers_are_ignored() {
    let mut separate = nano();
    let embedding = separate.numbers("token_embd.weight");
    separate.put("output.weight", &[256, 640], &embedding);
    let mut tied = separate.clone();
    tied.remove("output.weight");
    tied.set("deepseek2.block_count", 4u32);
    tied.set("deepseek2.nextn_predict_layers", 1u32);
    tied.put("blk.3.nextn.enorm.weight", &[256], &[1.0; 256]);
    assert_same(&separate, &tied);
}
