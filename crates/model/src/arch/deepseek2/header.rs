//! Whether a header describes a model that is computed here as it was meant: every tensor that is
//! needed is there, with its shape and a known format, and nothing is there that would change the
//! result and is not implemented.

use std::collections::{HashMap, HashSet};

use cachalot_gguf::{Metadata, Optional, TensorInfo, Value};

use super::config::{Config, ExpertGroups, bias_name};
use crate::Error;
use crate::bind::format_of;

/// Checks a header without loading anything. Returns what to tell the user of parts that are
/// ignored.
///
/// # Errors
/// What loading the model would report.
pub(crate) fn check<'a>(
    metadata: &Metadata,
    tensors: impl IntoIterator<Item = &'a TensorInfo>,
) -> Result<Vec<String>, Error> {
    let tensors: HashMap<&str, &TensorInfo> =
        tensors.into_iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let has = |name: &str| tensors.contains_key(name);
    let config = Config::of_header(metadata, &has, ExpertGroups::Auto, None)?;
    unimplemented_keys(metadata)?;
    let mut needed = Needed { metadata, tensors: &tensors, used: HashSet::new() };
    needed.model(&config)?;
    needed.others(&config)
}

/// Keys of other members of the family that change the computation, with the value that changes
/// nothing.
const UNIMPLEMENTED: [(&str, f64); 25] = [
    ("attention.sliding_window", 0.0),
    ("attention.indexer.head_count", 0.0),
    ("attention.indexer.key_length", 0.0),
    ("attention.indexer.top_k", 0.0),
    ("attention.clamp_kqv", 0.0),
    ("attention.max_alibi_bias", 0.0),
    ("attention.scale", 0.0),
    ("attention.output_scale", 0.0),
    ("attention.value_scale", 0.0),
    ("attention.shared_kv_layers", 0.0),
    ("attn_logit_softcapping", 0.0),
    ("router_logit_softcapping", 0.0),
    ("final_logit_softcapping", 0.0),
    ("logit_scale", 0.0),
    ("residual_scale", 0.0),
    ("embedding_scale", 0.0),
    ("embedding_length_per_layer_input", 0.0),
    ("expert_group_scale", 0.0),
    ("experts_per_group", 0.0),
    ("interleave_moe_layer_step", 1.0),
    ("moe_every_n_layers", 0.0),
    ("moe_latent_size", 0.0),
    ("swiglu_clamp_exp", 0.0),
    ("swiglu_clamp_shexp", 0.0),
    ("rope.scale_linear", 1.0),
];

fn unimplemented_keys(metadata: &Metadata) -> Result<(), Error> {
    for (key, neutral) in UNIMPLEMENTED {
        let key = metadata.arch_key(key)?;
        let Some(value) = metadata.get(&key) else { continue };
        let number = match value {
            Value::Array(array) if array.is_empty() => continue,
            Value::Bool(bool) => Some(f64::from(*bool)),
            Value::Array(_) | Value::String(_) => None,
            Value::F32(_) | Value::F64(_) => metadata.f32(&key).optional()?.map(f64::from),
            _ => metadata.u64(&key).ok().map(|number| number as f64),
        };
        // One is as neutral for a factor as leaving it out.
        let is_factor = key.ends_with("scale");
        if number == Some(neutral) || number == Some(0.0) || (is_factor && number == Some(1.0)) {
            continue;
        }
        return Err(Error::UnimplementedKey { key, found: value.to_string() });
    }
    if metadata.bool(&metadata.arch_key("attention.causal")?).optional()? == Some(false) {
        let key = metadata.arch_key("attention.causal")?;
        return Err(Error::UnimplementedKey { key, found: "false".to_owned() });
    }
    Ok(())
}

/// The tensors of a file that the computation needs.
struct Needed<'a> {
    metadata: &'a Metadata,
    tensors: &'a HashMap<&'a str, &'a TensorInfo>,
    used: HashSet<String>,
}

/// Shape of one tensor or of several alike in one: `[cols, rows, count]`.
#[derive(Clone, Copy)]
struct Shape {
    count: usize,
    rows: usize,
    cols: usize,
}

impl Needed<'_> {
    fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn tensor(&mut self, name: &str) -> Result<&TensorInfo, Error> {
        let missing = || Error::MissingTensor {
            tensor: name.to_owned(),
            arch: self.metadata.arch().unwrap_or_default().to_owned(),
        };
        let tensor = *self.tensors.get(name).ok_or_else(missing)?;
        self.used.insert(name.to_owned());
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        self.used.extend([format!("{stem}.scale"), format!("{name}.scale")]);
        format_of(tensor)?;
        Ok(tensor)
    }

    fn matrix(&mut self, name: &str, Shape { count, rows, cols }: Shape) -> Result<(), Error> {
        let tensor = self.tensor(name)?;
        if tensor.cols() != cols as u64 || tensor.rows() != (rows * count) as u64 {
            let mut expected = vec![cols as u64, rows as u64];
            expected.extend((count > 1).then_some(count as u64));
            return Err(shape(tensor, expected));
        }
        Ok(())
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<(), Error> {
        let tensor = self.tensor(name)?;
        if tensor.elements() != len as u64 {
            return Err(shape(tensor, vec![len as u64]));
        }
        Ok(())
    }

    fn model(&mut self, config: &Config) -> Result<(), Error> {
        let hidden = config.hidden;
        let vocabulary = self.tensor("token_embd.weight")?.rows() as usize;
        let embedding = Shape { count: 1, rows: vocabulary, cols: hidden };
        self.matrix("token_embd.weight", embedding)?;
        if self.has("output.weight") {
            self.matrix("output.weight", embedding)?;
        }
        self.vector("output_norm.weight", hidden)?;
        for layer in 0..config.layers {
            self.attention(layer, config)?;
            self.vector(&format!("blk.{layer}.ffn_norm.weight"), hidden)?;
            if layer < config.dense_layers {
                self.mlp(layer, "", hidden, config.dense_width)?;
            } else {
                self.experts(layer, config)?;
            }
        }
        Ok(())
    }

    fn attention(&mut self, layer: usize, config: &Config) -> Result<(), Error> {
        let &Config { hidden, heads, nope, rope, latent, value, q_rank, .. } = config;
        let name = |part: &str| format!("blk.{layer}.attn_{part}.weight");
        let one = |rows, cols| Shape { count: 1, rows, cols };
        let queries = heads * (nope + rope);
        self.vector(&name("norm"), hidden)?;
        match q_rank {
            None => self.matrix(&name("q"), one(queries, hidden))?,
            Some(rank) => {
                self.matrix(&name("q_a"), one(rank, hidden))?;
                self.vector(&name("q_a_norm"), rank)?;
                self.matrix(&name("q_b"), one(queries, rank))?;
            }
        }
        self.matrix(&name("kv_a_mqa"), one(latent + rope, hidden))?;
        self.vector(&name("kv_a_norm"), latent)?;
        let both = self.has(&name("kv_b"));
        if both {
            self.matrix(&name("kv_b"), Shape { count: heads, rows: nope + value, cols: latent })?;
        }
        if !both || self.has(&name("k_b")) {
            self.matrix(&name("k_b"), Shape { count: heads, rows: latent, cols: nope })?;
        }
        if !both || self.has(&name("v_b")) {
            self.matrix(&name("v_b"), Shape { count: heads, rows: value, cols: latent })?;
        }
        self.matrix(&name("output"), one(hidden, heads * value))
    }

    fn mlp(&mut self, layer: usize, kind: &str, hidden: usize, width: usize) -> Result<(), Error> {
        let name = |part: &str| format!("blk.{layer}.ffn_{part}{kind}.weight");
        let inner = Shape { count: 1, rows: width, cols: hidden };
        self.matrix(&name("gate"), inner)?;
        self.matrix(&name("up"), inner)?;
        self.matrix(&name("down"), Shape { count: 1, rows: hidden, cols: width })
    }

    fn experts(&mut self, layer: usize, config: &Config) -> Result<(), Error> {
        let Some(experts) = &config.experts else { return Ok(()) };
        let (hidden, count, width) = (config.hidden, experts.count, experts.width);
        let name = |part: &str| format!("blk.{layer}.ffn_{part}.weight");
        self.matrix(&name("gate_inp"), Shape { count: 1, rows: count, cols: hidden })?;
        if let Some(bias) = bias_name(layer, |name| self.has(name)) {
            self.vector(&bias, count)?;
        }
        if self.has(&name("gate_up_exps")) {
            self.matrix(&name("gate_up_exps"), Shape { count, rows: 2 * width, cols: hidden })?;
        } else {
            self.matrix(&name("gate_exps"), Shape { count, rows: width, cols: hidden })?;
            self.matrix(&name("up_exps"), Shape { count, rows: width, cols: hidden })?;
        }
        self.matrix(&name("down_exps"), Shape { count, rows: hidden, cols: width })?;
        match experts.width * experts.shared {
            0 => Ok(()),
            width => self.mlp(layer, "_shexp", hidden, width),
        }
    }

    /// Tensors that nothing uses: within a layer they would change its result; elsewhere they are
    /// reported.
    fn others(&self, config: &Config) -> Result<Vec<String>, Error> {
        let mut names: Vec<&str> =
            self.tensors.keys().filter(|name| !self.used.contains(**name)).copied().collect();
        names.sort_unstable();
        let mut ignored = Vec::new();
        for name in names {
            let block = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
            match block.and_then(|(number, _)| number.parse::<usize>().ok()) {
                // Layers that predict further tokens.
                Some(layer) if layer >= config.layers => {}
                Some(_) => return Err(Error::UnknownTensor { tensor: name.to_owned() }),
                None if name.ends_with(".bias") || name.starts_with("rope_f") => {
                    return Err(Error::UnknownTensor { tensor: name.to_owned() });
                }
                None => ignored.push(name),
            }
        }
        Ok(match ignored[..] {
            [] => Vec::new(),
            [one] => vec![format!("the tensor `{one}` is not used")],
            [first, ..] => {
                vec![format!("{} tensors are not used, such as `{first}`", ignored.len())]
            }
        })
    }
}

fn shape(tensor: &TensorInfo, expected: Vec<u64>) -> Error {
    Error::Shape { tensor: tensor.name.clone(), expected, found: tensor.shape.clone() }
}
