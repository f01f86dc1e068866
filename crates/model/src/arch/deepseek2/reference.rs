//! The model computed slowly and plainly, as an oracle for tests.
//!
//! It shares nothing with the forward pass but the description of the file: every weight is decoded
//! to f32, every sum taken in f64, keys and values of every head are expanded, and nothing is
//! cached or batched. It follows DeepSeek's published `inference/model.py` and reads like it.

use cachalot_kernels::Format;
use cachalot_store::Weights;

use crate::{Config, ExpertConfig, Gate, Scaling, Temperature};

/// Logits `[tokens, vocabulary]` of the tokens from position 0 on.
///
/// # Panics
/// If a tensor is missing, or of another shape than `config` says.
pub fn logits(weights: &Weights, config: &Config, tokens: &[u32]) -> Vec<f32> {
    let oracle = Oracle { weights, config };
    let embedding = oracle.tensor("token_embd.weight");
    let row = |token: u32| &embedding[token as usize * config.hidden..][..config.hidden];
    let mut hidden: Vec<Vec<f64>> = tokens.iter().map(|&t| widened(row(t))).collect();
    for layer in 0..config.layers {
        oracle.attention(layer, &mut hidden);
        for h in &mut hidden {
            let x = oracle.norm(h, &format!("blk.{layer}.ffn_norm.weight"));
            let y = oracle.feed_forward(layer, &x);
            add(h, 1.0, &y);
        }
    }
    let head = oracle.optional("output.weight").unwrap_or(embedding);
    let logits = |h: &Vec<f64>| multiply(&head, &oracle.norm(h, "output_norm.weight"));
    hidden.iter().flat_map(logits).map(|logit| logit as f32).collect()
}

struct Oracle<'a> {
    weights: &'a Weights,
    config: &'a Config,
}

impl Oracle<'_> {
    fn optional(&self, name: &str) -> Option<Vec<f32>> {
        let tensor = self.weights.tensor(name)?;
        let format = Format::from_id(tensor.info.ty.id())?;
        let mut numbers = vec![0.0; tensor.info.elements() as usize];
        format.decode(&tensor.bytes, &mut numbers);
        Some(numbers)
    }

    fn tensor(&self, name: &str) -> Vec<f32> {
        self.optional(name).unwrap_or_else(|| panic!("no tensor `{name}`"))
    }

    fn norm(&self, x: &[f64], name: &str) -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (mean + f64::from(self.config.epsilon)).sqrt();
        self.tensor(name).iter().zip(x).map(|(w, x)| f64::from(*w) * x * scale).collect()
    }

    fn attention(&self, layer: usize, hidden: &mut [Vec<f64>]) {
        let &Config { heads, nope, rope, value, latent, .. } = self.config;
        let name = |part: &str| format!("blk.{layer}.attn_{part}.weight");
        let weight = |part: &str| self.tensor(&name(part));
        let (key_weights, value_weights) = self.keys_and_values(layer);
        let (mut q, mut k, mut v) = (Vec::new(), Vec::new(), Vec::new());
        for (position, h) in hidden.iter().enumerate() {
            let x = self.norm(h, &name("norm"));
            let mut query = match self.config.q_rank {
                None => multiply(&weight("q"), &x),
                Some(_) => {
                    let low = multiply(&weight("q_a"), &x);
                    multiply(&weight("q_b"), &self.norm(&low, &name("q_a_norm")))
                }
            };
            query.chunks_mut(nope + rope).for_each(|q| self.rotate(&mut q[nope..], position));
            if let Some(Temperature { scale, length }) = self.config.temperature {
                let factor = 1.0 + f64::from(scale) * ((1 + position / length) as f64).ln();
                query.iter_mut().for_each(|number| *number *= factor);
            }
            let mut kv = multiply(&weight("kv_a_mqa"), &x);
            self.rotate(&mut kv[latent..], position);
            let c = self.norm(&kv[..latent], &name("kv_a_norm"));
            let keys = multiply(&key_weights, &c);
            let rotated = &kv[latent..];
            k.push(keys.chunks(nope).map(|key| [key, rotated].concat()).collect::<Vec<_>>());
            v.push(multiply(&value_weights, &c));
            q.push(query);
        }
        let output = weight("output");
        for (t, h) in hidden.iter_mut().enumerate() {
            let mut values = vec![0.0; heads * value];
            for (head, values) in values.chunks_mut(value).enumerate() {
                let q = &q[t][head * (nope + rope)..][..nope + rope];
                let score = |j: usize| dot(q, &k[j][head]) * f64::from(self.config.attention_scale);
                let weights = softmax(&(0..=t).map(score).collect::<Vec<_>>());
                for (j, weight) in weights.into_iter().enumerate() {
                    add(values, weight, &v[j][head * value..][..value]);
                }
            }
            add(h, 1.0, &multiply(&output, &values));
        }
    }

    /// `[heads · nope, latent]` and `[heads · value, latent]`, from whichever tensors the file has.
    fn keys_and_values(&self, layer: usize) -> (Vec<f32>, Vec<f32>) {
        let &Config { heads, nope, value, latent, .. } = self.config;
        if let Some(both) = self.optional(&format!("blk.{layer}.attn_kv_b.weight")) {
            let heads = || both.chunks((nope + value) * latent);
            return (
                heads().flat_map(|head| head[..nope * latent].to_vec()).collect(),
                heads().flat_map(|head| head[nope * latent..].to_vec()).collect(),
            );
        }
        let transposed = self.tensor(&format!("blk.{layer}.attn_k_b.weight"));
        let mut keys = Vec::new();
        for h in 0..heads {
            for n in 0..nope {
                keys.extend((0..latent).map(|l| transposed[(h * latent + l) * nope + n]));
            }
        }
        (keys, self.tensor(&format!("blk.{layer}.attn_v_b.weight")))
    }

    fn rotate(&self, x: &mut [f64], position: usize) {
        let dims = x.len() as f64;
        let base = f64::from(self.config.rope_base);
        for (i, pair) in x.chunks_mut(2).enumerate() {
            let plain = 1.0 / base.powf(2.0 * i as f64 / dims);
            let frequency = match self.config.scaling {
                Scaling::None => plain,
                Scaling::Linear { factor } => plain / f64::from(factor),
                Scaling::Yarn { factor, original_context, beta_fast, beta_slow, .. } => {
                    let turns = |beta: f32| {
                        let wave = f64::from(beta) * 2.0 * std::f64::consts::PI;
                        dims * (original_context as f64 / wave).ln() / (2.0 * base.ln())
                    };
                    let low = turns(beta_fast).floor().max(0.0);
                    let high = turns(beta_slow).ceil().min(dims - 1.0);
                    let high = if low == high { low + 0.001 } else { high };
                    let keep = 1.0 - ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    plain / f64::from(factor) * (1.0 - keep) + plain * keep
                }
            };
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            let [a, b] = [pair[0], pair[1]];
            pair.copy_from_slice(&[a * cos - b * sin, a * sin + b * cos]);
        }
    }

    fn feed_forward(&self, layer: usize, x: &[f64]) -> Vec<f64> {
        let part = |part: &str| self.tensor(&format!("blk.{layer}.ffn_{part}.weight"));
        let Some(experts) =
            self.config.experts.as_ref().filter(|_| layer >= self.config.dense_layers)
        else {
            return mlp(&part("gate"), &part("up"), &part("down"), x);
        };
        let mut sum = match experts.shared {
            0 => vec![0.0; x.len()],
            _ => mlp(&part("gate_shexp"), &part("up_shexp"), &part("down_shexp"), x),
        };
        let bias = self.optional(&format!("blk.{layer}.exp_probs_b.bias"));
        let size = experts.width * x.len();
        let (gate, up) = match self.optional(&format!("blk.{layer}.ffn_gate_up_exps.weight")) {
            Some(both) => {
                let half = |at: usize| both.chunks(size).skip(at).step_by(2).collect::<Vec<_>>();
                (half(0).concat(), half(1).concat())
            }
            None => (part("gate_exps"), part("up_exps")),
        };
        let down = part("down_exps");
        let logits = multiply(&part("gate_inp"), x);
        for (expert, weight) in choose(experts, bias.as_deref(), &logits) {
            let range = expert * size..(expert + 1) * size;
            let y = mlp(&gate[range.clone()], &up[range.clone()], &down[range], x);
            add(&mut sum, weight, &y);
        }
        sum
    }
}

/// A token's experts and their weights.
fn choose(config: &ExpertConfig, bias: Option<&[f32]>, logits: &[f64]) -> Vec<(usize, f64)> {
    let scores = match config.gate {
        Gate::Softmax => softmax(logits),
        Gate::Sigmoid => logits.iter().map(|l| 1.0 / (1.0 + (-l).exp())).collect(),
    };
    let choice: Vec<f64> = match bias {
        Some(bias) => scores.iter().zip(bias).map(|(s, b)| s + f64::from(*b)).collect(),
        None => scores.clone(),
    };
    let mut allowed: Vec<usize> = (0..scores.len()).collect();
    if let Some(groups) = config.groups {
        let size = scores.len() / groups.count;
        let group_score = |&g: &usize| {
            let best = ranked(&choice, (g * size..(g + 1) * size).collect());
            best[..if bias.is_some() { 2 } else { 1 }].iter().map(|&e| choice[e]).sum::<f64>()
        };
        let group_scores: Vec<f64> =
            (0..groups.count).collect::<Vec<_>>().iter().map(group_score).collect();
        let best = ranked(&group_scores, (0..groups.count).collect());
        allowed = best[..groups.used].iter().flat_map(|g| g * size..(g + 1) * size).collect();
    }
    let picked = ranked(&choice, allowed)[..config.used].to_vec();
    let sum: f64 = picked.iter().map(|&expert| scores[expert]).sum();
    let divisor = if config.normalize { sum.max(f64::from(2f32.powi(-14))) } else { 1.0 };
    let scale = f64::from(config.scale) / divisor;
    picked.into_iter().map(|expert| (expert, scores[expert] * scale)).collect()
}

/// The indices, those of the largest scores first.
fn ranked(scores: &[f64], mut indices: Vec<usize>) -> Vec<usize> {
    indices.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    indices
}

fn mlp(gate: &[f32], up: &[f32], down: &[f32], x: &[f64]) -> Vec<f64> {
    let (gate, up) = (multiply(gate, x), multiply(up, x));
    let inner: Vec<f64> = gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
    multiply(down, &inner)
}

/// The product of a matrix with rows of `x.len()` numbers.
fn multiply(matrix: &[f32], x: &[f64]) -> Vec<f64> {
    let row = |row: &[f32]| row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum();
    matrix.chunks_exact(x.len()).map(row).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(sum: &mut [f64], weight: f64, x: &[f64]) {
    sum.iter_mut().zip(x).for_each(|(s, x)| *s += weight * x);
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let max = x.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    let exps: Vec<f64> = x.iter().map(|x| (x - max).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.into_iter().map(|e| e / sum).collect()
}

fn widened(row: &[f32]) -> Vec<f64> {
    row.iter().map(|&x| f64::from(x)).collect()
}
