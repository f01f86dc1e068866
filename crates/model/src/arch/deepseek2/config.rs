//! The sizes and switches of a `deepseek2` file: R1, V3, V3.1, Kimi-K2, V2, V2-Lite.
//!
//! Converters of two years disagree about which keys to write. What a file leaves out is supplied
//! from what the family's members have in common, and where R1 and V3 must be told from the others,
//! their shape tells: names are anybody's to choose.

use std::ops::Range;

use cachalot_gguf::{Metadata, Optional};
use cachalot_store::{TensorUse, Weights};

use crate::rope::Scaling;
use crate::{Error, ExpertShape, ModelOptions};

/// Sizes of a model; `[rows, cols]` of its matrices follow from them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// `general.name`, or nothing.
    pub name: String,
    /// Layers, without those that only predict further tokens.
    pub layers: usize,
    /// Width of the hidden state.
    pub hidden: usize,
    /// Tokens that the model was made for.
    pub context: usize,
    /// Query heads.
    pub heads: usize,
    /// Rank of the query projection; `None` if it is one full matrix.
    pub q_rank: Option<usize>,
    /// Numbers of the latent that a layer caches per token (`kv_lora_rank`).
    pub latent: usize,
    /// Part of a head's key that is not rotated.
    pub nope: usize,
    /// Rotated part, shared by all heads.
    pub rope: usize,
    /// A head's value.
    pub value: usize,
    /// Leading layers without experts.
    pub dense_layers: usize,
    /// Width of their feed-forward network.
    pub dense_width: usize,
    /// The other layers' experts; `None` if there are no such layers.
    pub experts: Option<ExpertConfig>,
    /// Added to the mean square in norms.
    pub epsilon: f32,
    /// Base of the rotations' frequencies.
    pub rope_base: f32,
    /// Stretching of the context by other frequencies.
    pub scaling: Scaling,
    /// Factor on `q · k` before softmax.
    pub attention_scale: f32,
    /// A further factor, by the position of the query.
    pub temperature: Option<Temperature>,
}

/// Attention temperature by position (Llama 4 and Mistral Large 3): queries from position `length`
/// on are multiplied with `1 + scale · ln(1 + floor(position / length))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperature {
    /// `attention.temperature_scale`.
    pub scale: f32,
    /// `attention.temperature_length`, or else the context before YaRN.
    pub length: usize,
}

impl Temperature {
    /// The factor on queries at a position.
    pub fn at(self, position: usize) -> f32 {
        1.0 + self.scale * ((1 + position / self.length) as f32).ln()
    }
}

/// Experts of a layer, and how they are chosen.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExpertConfig {
    /// Routed experts.
    pub count: usize,
    /// How many of them a token gets.
    pub used: usize,
    /// Shared experts, stored as one of their joint width.
    pub shared: usize,
    /// Width of each expert.
    pub width: usize,
    /// Groups within which experts are chosen.
    pub groups: Option<Groups>,
    /// From the router's products to scores.
    pub gate: Gate,
    /// Whether the weights of a token's experts are made to sum to one.
    pub normalize: bool,
    /// Factor on the weights.
    pub scale: f32,
}

/// Experts are chosen from the best groups only, `used` of `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Groups, of equal size.
    pub count: usize,
    /// Groups to choose from.
    pub used: usize,
}

/// How the router scores experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Over all experts (V2).
    Softmax,
    /// Each for itself (V3, R1, Kimi-K2).
    Sigmoid,
}

/// What a caller may ask for in place of what the file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpertGroups {
    /// As the file says; the reference's 8 groups, 4 used, for files of R1's or V3's shape that
    /// say nothing.
    #[default]
    Auto,
    /// No groups, as runtimes do that ignore them.
    Off,
    /// These.
    Of(Groups),
}

impl Config {
    /// The sizes of a model as it would be loaded with these options.
    ///
    /// # Errors
    /// If the architecture is another, a key is missing or impossible, or an option does not fit.
    pub fn of(weights: &Weights, options: &ModelOptions) -> Result<Self, Error> {
        crate::arch::check(weights)?;
        Self::new(weights, options.expert_groups, options.experts)
    }

    /// Reads and checks the keys of a file.
    ///
    /// # Errors
    /// If a key is missing, or a value impossible or contrary to another; the key is named.
    pub(crate) fn new(
        weights: &Weights,
        groups: ExpertGroups,
        active: Option<usize>,
    ) -> Result<Self, Error> {
        let has = |name: &str| weights.tensor(name).is_some();
        Self::of_header(weights.metadata(), &has, groups, active)
    }

    /// [`new`](Self::new) from a header: `has` says which tensors there are.
    pub(super) fn of_header(
        metadata: &Metadata,
        has: &dyn Fn(&str) -> bool,
        groups: ExpertGroups,
        active: Option<usize>,
    ) -> Result<Self, Error> {
        let keys = Keys { metadata, has };
        let hidden = keys.size("embedding_length")?;
        let latent = keys.size("attention.kv_lora_rank")?;
        let rope = keys.size("rope.dimension_count")?;
        keys.check("rope.dimension_count", rope, "an even number", rope % 2 == 0)?;
        let (key_name, key, value) = keys.head()?;
        keys.check(key_name, key, "more than rope.dimension_count", key > rope)?;
        let layers = keys.layers()?;
        let dense_layers = keys.optional_size("leading_dense_block_count")?.unwrap_or(0);
        let experts = match keys.optional_size("expert_count")? {
            Some(count) if count > 0 && dense_layers < layers => {
                Some(keys.experts(count, dense_layers)?)
            }
            _ if active.is_some() => return Err(Error::NoExperts),
            _ => None,
        };
        let is_v3 = experts.as_ref().is_some_and(|experts| is_v3(hidden, experts));
        let scaling = keys.scaling(is_v3)?;
        let mut config = Self {
            name: metadata.str("general.name").unwrap_or_default().to_owned(),
            layers,
            hidden,
            context: keys.size("context_length")?,
            heads: keys.size("attention.head_count")?,
            q_rank: keys.optional_size("attention.q_lora_rank")?.filter(|&rank| rank > 0),
            latent,
            nope: key - rope,
            rope,
            value,
            dense_layers: if experts.is_some() { dense_layers } else { layers },
            dense_width: if dense_layers > 0 || experts.is_none() {
                keys.size("feed_forward_length")?
            } else {
                0
            },
            experts,
            epsilon: keys.epsilon()?,
            rope_base: keys.rope_base()?,
            scaling,
            attention_scale: attention_scale(key, &scaling),
            temperature: keys.temperature()?,
        };
        if let Some(experts) = &mut config.experts {
            experts.choose_active(active)?;
            experts.choose_groups(groups, is_v3)?;
        }
        Ok(config)
    }

    /// The layers with routed experts; none if the model has no such layers.
    pub fn expert_shape(&self) -> ExpertShape {
        self.expert_shape_of(&(0..self.layers))
    }

    /// Those of some layers only, counted from the model's first.
    pub fn expert_shape_of(&self, layers: &Range<usize>) -> ExpertShape {
        let experts = self.experts.as_ref();
        ExpertShape {
            layers: layers.start.max(self.dense_layers)..layers.end.max(self.dense_layers),
            count: experts.map_or(0, |experts| experts.count),
            used: experts.map_or(0, |experts| experts.used),
            width: experts.map_or(0, |experts| experts.width),
            shared_width: experts.map_or(0, |experts| experts.width * experts.shared),
            hidden: self.hidden,
        }
    }

    /// How the tensor `name` is used if routed experts are streamed. Layers that predict further
    /// tokens are not computed.
    pub fn tensor_use(&self, name: &str) -> TensorUse {
        let block = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        let layer = block.and_then(|(number, _)| number.parse::<usize>().ok());
        match layer {
            Some(layer) if layer >= self.layers => TensorUse::Unused,
            Some(_) if name.ends_with("_exps.weight") => TensorUse::Streamed,
            _ => TensorUse::Loaded,
        }
    }

    /// Numbers of a row of the cache.
    pub(crate) fn cache_width(&self) -> usize {
        self.latent + self.rope
    }
}

/// `m² / sqrt(key)`, `m = 0.1 · mscale_all_dim · ln(factor) + 1`, at every position (DeepSeek-V3's
/// `inference/model.py`). The magnitude of YaRN's own cosines is 1, as `mscale = mscale_all_dim`.
fn attention_scale(key: usize, scaling: &Scaling) -> f32 {
    let m = match *scaling {
        Scaling::Yarn { factor, log_multiplier, .. } => 1.0 + log_multiplier * factor.ln(),
        _ => 1.0,
    };
    m * m / (key as f32).sqrt()
}

/// The name of a layer's selection bias, if it has one: converters wrote it in two ways.
pub(super) fn bias_name(layer: usize, has: impl Fn(&str) -> bool) -> Option<String> {
    let names = [format!("blk.{layer}.exp_probs_b.bias"), format!("blk.{layer}.exp_probs_b")];
    names.into_iter().find(|name| has(name))
}

/// DeepSeek-V3 and R1: the only models of this width with 256 experts.
fn is_v3(hidden: usize, experts: &ExpertConfig) -> bool {
    hidden == 7168 && experts.count == 256 && experts.gate == Gate::Sigmoid
}

impl ExpertConfig {
    fn choose_active(&mut self, active: Option<usize>) -> Result<(), Error> {
        let asked = active.unwrap_or(self.used);
        if !(1..=self.count).contains(&asked) {
            return Err(Error::ActiveExperts { asked, count: self.count });
        }
        self.used = asked;
        Ok(())
    }

    fn choose_groups(&mut self, asked: ExpertGroups, is_v3: bool) -> Result<(), Error> {
        let groups = match asked {
            ExpertGroups::Off => None,
            ExpertGroups::Of(groups) => Some(groups),
            ExpertGroups::Auto if self.groups.is_none() && is_v3 => {
                Some(Groups { count: 8, used: 4 })
            }
            ExpertGroups::Auto => self.groups,
        };
        // One group, or all of them, leaves nothing to choose.
        self.groups = groups.filter(|groups| groups.count != 1 && groups.used != groups.count);
        let Some(Groups { count, used }) = self.groups else { return Ok(()) };
        let equal = count > 0 && self.count.is_multiple_of(count);
        if !equal || !(1..=count).contains(&used) || used * (self.count / count) < self.used {
            let (experts, active) = (self.count, self.used);
            return Err(Error::ExpertGroups { groups: count, used, count: experts, active });
        }
        Ok(())
    }
}

/// Typed access to the architecture's keys.
#[derive(Clone, Copy)]
struct Keys<'a> {
    metadata: &'a Metadata,
    has: &'a dyn Fn(&str) -> bool,
}

impl Keys<'_> {
    /// No size of a model comes near this; products of two never overflow.
    const SIZE_MAX: u64 = 1 << 28;

    /// A size, not zero.
    fn size(&self, key: &str) -> Result<usize, Error> {
        let size = self.metadata.arch_u64(key)?;
        self.check(key, size, "a size from 1 to 2^28", (1..=Self::SIZE_MAX).contains(&size))?;
        Ok(size as usize)
    }

    /// A size that may be zero or missing.
    fn optional_size(&self, key: &str) -> Result<Option<usize>, Error> {
        let Some(size) = self.metadata.arch_u64(key).optional()? else { return Ok(None) };
        self.check(key, size, "a size up to 2^28", size <= Self::SIZE_MAX)?;
        Ok(Some(size as usize))
    }

    fn float(&self, key: &str, default: f32) -> Result<f32, Error> {
        let float = self.metadata.arch_f32(key).optional()?.unwrap_or(default);
        self.check(key, float, "a finite number", float.is_finite())?;
        Ok(float)
    }

    fn check(
        &self,
        key: &str,
        found: impl Copy + ToString,
        expected: &str,
        holds: bool,
    ) -> Result<(), Error> {
        if holds {
            return Ok(());
        }
        let (expected, found) = (expected.to_owned(), found.to_string());
        Err(Error::Key { key: self.metadata.arch_key(key)?, expected, found })
    }

    /// Blocks that lead from token to next token. The ones after them predict further tokens and
    /// have `nextn` tensors: some files count them in `block_count` and some do not, whatever
    /// `nextn_predict_layers` says.
    fn layers(&self) -> Result<usize, Error> {
        let blocks = self.size("block_count")?;
        let predicts = |block: usize| {
            let parts = ["eh_proj", "enorm", "hnorm", "embed_tokens", "shared_head_head"];
            parts.iter().any(|part| (self.has)(&format!("blk.{block}.nextn.{part}.weight")))
        };
        let layers = (0..blocks).find(|block| predicts(*block)).unwrap_or(blocks);
        self.check("block_count", blocks, "more than the blocks with nextn tensors", layers > 0)?;
        Ok(layers)
    }

    fn temperature(&self) -> Result<Option<Temperature>, Error> {
        let scale = self.float("attention.temperature_scale", 0.0)?;
        if scale == 0.0 {
            return Ok(None);
        }
        let length = match self.optional_size("attention.temperature_length")? {
            Some(length) if length > 0 => length,
            _ => self.size("rope.scaling.original_context_length")?,
        };
        Ok(Some(Temperature { scale, length }))
    }

    /// Key and value length of one head. Files in the layout of 2025 give those of the absorbed
    /// form in the old keys, and the real ones in keys with `_mla`.
    fn head(&self) -> Result<(&'static str, usize, usize), Error> {
        let key = self.optional_size("attention.key_length_mla")?.unwrap_or(0);
        let value = self.optional_size("attention.value_length_mla")?.unwrap_or(0);
        if key > 0 && value > 0 {
            return Ok(("attention.key_length_mla", key, value));
        }
        let key = self.size("attention.key_length")?;
        Ok(("attention.key_length", key, self.size("attention.value_length")?))
    }

    fn epsilon(&self) -> Result<f32, Error> {
        let key = "attention.layer_norm_rms_epsilon";
        let epsilon = self.metadata.arch_f32(key)?;
        self.check(key, epsilon, "a number from 0 to 1", (0.0..=1.0).contains(&epsilon))?;
        Ok(epsilon)
    }

    fn rope_base(&self) -> Result<f32, Error> {
        let base = self.float("rope.freq_base", 10_000.0)?;
        self.check("rope.freq_base", base, "a number above 1", base > 1.0)?;
        Ok(base)
    }

    fn experts(&self, count: usize, first: usize) -> Result<ExpertConfig, Error> {
        let has_bias = bias_name(first, self.has);
        let gate = match self.optional_size("expert_gating_func")?.unwrap_or(0) {
            // Before the key existed, only V2 had a softmax and only V3 a bias.
            0 if has_bias.is_some() => Gate::Sigmoid,
            0 | 1 => Gate::Softmax,
            2 => Gate::Sigmoid,
            other => {
                let expected = "1 (softmax) or 2 (sigmoid)".to_owned();
                let key = self.metadata.arch_key("expert_gating_func")?;
                return Err(Error::Key { key, expected, found: other.to_string() });
            }
        };
        let normalize = self.metadata.arch_bool("expert_weights_norm").optional()?;
        let scale = self.float("expert_weights_scale", 1.0)?;
        let groups = match self.optional_size("expert_group_count")? {
            Some(count) if count > 1 => {
                Some(Groups { count, used: self.size("expert_group_used_count")? })
            }
            _ => None,
        };
        Ok(ExpertConfig {
            count,
            used: self.size("expert_used_count")?,
            shared: self.optional_size("expert_shared_count")?.unwrap_or(0),
            width: self.size("expert_feed_forward_length")?,
            groups,
            gate,
            normalize: normalize.unwrap_or(gate == Gate::Sigmoid),
            // Zero is how some converters write "none".
            scale: if scale == 0.0 { 1.0 } else { scale },
        })
    }

    fn scaling(&self, is_v3: bool) -> Result<Scaling, Error> {
        let kind = self.metadata.arch_str("rope.scaling.type").optional()?.unwrap_or("none");
        if kind == "none" {
            return Ok(Scaling::None);
        }
        let factor = self.metadata.arch_f32("rope.scaling.factor")?;
        let fits = factor.is_finite() && factor >= 1.0;
        self.check("rope.scaling.factor", factor, "a factor from 1 on", fits)?;
        match kind {
            "linear" => Ok(Scaling::Linear { factor }),
            "yarn" => Ok(Scaling::Yarn {
                factor,
                original_context: self.size("rope.scaling.original_context_length")?,
                beta_fast: self.float("rope.scaling.yarn_beta_fast", 32.0)?,
                beta_slow: self.float("rope.scaling.yarn_beta_slow", 1.0)?,
                // The first converters left it out; without it R1's attention is too flat.
                log_multiplier: self
                    .float("rope.scaling.yarn_log_multiplier", if is_v3 { 0.1 } else { 0.0 })?,
            }),
            other => {
                let expected = "none, linear or yarn".to_owned();
                let key = self.metadata.arch_key("rope.scaling.type")?;
                Err(Error::Key { key, expected, found: other.to_owned() })
            }
        }
    }
}

#[cfg(test)]
mod tests;
