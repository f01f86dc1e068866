//! Logits against exact ones, computed in f32 by Hugging Face transformers from the same files'
//! dequantized weights.
//!
//! The scalar tier is the specification and must agree to rounding. Fast tiers round inputs; they
//! must not be further from the exact logits than llama.cpp is on the same file (median divergence
//! per position: a random model's router sometimes flips an expert, and means show little else).
//!
//! `CACHALOT_GOLDEN` may name folders (separated by `:`) of more such files.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use cachalot_gguf::KvType;
use cachalot_kernels::Tier;
use cachalot_model::ModelOptions;
use cachalot_store::{Placement, Weights};
use common::{Distance, Exact};

/// The medians of llama.cpp (processor, f16 cache), prompts 0 and 1.
const LLAMA_CPP: [(&str, [f64; 2]); 8] = [
    ("nano-bf16", [1.7e-5, 2.5e-5]),
    ("nano-q8_0", [2.0e-4, 2.9e-4]),
    ("nano-q4_k_m", [4.7e-4, 6.5e-4]),
    ("nano-ud-iq1_s", [6.1e-4, 5.9e-4]),
    ("nano-ud-q2_k_xl", [4.7e-4, 4.3e-4]),
    ("nano-iq-mix", [4.0e-4, 5.7e-4]),
    ("nano-legacy-mix", [2.3e-4, 2.6e-4]),
    ("nano-kv_b-q8_0", [2.1e-4, 3.0e-4]),
];

fn compare(path: &Path, name: &str, exact: &Exact, tier: Tier, kind: KvType) -> [Distance; 2] {
    let weights = Weights::open(path, Placement::Mapped).unwrap();
    [0, 1].map(|prompt| {
        let tokens = exact.prompt(prompt);
        let cpu = common::cpu(2, tier);
        let computed = common::logits_with(&weights, &cpu, &ModelOptions::default(), &tokens, kind);
        let exact = exact.logits(name, prompt);
        let distance = common::distance(&exact, &computed, exact.len() / tokens.len());
        println!(
            "{name} prompt {prompt} {tier} {kind}: {distance:.2e}",
            distance = Show(&distance)
        );
        distance
    })
}

struct Show<'a>(&'a Distance);

impl std::fmt::LowerExp for Show<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Distance { max, kl_mean, kl_median, same_top } = self.0;
        write!(f, "max {max:.1e} KL mean {kl_mean:.1e} median {kl_median:.1e} top {same_top:.2}")
    }
}

fn check(path: &Path, name: &str, exact: &Exact) {
    for distance in compare(path, name, exact, Tier::SCALAR, KvType::F32) {
        assert!(distance.max <= 1e-3, "{name}, scalar: {distance:?}");
        assert!(distance.kl_mean <= 1e-6, "{name}, scalar: {distance:?}");
    }
    let fast = compare(path, name, exact, Tier::detect(), KvType::F16);
    let limits = LLAMA_CPP.iter().find(|(known, _)| *known == name).map_or([1e-3; 2], |(_, l)| *l);
    for (distance, limit) in fast.iter().zip(limits) {
        assert!(distance.kl_median <= limit, "{name}: {distance:?}, llama.cpp {limit:.1e}");
    }
}

#[test]
fn fixtures_give_the_exact_logits() {
    let exact = Exact::open(&common::fixture("nano-logits.safetensors"));
    for name in ["nano-ud-iq1_s", "nano-ud-q2_k_xl", "nano-iq-mix"] {
        check(&common::fixture(&format!("{name}.gguf")), name, &exact);
    }
    let part = common::fixture("split/split-nano-q4_k_m-00002-of-00003.gguf");
    check(&part, "nano-q4_k_m", &exact);
}

#[test]
fn files_of_other_folders_give_theirs() {
    let Some(folders) = std::env::var_os("CACHALOT_GOLDEN") else {
        println!("skipped: CACHALOT_GOLDEN names no folders of files with known logits");
        return;
    };
    for folder in std::env::split_paths(&folders) {
        let mut files: Vec<PathBuf> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let is = |path: &PathBuf, end: &str| path.to_str().unwrap().ends_with(end);
        let exact = files.iter().find(|path| is(path, "-logits.safetensors")).unwrap();
        let exact = Exact::open(exact);
        for path in files.iter().filter(|path| is(path, ".gguf")) {
            let name = path.file_stem().unwrap().to_str().unwrap();
            assert!(exact.has(name), "{name}");
            check(path, name, &exact);
        }
    }
}
