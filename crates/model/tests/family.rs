//! Small models with random weights in the shapes of the family's members, against the oracle.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use cachalot_gguf::KvType;
use cachalot_kernels::Tier;
use cachalot_model::{Model, ModelOptions, reference};
use common::{Exact, File, distance};

const HIDDEN: u64 = 64;
const VOCABULARY: u64 = 96;
const WIDTH: u64 = 32;
const EXPERTS: u64 = 8;

/// What differs between the members.
#[derive(Clone, Copy)]
struct Member {
    q_rank: u64,
    gate: u32,
    bias: bool,
    normalize: bool,
    scale: f32,
    groups: (u32, u32),
    shared: u64,
    dense_layers: u64,
    scaling: &'static str,
}

const V2_LITE: Member = Member {
    q_rank: 0,
    gate: 1,
    bias: false,
    normalize: false,
    scale: 1.0,
    groups: (1, 1),
    shared: 2,
    dense_layers: 1,
    scaling: "yarn",
};
const V2: Member = Member { q_rank: 32, groups: (4, 2), scale: 16.0, ..V2_LITE };
const R1: Member = Member { gate: 2, bias: true, normalize: true, scale: 2.5, shared: 1, ..V2 };
const KIMI_K2: Member = Member { groups: (1, 1), scaling: "none", ..R1 };

/// Numbers that look random, the same on every machine.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

fn model(member: Member) -> File {
    let mut file = File { keys: Vec::new(), tensors: Vec::new() };
    keys(&mut file, member);
    let mut noise = Noise(1);
    let mut random = |name: &str, shape: &[u64]| {
        let fan_in = (shape[0] as f32).sqrt();
        let numbers: Vec<f32> =
            (0..shape.iter().product()).map(|_| noise.next() * 2.0 / fan_in).collect();
        file.put(name, shape, &numbers);
    };
    random("token_embd.weight", &[HIDDEN, VOCABULARY]);
    random("output.weight", &[HIDDEN, VOCABULARY]);
    random("output_norm.weight", &[HIDDEN]);
    for layer in 0..3 {
        let (heads, nope, rope, value, latent) = (4, 32, 16, 24, 48);
        let mut part = |name: &str, shape: &[u64]| random(&format!("blk.{layer}.{name}"), shape);
        part("attn_norm.weight", &[HIDDEN]);
        part("ffn_norm.weight", &[HIDDEN]);
        match member.q_rank {
            0 => part("attn_q.weight", &[HIDDEN, heads * (nope + rope)]),
            rank => {
                part("attn_q_a.weight", &[HIDDEN, rank]);
                part("attn_q_a_norm.weight", &[rank]);
                part("attn_q_b.weight", &[rank, heads * (nope + rope)]);
            }
        }
        part("attn_kv_a_mqa.weight", &[HIDDEN, latent + rope]);
        part("attn_kv_a_norm.weight", &[latent]);
        part("attn_kv_b.weight", &[latent, heads * (nope + value)]);
        part("attn_output.weight", &[heads * value, HIDDEN]);
        let mut network = |suffix: &str, width: u64, count: &[u64]| {
            part(&format!("ffn_gate{suffix}.weight"), &[&[HIDDEN, width], count].concat());
            part(&format!("ffn_up{suffix}.weight"), &[&[HIDDEN, width], count].concat());
            part(&format!("ffn_down{suffix}.weight"), &[&[width, HIDDEN], count].concat());
        };
        if layer < member.dense_layers {
            network("", 160, &[]);
            continue;
        }
        network("_exps", WIDTH, &[EXPERTS]);
        network("_shexp", WIDTH * member.shared, &[]);
        part("ffn_gate_inp.weight", &[HIDDEN, EXPERTS]);
        if member.bias {
            part("exp_probs_b.bias", &[EXPERTS]);
        }
    }
    file
}

fn keys(file: &mut File, member: Member) {
    file.set("general.architecture", "deepseek2");
    let mut size = |key: &str, size: u64| file.set(&format!("deepseek2.{key}"), size as u32);
    size("block_count", 3);
    size("context_length", 1000);
    size("embedding_length", HIDDEN);
    size("feed_forward_length", 160);
    size("attention.head_count", 4);
    size("attention.key_length", 48);
    size("attention.value_length", 24);
    size("attention.kv_lora_rank", 48);
    size("rope.dimension_count", 16);
    size("leading_dense_block_count", member.dense_layers);
    size("expert_count", EXPERTS);
    size("expert_used_count", 3);
    size("expert_shared_count", member.shared);
    size("expert_feed_forward_length", WIDTH);
    size("expert_gating_func", member.gate.into());
    size("expert_group_count", member.groups.0.into());
    size("expert_group_used_count", member.groups.1.into());
    size("rope.scaling.original_context_length", 100);
    if member.q_rank > 0 {
        size("attention.q_lora_rank", member.q_rank);
    }
    let mut float = |key: &str, float: f32| file.set(&format!("deepseek2.{key}"), float);
    float("attention.layer_norm_rms_epsilon", 1e-6);
    float("expert_weights_scale", member.scale);
    float("rope.freq_base", 1000.0);
    float("rope.scaling.factor", 10.0);
    float("rope.scaling.yarn_log_multiplier", 0.0707);
    file.set("deepseek2.rope.scaling.type", member.scaling);
    file.set("deepseek2.expert_weights_norm", member.normalize);
}

#[test]
fn every_member_of_the_family_agrees_with_the_oracle() {
    let tokens: Vec<u32> = (0..20).map(|i| i * 29 % VOCABULARY as u32).collect();
    let linear = Member { scaling: "linear", ..R1 };
    let members =
        [("V2-Lite", V2_LITE), ("V2", V2), ("R1", R1), ("K2", KIMI_K2), ("linear", linear)];
    for (name, member) in members {
        let weights = model(member).weights();
        for (tier, limit) in [(Tier::SCALAR, 2e-4), (Tier::detect(), 2e-2)] {
            let mut model =
                Model::load(&weights, &common::cpu(2, tier), &ModelOptions::default()).unwrap();
            let exact = reference::logits(&weights, model.config(), &tokens);
            let mut sequence = common::Sequence::new(&mut model, 20, KvType::F32);
            let computed = sequence.prefill(&mut model, &tokens);
            let distance = distance(&exact, &computed, VOCABULARY as usize);
            assert!(distance.max <= limit, "{name}, {tier}: {distance:?}");
        }
    }
}

#[test]
fn the_oracle_gives_the_exact_logits() {
    let exact = Exact::open(&common::fixture("nano-logits.safetensors"));
    let weights = common::open("nano-ud-iq1_s.gguf");
    let cpu = common::cpu(1, Tier::SCALAR);
    let model = Model::load(&weights, &cpu, &ModelOptions::default()).unwrap();
    let computed = reference::logits(&weights, model.config(), &exact.prompt(0));
    let distance = distance(&exact.logits("nano-ud-iq1_s", 0), &computed, model.vocab_size());
    assert!(distance.max <= 1e-4, "{distance:?}");
}
