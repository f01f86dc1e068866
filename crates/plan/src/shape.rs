//! The published models of the architecture `deepseek2`, as the numbers that make their tensors.
//!
//! From these the full tensor list follows, so a model can be recognized by its shape, and planned
//! for before a byte of it is downloaded. Figures: the `config.json` published with each model.

use cachalot_gguf::{Error, Metadata, TensorInfo, TensorType};

/// The numbers of a `deepseek2` model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Shape {
    pub layers: u64,
    /// Leading layers with a dense feed-forward network instead of experts.
    pub dense_layers: u64,
    pub hidden: u64,
    pub heads: u64,
    /// Rank of the query's compression; 0 if queries are not compressed.
    pub q_lora: u64,
    /// Rank of the latent that keys and values are made from.
    pub kv_lora: u64,
    /// Per head: dimensions of query and key without position, with it, and of the value.
    pub nope: u64,
    pub rope: u64,
    pub v: u64,
    pub dense_ff: u64,
    pub expert_ff: u64,
    pub experts: u64,
    pub experts_used: u64,
    pub shared: u64,
    /// Whether a learned bias takes part in selecting experts, as in all models from V3 on.
    pub selection_bias: bool,
    pub vocab: u64,
    pub context: u64,
}

/// Which tensors hold the up-projection of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One tensor `attn_kv_b`, as converters wrote until spring 2025.
    Legacy,
    /// `attn_k_b`, transposed for the absorbed form, and `attn_v_b`.
    Absorbed,
    /// All three, as converters of `ik_llama.cpp` write.
    Both,
}

impl Shape {
    /// DeepSeek-V3, V3-0324, V3.1, R1 and R1-0528.
    pub const DEEPSEEK_V3: Self = Self {
        layers: 61,
        dense_layers: 3,
        hidden: 7168,
        heads: 128,
        q_lora: 1536,
        kv_lora: 512,
        nope: 128,
        rope: 64,
        v: 128,
        dense_ff: 18432,
        expert_ff: 2048,
        experts: 256,
        experts_used: 8,
        shared: 1,
        selection_bias: true,
        vocab: 129_280,
        context: 163_840,
    };

    /// Kimi-K2 and its successors of the same shape.
    pub const KIMI_K2: Self = Self {
        dense_layers: 1,
        heads: 64,
        experts: 384,
        vocab: 163_840,
        context: 131_072,
        ..Self::DEEPSEEK_V3
    };

    /// DeepSeek-V2, V2.5 and Coder-V2.
    pub const DEEPSEEK_V2: Self = Self {
        layers: 60,
        dense_layers: 1,
        hidden: 5120,
        dense_ff: 12288,
        expert_ff: 1536,
        experts: 160,
        experts_used: 6,
        shared: 2,
        selection_bias: false,
        vocab: 102_400,
        ..Self::DEEPSEEK_V3
    };

    /// DeepSeek-V2-Lite and Coder-V2-Lite.
    pub const DEEPSEEK_V2_LITE: Self = Self {
        layers: 27,
        hidden: 2048,
        heads: 16,
        q_lora: 0,
        dense_ff: 10944,
        expert_ff: 1408,
        experts: 64,
        ..Self::DEEPSEEK_V2
    };

    /// The metadata that a converter writes about these numbers, and no others.
    pub fn metadata(&self, layout: Layout) -> Metadata {
        let absorbed = layout == Layout::Absorbed;
        let mut metadata = Metadata::default();
        metadata.insert("general.architecture", "deepseek2");
        let (key_length, value_length) = (self.nope + self.rope, self.v);
        let keys = [
            ("block_count", self.layers),
            ("context_length", self.context),
            ("embedding_length", self.hidden),
            ("feed_forward_length", self.dense_ff),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", if absorbed { 1 } else { self.heads }),
            ("attention.key_length", if absorbed { self.kv_lora + self.rope } else { key_length }),
            ("attention.value_length", if absorbed { self.kv_lora } else { value_length }),
            ("attention.key_length_mla", if absorbed { key_length } else { 0 }),
            ("attention.value_length_mla", if absorbed { value_length } else { 0 }),
            ("attention.q_lora_rank", self.q_lora),
            ("attention.kv_lora_rank", self.kv_lora),
            ("rope.dimension_count", self.rope),
            ("leading_dense_block_count", self.dense_layers),
            ("expert_count", self.experts),
            ("expert_used_count", self.experts_used),
            ("expert_shared_count", self.shared),
            ("expert_feed_forward_length", self.expert_ff),
            ("vocab_size", self.vocab),
        ];
        for (key, number) in keys.into_iter().filter(|(_, number)| *number > 0) {
            metadata.insert(&format!("deepseek2.{key}"), number as u32);
        }
        metadata
    }

    /// Number of weights, those that would only predict further tokens not counted.
    pub fn parameters(&self) -> u64 {
        // F32 fits every shape, and no shape here comes near the limits of counting.
        let tensors = self.tensors(Layout::Absorbed, |_| TensorType::F32).unwrap_or_default();
        tensors.iter().map(TensorInfo::elements).sum()
    }

    /// Every tensor of the model, without places. `ty` chooses the type of the matrices by tensor
    /// name; norms, router and bias are F32 as in every published file.
    ///
    /// # Errors
    /// If rows of a matrix are no whole number of blocks of the type that `ty` chose for it.
    pub fn tensors(
        &self,
        layout: Layout,
        ty: impl Fn(&str) -> TensorType,
    ) -> Result<Vec<TensorInfo>, Error> {
        let mut tensors = Vec::new();
        let mut add = |name: &str, shape: &[u64]| {
            let plain = shape.len() == 1 || name.contains("ffn_gate_inp");
            let ty = if plain { TensorType::F32 } else { ty(name) };
            tensors.push(TensorInfo::new(name, ty, shape)?);
            Ok(())
        };
        add("token_embd.weight", &[self.hidden, self.vocab])?;
        for layer in 0..self.layers {
            let mut in_block =
                |name: &str, shape: &[u64]| add(&format!("blk.{layer}.{name}"), shape);
            self.attention(layout, &mut in_block)?;
            if layer < self.dense_layers {
                self.dense(&mut in_block)?;
            } else {
                self.experts(&mut in_block)?;
            }
        }
        add("output_norm.weight", &[self.hidden])?;
        add("output.weight", &[self.hidden, self.vocab])?;
        Ok(tensors)
    }

    fn attention(&self, layout: Layout, add: &mut Add<'_>) -> Result<(), Error> {
        let Self { hidden, heads, q_lora, kv_lora, nope, rope, v, .. } = *self;
        add("attn_norm.weight", &[hidden])?;
        if q_lora == 0 {
            add("attn_q.weight", &[hidden, heads * (nope + rope)])?;
        } else {
            add("attn_q_a.weight", &[hidden, q_lora])?;
            add("attn_q_a_norm.weight", &[q_lora])?;
            add("attn_q_b.weight", &[q_lora, heads * (nope + rope)])?;
        }
        add("attn_kv_a_mqa.weight", &[hidden, kv_lora + rope])?;
        add("attn_kv_a_norm.weight", &[kv_lora])?;
        if layout != Layout::Absorbed {
            add("attn_kv_b.weight", &[kv_lora, heads * (nope + v)])?;
        }
        if layout != Layout::Legacy {
            add("attn_k_b.weight", &[nope, kv_lora, heads])?;
            add("attn_v_b.weight", &[kv_lora, v, heads])?;
        }
        add("attn_output.weight", &[heads * v, hidden])
    }

    fn dense(&self, add: &mut Add<'_>) -> Result<(), Error> {
        add("ffn_norm.weight", &[self.hidden])?;
        add("ffn_gate.weight", &[self.hidden, self.dense_ff])?;
        add("ffn_up.weight", &[self.hidden, self.dense_ff])?;
        add("ffn_down.weight", &[self.dense_ff, self.hidden])
    }

    fn experts(&self, add: &mut Add<'_>) -> Result<(), Error> {
        let Self { hidden, expert_ff, experts, shared, .. } = *self;
        add("ffn_norm.weight", &[hidden])?;
        add("ffn_gate_inp.weight", &[hidden, experts])?;
        if self.selection_bias {
            add("exp_probs_b.bias", &[experts])?;
        }
        add("ffn_gate_exps.weight", &[hidden, expert_ff, experts])?;
        add("ffn_up_exps.weight", &[hidden, expert_ff, experts])?;
        add("ffn_down_exps.weight", &[expert_ff, hidden, experts])?;
        add("ffn_gate_shexp.weight", &[hidden, expert_ff * shared])?;
        add("ffn_up_shexp.weight", &[hidden, expert_ff * shared])?;
        add("ffn_down_shexp.weight", &[expert_ff * shared, hidden])
    }
}

/// Takes a tensor's name within its block and its shape.
type Add<'a> = dyn FnMut(&str, &[u64]) -> Result<(), Error> + 'a;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensor_counts_are_those_of_published_files() {
        let count = |layout| {
            let tensors = Shape::DEEPSEEK_V3.tensors(layout, |_| TensorType::Q8_0).unwrap();
            let plain = tensors.iter().filter(|tensor| tensor.ty == TensorType::F32).count();
            (tensors.len(), plain)
        };
        assert_eq!(count(Layout::Legacy), (1025, 361));
        assert_eq!(count(Layout::Absorbed), (1086, 361));
        assert_eq!(count(Layout::Both), (1147, 361));
    }

    #[test]
    fn a_type_whose_blocks_do_not_fit_is_an_error() {
        let all_q4 = Shape::DEEPSEEK_V3.tensors(Layout::Absorbed, |_| TensorType::Q4_K);
        assert!(
            matches!(all_q4, Err(Error::RaggedRow { cols: 128, .. })),
            "attn_k_b has 128 columns"
        );
    }
}
