//! What a model demands of a machine: how many bytes it has, how many of them each token reads, and
//! how fast its cache grows. UnpackCost is bound by the second number, whatever the first.
//!
//! The tensor list is the truth here and the metadata only say what tensors cannot: how many of the
//! experts are used. What a file does not say is `None`: any architecture is described as far as it
//! goes.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use cachalot_gguf::{Array, KvType, Metadata, TensorInfo, TensorType, Value};
use serde::Serialize;

/// What part of a model a tensor belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TensorGroup {
    /// Experts of which the router picks some for each token.
    RoutedExperts,
    /// Experts that every token passes.
    SharedExperts,
    /// Projections of attention.
    Attention,
    /// Feed-forward networks without experts.
    DenseFfn,
    /// Norms, routers and their biases: small, mostly F32.
    NormsRouter,
    /// The token embedding, of which a token reads one row.
    Embedding,
    /// The projection to the vocabulary.
    Head,
    /// Blocks that predict further tokens; plain decoding never reads them.
    Prediction,
    /// Anything else.
    Other,
}

impl TensorGroup {
    /// The group's name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoutedExperts => "routed experts",
            Self::SharedExperts => "shared experts",
            Self::Attention => "attention",
            Self::DenseFfn => "dense FFN",
            Self::NormsRouter => "norms, router",
            Self::Embedding => "embedding",
            Self::Head => "head",
            Self::Prediction => "token prediction",
            Self::Other => "other",
        }
    }

    /// The group of the tensor `part` within its block, or of one outside of all blocks.
    fn of(part: &str) -> Self {
        let stem = part.split('.').next().unwrap_or(part);
        let each_expert = || part.split('.').nth(1).is_some_and(|e| e.parse::<u32>().is_ok());
        match stem {
            "token_embd" => Self::Embedding,
            "output" => Self::Head,
            "nextn" => Self::Prediction,
            "exp_probs_b" | "ffn_gate_inp" | "ffn_gate_inp_shexp" => Self::NormsRouter,
            _ if stem.contains("norm") => Self::NormsRouter,
            _ if stem.starts_with("ffn_") && stem.ends_with("exps") => Self::RoutedExperts,
            _ if stem.starts_with("ffn_") && stem.ends_with("shexp") => Self::SharedExperts,
            // Mixtral files of 2023 have one tensor for each expert: `ffn_gate.7.weight`.
            _ if stem.starts_with("ffn_") && each_expert() => Self::RoutedExperts,
            _ if stem.starts_with("ffn_") => Self::DenseFfn,
            _ if stem.starts_with("attn_") => Self::Attention,
            _ => Self::Other,
        }
    }
}

/// A sum over tensors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Number of tensors.
    pub tensors: u64,
    /// Weights; those that a file holds twice count once.
    pub parameters: u64,
    /// Bytes in the file.
    pub bytes: u64,
    /// Weights that take part in computing one token.
    pub active_parameters: u64,
    /// Bytes that decoding one token reads.
    pub bytes_per_token: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.tensors += other.tensors;
        self.parameters += other.parameters;
        self.bytes += other.bytes;
        self.active_parameters += other.active_parameters;
        self.bytes_per_token += other.bytes_per_token;
    }
}

/// The layers of a model; those that only predict further tokens are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Layers {
    pub total: u64,
    pub dense: u64,
    pub moe: u64,
}

/// The experts of each MoE layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Experts {
    /// Routed experts.
    pub total: u64,
    /// How many of them a token uses.
    pub used: u64,
    /// Experts that every token uses besides.
    pub shared: u64,
    /// Groups of experts, and how many of them a token may pick from; 1 of 1 if there are none.
    pub groups: u64,
    /// See `groups`.
    pub groups_used: u64,
}

/// The cache of keys and values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cache {
    /// Whether it holds the latent of multi-head latent attention instead of keys and values.
    pub latent: bool,
    /// For each layer the lengths of the vectors that a token adds.
    #[serde(skip)]
    vectors: Vec<Vec<u64>>,
}

impl Cache {
    /// Bytes that one token adds. Layers with a sliding window stop growing at some point; that is
    /// not considered.
    pub fn bytes_per_token(&self, ty: KvType) -> u64 {
        let bytes = |numbers: &u64| match ty {
            KvType::F32 => numbers * 4,
            KvType::F16 => numbers * 2,
            KvType::Q8_0 => numbers.div_ceil(32) * 34,
        };
        self.vectors.iter().flatten().map(bytes).sum()
    }
}

/// What a model demands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Demand {
    /// `general.architecture`.
    pub architecture: Option<String>,
    /// All tensors together.
    pub total: Usage,
    /// Sums by group, the empty ones left out.
    pub groups: BTreeMap<TensorGroup, Usage>,
    /// Sums by type name, the largest first.
    #[serde(serialize_with = "types_as_objects")]
    pub types: Vec<(TensorType, Usage)>,
    /// The same of routed experts alone.
    #[serde(skip)]
    pub routed_types: Vec<(TensorType, Usage)>,
    /// The layers, if the file says how many.
    pub layers: Option<Layers>,
    /// The experts, if there are any.
    pub experts: Option<Experts>,
    /// Length of a token's hidden vector.
    pub hidden: Option<u64>,
    /// Tokens in the vocabulary.
    pub vocabulary: Option<u64>,
    /// Tokens that the model was made for.
    pub context: Option<u64>,
    /// The cache, if the metadata tell its shape.
    pub cache: Option<Cache>,
}

/// The number of the block that a tensor belongs to.
fn block_of(tensor: &&TensorInfo) -> Option<u64> {
    tensor.name.strip_prefix("blk.")?.split_once('.')?.0.parse().ok()
}

impl Demand {
    /// Adds up the tensors of a model; for a split model those of all parts.
    pub fn of<'a>(metadata: &Metadata, tensors: impl IntoIterator<Item = &'a TensorInfo>) -> Self {
        let tensors: Vec<&TensorInfo> = tensors.into_iter().collect();
        let keys = Keys(metadata);
        // Told by their tensors: files disagree about whether `block_count` includes them.
        let predicting = tensors.iter().filter(|t| t.name.contains(".nextn.")).filter_map(block_of);
        let first = predicting.min().unwrap_or(u64::MAX);
        let blocks = keys.number("block_count").map(|all| all.min(first));
        let experts = keys.experts();
        let rules = Reading {
            blocks: blocks.unwrap_or(u64::MAX),
            experts,
            head_is_embedding: head_is_embedding(&tensors),
            absorbed_blocks: absorbed_blocks(&tensors),
        };
        let mut demand = Self {
            architecture: metadata.arch().ok().map(str::to_owned),
            total: Usage::default(),
            groups: BTreeMap::new(),
            types: Vec::new(),
            routed_types: Vec::new(),
            layers: blocks.map(|total| layers(total, &tensors, &keys)),
            experts,
            hidden: keys.number("embedding_length"),
            vocabulary: keys.vocabulary(),
            context: keys.number("context_length"),
            cache: blocks.and_then(|blocks| keys.cache(blocks, &tensors)),
        };
        for tensor in tensors {
            demand.add(tensor, &rules);
        }
        demand.types.sort_by_key(|(ty, usage)| (std::cmp::Reverse(usage.bytes), ty.id()));
        demand
    }

    fn add(&mut self, tensor: &TensorInfo, rules: &Reading) {
        let (group, usage) = rules.usage(tensor);
        self.total += usage;
        *self.groups.entry(group).or_default() += usage;
        add_type(&mut self.types, tensor.ty, usage);
        if group == TensorGroup::RoutedExperts {
            add_type(&mut self.routed_types, tensor.ty, usage);
        }
    }

    /// The sum of a group; zeros if it has no tensors.
    pub fn group(&self, group: TensorGroup) -> Usage {
        self.groups.get(&group).copied().unwrap_or_default()
    }

    /// Weights, without those that only predict further tokens: what models are named after.
    pub fn parameters(&self) -> u64 {
        self.total.parameters - self.group(TensorGroup::Prediction).parameters
    }

    /// Mean bits that a weight takes in the file.
    pub fn bits_per_weight(&self) -> f64 {
        self.total.bytes as f64 * 8.0 / self.total.parameters.max(1) as f64
    }
}

fn add_type(types: &mut Vec<(TensorType, Usage)>, ty: TensorType, usage: Usage) {
    match types.iter_mut().find(|(known, _)| *known == ty) {
        Some((_, sum)) => *sum += usage,
        None => types.push((ty, usage)),
    }
}

fn types_as_objects<S: serde::Serializer>(
    types: &[(TensorType, Usage)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(types.iter().map(|(ty, usage)| (ty.name(), usage)))
}

/// `blk.7.attn_q.weight` -> block 7 and `attn_q.weight`.
fn in_block(name: &str) -> Option<(u64, &str)> {
    let (number, part) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((number.parse().ok()?, part))
}

/// Blocks that hold the up-projection of keys and values in the absorbed form, `attn_k_b`.
fn absorbed_blocks(tensors: &[&TensorInfo]) -> HashSet<u64> {
    let blocks = tensors.iter().filter_map(|tensor| in_block(&tensor.name));
    blocks.filter(|(_, part)| *part == "attn_k_b.weight").map(|(block, _)| block).collect()
}

/// Models that generate text but have no head of their own use the embedding for it.
fn head_is_embedding(tensors: &[&TensorInfo]) -> bool {
    let has = |name: &str| tensors.iter().any(|tensor| tensor.name == name);
    has("output_norm.weight") && !has("output.weight")
}

fn layers(total: u64, tensors: &[&TensorInfo], keys: &Keys<'_>) -> Layers {
    let routed =
        tensors.iter().filter_map(|tensor| in_block(&tensor.name)).filter(|(block, part)| {
            *block < total && TensorGroup::of(part) == TensorGroup::RoutedExperts
        });
    let moe = match routed.map(|(block, _)| block).collect::<BTreeSet<_>>().len() as u64 {
        // A header without tensors still tells what it is the header of.
        0 if tensors.is_empty() && keys.experts().is_some() => {
            total.saturating_sub(keys.number("leading_dense_block_count").unwrap_or(0))
        }
        counted => counted,
    };
    Layers { total, dense: total - moe, moe }
}

/// What is needed to tell how much of a tensor one token reads.
struct Reading {
    /// Blocks from this one on only predict further tokens.
    blocks: u64,
    experts: Option<Experts>,
    head_is_embedding: bool,
    absorbed_blocks: HashSet<u64>,
}

impl Reading {
    fn usage(&self, tensor: &TensorInfo) -> (TensorGroup, Usage) {
        let (block, part) = in_block(&tensor.name).unzip();
        let mut group = TensorGroup::of(part.unwrap_or(&tensor.name));
        if block.is_some_and(|block| block >= self.blocks) {
            group = TensorGroup::Prediction;
        }
        // A file with both layouts holds these weights twice; decoding reads the absorbed form.
        let twice = part == Some("attn_kv_b.weight")
            && block.is_some_and(|block| self.absorbed_blocks.contains(&block));
        let elements = if twice { 0 } else { tensor.elements() };
        let (part, whole) = match (group, self.experts) {
            _ if twice => (0, 1),
            (TensorGroup::Prediction, _) => (0, 1),
            (TensorGroup::RoutedExperts, Some(experts)) => (experts.used, experts.total),
            (TensorGroup::Embedding, _) if !self.head_is_embedding => (1, tensor.rows()),
            _ => (1, 1),
        };
        let share = |n: u64| (u128::from(n) * u128::from(part) / u128::from(whole)) as u64;
        let usage = Usage {
            tensors: 1,
            parameters: elements,
            bytes: tensor.size,
            active_parameters: share(elements),
            bytes_per_token: share(tensor.size),
        };
        (group, usage)
    }
}

/// The metadata, read leniently: absence and surprise are both `None`.
struct Keys<'a>(&'a Metadata);

impl Keys<'_> {
    fn number(&self, key: &str) -> Option<u64> {
        self.0.arch_u64(key).ok()
    }

    /// A number for each layer: some architectures have arrays where others have one number.
    fn per_layer(&self, key: &str, layers: u64) -> Option<Vec<u64>> {
        let key = self.0.arch_key(key).ok()?;
        let numbers: Vec<u64> = match self.0.get(&key)? {
            Value::Array(Array::U32(numbers)) => numbers.iter().map(|n| u64::from(*n)).collect(),
            Value::Array(Array::I32(numbers)) => {
                numbers.iter().map(|n| u64::try_from(*n).unwrap_or(0)).collect()
            }
            _ => return self.0.u64(&key).ok().map(|number| vec![number; layers as usize]),
        };
        (numbers.len() as u64 >= layers).then_some(numbers)
    }

    fn experts(&self) -> Option<Experts> {
        let total = self.number("expert_count").filter(|total| *total > 0)?;
        Some(Experts {
            total,
            used: self.number("expert_used_count").unwrap_or(total).min(total),
            shared: self.number("expert_shared_count").unwrap_or(0),
            groups: self.number("expert_group_count").unwrap_or(1),
            groups_used: self.number("expert_group_used_count").unwrap_or(1),
        })
    }

    fn vocabulary(&self) -> Option<u64> {
        let tokens = || Some(self.0.array("tokenizer.ggml.tokens").ok()?.len() as u64);
        self.number("vocab_size").or_else(tokens)
    }

    /// The latent of `kv_lora_rank` + `rope.dimension_count` numbers; else keys and values of each
    /// head.
    fn cache(&self, blocks: u64, tensors: &[&TensorInfo]) -> Option<Cache> {
        // What follows has this many entries, and no model has more.
        const LAYERS_MAX: u64 = 1 << 16;
        if blocks > LAYERS_MAX {
            return None;
        }
        if let Some(latent) = self.number("attention.kv_lora_rank") {
            let numbers = latent.checked_add(self.number("rope.dimension_count")?)?;
            let numbers = Some(numbers).filter(|numbers| *numbers < 1 << 32)?;
            return Some(Cache { latent: true, vectors: vec![vec![numbers]; blocks as usize] });
        }
        let heads = self.per_layer("attention.head_count", blocks)?;
        let kv_heads = self.per_layer("attention.head_count_kv", blocks);
        let kv_heads = kv_heads.unwrap_or_else(|| heads.clone());
        let most = heads.iter().copied().max().filter(|heads| *heads > 0)?;
        let head = self.number("embedding_length").map(|hidden| hidden / most);
        let key = self.number("attention.key_length").or(head)?;
        let value = self.number("attention.value_length").or(head)?;
        let attends = attending_blocks(tensors);
        let vectors = (0..blocks).zip(&kv_heads).map(|(block, heads)| {
            let heads =
                if attends.as_ref().is_none_or(|a| a.contains(&block)) { *heads } else { 0 };
            vec![heads.saturating_mul(key).min(1 << 32), heads.saturating_mul(value).min(1 << 32)]
        });
        Some(Cache { latent: false, vectors: vectors.collect() })
    }
}

/// Hybrid models attend in some layers only: those with a projection of keys. `None`: cannot be
/// told.
fn attending_blocks(tensors: &[&TensorInfo]) -> Option<HashSet<u64>> {
    let blocks = tensors.iter().filter_map(|tensor| in_block(&tensor.name));
    let keys = blocks.filter(|(_, part)| *part == "attn_k.weight");
    Some(keys.map(|(block, _)| block).collect::<HashSet<_>>()).filter(|found| !found.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::{Layout, Shape};

    fn demand(shape: Shape, layout: Layout, ty: TensorType) -> Demand {
        // `attn_k_b` has 128 columns, and V2-Lite's experts 1408: such rows fall back to Q8_0.
        let fitting = |name: &str| if name.contains("k_b") { TensorType::Q8_0 } else { ty };
        let tensors = shape.tensors(layout, fitting).unwrap();
        Demand::of(&shape.metadata(layout), &tensors)
    }

    fn billions(count: u64) -> f64 {
        (count as f64 / 1e6).round() / 1e3
    }

    #[test]
    fn r1_counts_as_published() {
        let r1 = demand(Shape::DEEPSEEK_V3, Layout::Absorbed, TensorType::Q8_0);
        assert_eq!(r1.total.tensors, 1086);
        assert_eq!(r1.parameters(), 671_026_419_200);
        assert_eq!(billions(r1.total.active_parameters), 36.626);
        let of = |group| billions(r1.group(group).parameters);
        assert_eq!(of(TensorGroup::RoutedExperts), 653.909);
        assert_eq!(of(TensorGroup::SharedExperts), 2.554);
        assert_eq!(of(TensorGroup::Attention), 11.413);
        assert_eq!(of(TensorGroup::DenseFfn), 1.189);
        assert_eq!(of(TensorGroup::NormsRouter), 0.107);
        assert_eq!((of(TensorGroup::Embedding), of(TensorGroup::Head)), (0.927, 0.927));
        assert_eq!(billions(r1.group(TensorGroup::RoutedExperts).active_parameters), 20.435);
        assert_eq!(r1.group(TensorGroup::Embedding).active_parameters, 7168);
        assert_eq!(r1.group(TensorGroup::Other).tensors, 0);
        assert_eq!(r1.layers, Some(Layers { total: 61, dense: 3, moe: 58 }));
        let experts = Experts { total: 256, used: 8, shared: 1, groups: 1, groups_used: 1 };
        assert_eq!(r1.experts, Some(experts));
        assert_eq!((r1.context, r1.vocabulary), (Some(163_840), Some(129_280)));
    }

    #[test]
    fn r1_sizes_are_those_of_published_files() {
        let r1 = demand(Shape::DEEPSEEK_V3, Layout::Legacy, TensorType::Q8_0);
        assert_eq!(r1.total.tensors, 1025);
        // 664.29 GiB say the logs of Q8_0 files. A token reads 38.9 GB and the F32 router's
        // surplus.
        assert_eq!((r1.total.bytes as f64 / f64::powi(2.0, 30) * 100.0).round(), 66429.0);
        assert_eq!((r1.total.bytes_per_token as f64 / 1e8).round(), 392.0);
        assert_eq!(r1.bits_per_weight().round(), 9.0);
        let types: Vec<_> = r1.types.iter().map(|(ty, usage)| (ty.name(), usage.tensors)).collect();
        assert_eq!(types, [("Q8_0", 664), ("F32", 361)]);
    }

    #[test]
    fn a_file_with_both_layouts_counts_and_reads_weights_once() {
        let both = demand(Shape::DEEPSEEK_V3, Layout::Both, TensorType::Q8_0);
        let one = demand(Shape::DEEPSEEK_V3, Layout::Absorbed, TensorType::Q8_0);
        assert_eq!(both.total.tensors, 1147);
        assert_eq!(both.parameters(), one.parameters());
        assert_eq!(both.total.bytes_per_token, one.total.bytes_per_token);
        assert!(both.total.bytes > one.total.bytes);
    }

    #[test]
    fn sisters_count_as_published() {
        let kimi = demand(Shape::KIMI_K2, Layout::Legacy, TensorType::Q8_0);
        assert_eq!((billions(kimi.parameters()) * 10.0).round(), 10264.0);
        assert_eq!((billions(kimi.total.active_parameters) * 10.0).round(), 317.0);
        let lite = demand(Shape::DEEPSEEK_V2_LITE, Layout::Legacy, TensorType::Q8_0);
        assert_eq!((billions(lite.parameters()) * 100.0).round(), 1571.0);
        assert_eq!((billions(lite.total.active_parameters) * 100.0).round(), 245.0);
        let v2 = demand(Shape::DEEPSEEK_V2, Layout::Absorbed, TensorType::Q8_0);
        assert_eq!(billions(v2.parameters()).round(), 236.0);
    }

    #[test]
    fn latent_caches() {
        for layout in [Layout::Legacy, Layout::Absorbed] {
            let cache = demand(Shape::DEEPSEEK_V3, layout, TensorType::Q8_0).cache.unwrap();
            assert!(cache.latent);
            assert_eq!(cache.bytes_per_token(KvType::F32), 140_544);
            assert_eq!(cache.bytes_per_token(KvType::F16), 70_272);
            assert_eq!(cache.bytes_per_token(KvType::Q8_0), 37_332);
        }
    }

    /// Llama 3 8B's numbers, two of its layers.
    fn llama() -> (Metadata, Vec<TensorInfo>) {
        let mut metadata = Metadata::default();
        metadata.insert("general.architecture", "llama");
        metadata.insert("llama.block_count", 2_u32);
        metadata.insert("llama.embedding_length", 4096_u32);
        metadata.insert("llama.attention.head_count", 32_u32);
        metadata.insert("llama.attention.head_count_kv", 8_u32);
        metadata.insert("tokenizer.ggml.tokens", vec!["a".to_owned(); 64]);
        let shapes = [
            ("token_embd.weight", &[4096, 64][..]),
            ("blk.0.attn_k.weight", &[4096, 1024]),
            ("blk.0.ffn_up.weight", &[4096, 14336]),
            ("blk.1.attn_k.weight", &[4096, 1024]),
            ("output_norm.weight", &[4096]),
        ];
        let tensor = |(name, shape): (&str, &[u64])| TensorInfo::new(name, TensorType::F16, shape);
        (metadata, shapes.map(tensor).into_iter().map(Result::unwrap).collect())
    }

    #[test]
    fn grouped_query_caches() {
        let (mut metadata, mut tensors) = llama();
        let f16 = |metadata: &Metadata, tensors: &[TensorInfo]| {
            Demand::of(metadata, tensors).cache.map(|cache| cache.bytes_per_token(KvType::F16))
        };
        // 8 heads of 128 numbers, key and value, 2 bytes, 2 layers.
        assert_eq!(f16(&metadata, &tensors), Some(8 * 128 * 2 * 2 * 2));
        metadata.insert("llama.attention.head_count_kv", vec![8_i32, 4]);
        assert_eq!(f16(&metadata, &tensors), Some((8 + 4) * 128 * 2 * 2));
        tensors.retain(|tensor| tensor.name != "blk.1.attn_k.weight");
        assert_eq!(f16(&metadata, &tensors), Some(8 * 128 * 2 * 2));
        metadata.insert("llama.attention.head_count", "many");
        assert_eq!(f16(&metadata, &tensors), None);
    }

    #[test]
    fn an_embedding_that_serves_as_head_is_read_whole() {
        let (metadata, mut tensors) = llama();
        let read = |tensors: &[TensorInfo]| {
            Demand::of(&metadata, tensors).group(TensorGroup::Embedding).bytes_per_token
        };
        assert_eq!(read(&tensors), 4096 * 64 * 2);
        tensors.push(TensorInfo::new("output.weight", TensorType::F16, &[4096, 64]).unwrap());
        assert_eq!(read(&tensors), 4096 * 2);
        let demand = Demand::of(&metadata, &tensors);
        assert_eq!(demand.vocabulary, Some(64));
        assert_eq!(demand.layers, Some(Layers { total: 2, dense: 2, moe: 0 }));
        assert_eq!(demand.experts, None);
    }

    #[test]
    fn prediction_layers_are_set_apart() {
        let shape = Shape { layers: 4, ..Shape::DEEPSEEK_V3 };
        let mut metadata = shape.metadata(Layout::Absorbed);
        metadata.insert("deepseek2.nextn_predict_layers", 1_u32);
        let mut tensors = shape.tensors(Layout::Absorbed, |_| TensorType::F16).unwrap();
        let layers = Demand::of(&metadata, &tensors).layers.map(|layers| layers.total);
        assert_eq!(layers, Some(4), "the key alone does not make a layer one of prediction");
        let norm = TensorInfo::new("blk.3.nextn.enorm.weight", TensorType::F32, &[7168]);
        tensors.push(norm.unwrap());
        let demand = Demand::of(&metadata, &tensors);
        assert_eq!(demand.layers, Some(Layers { total: 3, dense: 3, moe: 0 }));
        assert!(demand.group(TensorGroup::Prediction).parameters > 11_000_000_000);
        assert_eq!(demand.group(TensorGroup::Prediction).bytes_per_token, 0);
        assert_eq!(demand.group(TensorGroup::RoutedExperts), Usage::default());
    }

    #[test]
    fn names_find_their_group() {
        for (part, group) in [
            ("ffn_gate_up_exps.weight", TensorGroup::RoutedExperts),
            ("ffn_up_exps.scale", TensorGroup::RoutedExperts),
            ("ffn_gate.7.weight", TensorGroup::RoutedExperts),
            ("ffn_gate.weight", TensorGroup::DenseFfn),
            ("ffn_gate_inp.weight", TensorGroup::NormsRouter),
            ("ffn_gate_inp_shexp.weight", TensorGroup::NormsRouter),
            ("attn_q_a_norm.weight", TensorGroup::NormsRouter),
            ("attn_qkv.bias", TensorGroup::Attention),
            ("output.weight", TensorGroup::Head),
            ("ssm_in.weight", TensorGroup::Other),
            ("rope_freqs.weight", TensorGroup::Other),
        ] {
            assert_eq!(TensorGroup::of(part), group, "{part}");
        }
    }

    #[test]
    fn a_header_without_tensors_still_tells_its_shape() {
        let demand = Demand::of(&Shape::DEEPSEEK_V3.metadata(Layout::Legacy), []);
        assert_eq!(demand.layers, Some(Layers { total: 61, dense: 3, moe: 58 }));
        assert_eq!(demand.parameters(), 0);
        let nothing = Demand::of(&Metadata::default(), []);
        assert_eq!((nothing.layers, &nothing.cache), (None, &None));
        assert!(serde_json::to_string(&nothing).unwrap().contains("\"architecture\":null"));
    }

    #[test]
    fn absurd_numbers_do_no_harm() {
        let (mut metadata, tensors) = llama();
        for key in ["block_count", "embedding_length", "attention.head_count_kv"] {
            metadata.insert(&format!("llama.{key}"), u64::MAX);
        }
        for key in ["expert_count", "expert_used_count", "nextn_predict_layers"] {
            metadata.insert(&format!("llama.{key}"), u64::MAX);
        }
        let demand = Demand::of(&metadata, &tensors);
        assert_eq!(demand.cache, None);
        metadata.insert("llama.nextn_predict_layers", 0_u8);
        metadata.insert("llama.block_count", 1000_u32);
        let cache = Demand::of(&metadata, &tensors).cache.unwrap();
        assert!(cache.bytes_per_token(KvType::F32) > 0);
    }
}
