//! What the tests of the model share: fixtures, exact logits, distances between distributions.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test uses a part of it

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cachalot_gguf::write::Writer;
use cachalot_gguf::{KvType, TensorInfo, TensorType, Value};
use cachalot_kernels::{Cpu, Format, Tier};
use cachalot_model::{
    Batch, Config, Model, ModelOptions, PAGE_ROWS, PageId, Phase, Segment, Wanted,
};
use cachalot_store::{Placement, Reader, Weights};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

pub fn open(name: &str) -> Weights {
    Weights::open(fixture(name), Placement::Mapped).unwrap()
}

/// The weights of a model whose experts are streamed, and its configuration.
pub fn open_streamed(
    path: &Path,
    reader: &mut Reader,
    options: &ModelOptions,
) -> (Weights, Config) {
    let config = Config::of(&Weights::open(path, Placement::Mapped).unwrap(), options).unwrap();
    let tensor_use = |name: &str| config.tensor_use(name);
    let opened = Weights::open_streamed(path, reader, &tensor_use, &mut |_, _| true);
    (opened.unwrap().0, config)
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
    Sequence::new(&mut model, tokens.len(), kind).prefill(&mut model, tokens)
}

/// One sequence of a model, in pages from 0 on.
pub struct Sequence {
    pages: Vec<PageId>,
    pub len: usize,
}

impl Sequence {
    /// For up to `capacity` tokens. The pages of earlier sequences are gone.
    pub fn new(model: &mut Model, capacity: usize, kv: KvType) -> Self {
        let pages = capacity.div_ceil(PAGE_ROWS);
        model.reserve_pages(pages, kv).unwrap();
        Self { pages: (0..pages as PageId).collect(), len: 0 }
    }

    /// The wanted logits of `tokens`, computed in one batch.
    pub fn forward(
        &mut self,
        model: &mut Model,
        tokens: &[u32],
        phase: Phase,
        want: Wanted,
    ) -> Result<Vec<f32>, String> {
        let (start, rows) = (self.len, 0..tokens.len());
        let segment = Segment { seq: 0, start, rows, pages: &self.pages, phase, want };
        let batch = Batch { tokens, segments: &[segment] };
        let output = model.forward(&batch, &mut |_| true).map_err(|error| error.to_string())?;
        if let Some(failure) = output.failures().first() {
            return Err(failure.error.to_string());
        }
        self.len += tokens.len();
        Ok(output.logits(0).to_vec())
    }

    /// The logits of every token of a prompt.
    pub fn prefill(&mut self, model: &mut Model, tokens: &[u32]) -> Vec<f32> {
        self.forward(model, tokens, Phase::Prefill, Wanted::All).unwrap()
    }

    /// The logits of tokens as after sampling.
    pub fn decode(&mut self, model: &mut Model, tokens: &[u32]) -> Vec<f32> {
        self.forward(model, tokens, Phase::Decode, Wanted::All).unwrap()
    }
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

/// A GGUF taken separate, to be changed and put together again.
#[derive(Clone)]
pub struct File {
    pub keys: Vec<(String, Value)>,
    pub tensors: Vec<(TensorInfo, Vec<u8>)>,
}

impl File {
    pub fn of(weights: &Weights) -> Self {
        let keys = weights.metadata().iter().map(|(k, v)| (k.to_owned(), v.clone())).collect();
        let tensors = weights.tensors().iter().map(|t| (t.info.clone(), t.bytes.to_vec()));
        Self { keys, tensors: tensors.collect() }
    }

    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.remove_key(key);
        self.keys.push((key.to_owned(), value.into()));
    }

    pub fn remove_key(&mut self, key: &str) {
        self.keys.retain(|(k, _)| k != key);
    }

    /// The numbers of a tensor.
    pub fn numbers(&self, name: &str) -> Vec<f32> {
        let (info, bytes) = self.tensors.iter().find(|(info, _)| info.name == name).unwrap();
        let mut numbers = vec![0.0; info.elements() as usize];
        Format::from_id(info.ty.id()).unwrap().decode(bytes, &mut numbers);
        numbers
    }

    pub fn remove(&mut self, name: &str) {
        self.tensors.retain(|(info, _)| info.name != name);
    }

    /// Puts an F32 tensor in place of whatever has this name.
    pub fn put(&mut self, name: &str, shape: &[u64], numbers: &[f32]) {
        self.remove(name);
        let bytes = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensors.push((TensorInfo::new(name, TensorType::F32, shape).unwrap(), bytes));
    }

    pub fn weights(&self) -> Weights {
        let mut writer = Writer::default();
        for (key, value) in &self.keys {
            writer.metadata.insert(key, value.clone());
        }
        for (info, _) in &self.tensors {
            writer.tensor(&info.name, info.ty, &info.shape).unwrap();
        }
        let mut data = writer.start(Vec::new()).unwrap();
        for (_, bytes) in &self.tensors {
            data.append(bytes).unwrap();
        }
        Weights::from_bytes(data.finish().unwrap()).unwrap()
    }
}
