//! What the tests of the model share: fixtures, exact logits, distances between distributions.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test uses a part of it

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cachalot_kernels::{Cpu, Tier};
use cachalot_model::{KvType, Logits, Model, ModelOptions};
use cachalot_store::{Placement, Weights};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

pub fn open(name: &str) -> Weights {
    Weights::open(fixture(name), Placement::Mapped).unwrap()
}

pub fn cpu(threads: usize, tier: Tier) -> Arc<Cpu> {
    Arc::new(Cpu::new(threads, tier))
}

/// The logits of all `tokens`, computed in one call.
pub fn logits(
    weights: &Weights,
    cpu: &Arc<Cpu>,
    options: &ModelOptions,
    tokens: &[u32],
) -> Vec<f32> {
    logits_with(weights, cpu, options, tokens, KvType::F32)
}

pub fn logits_with(
    weights: &Weights,
    cpu: &Arc<Cpu>,
    options: &ModelOptions,
    tokens: &[u32],
    kind: KvType,
) -> Vec<f32> {
    let mut model = Model::load(weights, cpu, options).unwrap();
    let mut cache = model.cache(tokens.len(), kind).unwrap();
    model.forward(&mut cache, tokens, Logits::All, &mut |_| true).unwrap().to_vec()
}

/// Tensors of a safetensors file: 8 bytes of length, a JSON header, the numbers.
pub struct Exact(HashMap<String, Vec<[u8; 4]>>);

impl Exact {
    pub fn open(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let (len, rest) = bytes.split_at(8);
        let len = u64::from_le_bytes(len.try_into().unwrap()) as usize;
        let header: serde_json::Value = serde_json::from_slice(&rest[..len]).unwrap();
        let tensors =
            header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__");
        let tensors = tensors.map(|(name, info)| {
            let at = |i: usize| len + info["data_offsets"][i].as_u64().unwrap() as usize;
            (name.clone(), rest[at(0)..at(1)].as_chunks().0.to_vec())
        });
        Self(tensors.collect())
    }

    pub fn prompt(&self, number: usize) -> Vec<u32> {
        self.0[&format!("prompt.{number}.ids")].iter().map(|b| u32::from_le_bytes(*b)).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(&format!("{name}.prompt.0.logits"))
    }

    pub fn logits(&self, name: &str, prompt: usize) -> Vec<f32> {
        let logits = &self.0[&format!("{name}.prompt.{prompt}.logits")];
        logits.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }
}

/// How far computed logits are from exact ones.
#[derive(Debug)]
pub struct Distance {
    /// Largest difference of log-probabilities.
    pub max: f64,
    pub kl_mean: f64,
    pub kl_median: f64,
    /// Share of positions with the same most probable token.
    pub same_top: f64,
}

pub fn distance(exact: &[f32], computed: &[f32], vocabulary: usize) -> Distance {
    assert_eq!(exact.len(), computed.len());
    let (mut max, mut kls, mut same) = (0f64, Vec::new(), 0);
    for (exact, computed) in exact.chunks(vocabulary).zip(computed.chunks(vocabulary)) {
        let (exact, computed) = (log_softmax(exact), log_softmax(computed));
        let pairs = || exact.iter().zip(&computed);
        max =
            pairs().fold(max, |max, (e, c)| if (e - c).abs() <= max { max } else { (e - c).abs() });
        kls.push(pairs().map(|(e, c)| e.exp() * (e - c)).sum::<f64>());
        same += usize::from(top(&exact) == top(&computed));
    }
    let n = kls.len();
    kls.sort_by(f64::total_cmp);
    let kl_mean = kls.iter().sum::<f64>() / n as f64;
    Distance { max, kl_mean, kl_median: kls[n / 2], same_top: same as f64 / n as f64 }
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    logits.iter().map(|&x| f64::from(x - max) - sum.ln()).collect()
}

fn top(numbers: &[f64]) -> usize {
    (0..numbers.len()).max_by(|&a, &b| numbers[a].total_cmp(&numbers[b])).unwrap()
}
