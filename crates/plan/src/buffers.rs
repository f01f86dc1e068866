//! Memory that computing takes beside weights and KV cache, as the engine's processor stage
//! allocates it (`crates/model/src/arch/deepseek2`): it grows with the rows of a batch and is kept.

use cachalot_gguf::Metadata;
use serde::Serialize;

use crate::demand::{Demand, TensorGroup};
use crate::model::ModelFacts;

/// Bytes of an activation: as f32, in two parts in bf16, and as an integer with its share of a
/// scale.
const ACTIVATION: u64 = 10;
const FLOAT: u64 = 4;
/// Rows of a prompt's chunk from which on attention is computed in the expanded form, which needs
/// no queries in the latents' width.
const EXPANDED_FROM: u64 = 128;
/// Cache rows that are expanded at a time.
const EXPANDED_ROWS: u64 = 512;
/// The most bytes of attention's partial results, and of experts' outputs that wait to be added up.
const PARTIAL_MAX: u64 = 64 << 20;
const OUTPUTS_MAX: u64 = 32 << 20;
/// The most runs of a sequence whose partial results are merged, and tokens of the shortest.
const RUNS_MAX: u64 = 64;
const RUN_MIN: u64 = 64;
/// Parts of blocks of query rows for each thread, where the cache of a sequence is divided.
const PARTS_PER_THREAD: u64 = 32;
/// Query rows that a thread computes at a time; rows of weights that it multiplies with all tokens.
const BLOCK: u64 = 512;
const PANEL_ROWS: u64 = 256;
/// Weights that a thread has unpacked: 32 rows of 16 blocks of 256, in two bytes.
const PANEL: u64 = 1 << 18;
/// How many times the average an expert of a prompt is chosen, whose tokens a thread gathers.
const POPULAR: u64 = 4;

/// Widths of a model's layers. Zero where a model has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // as the header's keys name them
pub struct Widths {
    /// Per head: of query and key without position, with it, and of the value.
    pub nope: u64,
    pub rope: u64,
    pub value: u64,
    /// Ranks of the compression of keys and values, and of queries.
    pub latent: u64,
    pub q_rank: u64,
    /// Of a dense layer, of a routed expert, of the shared expert.
    pub dense: u64,
    pub expert: u64,
    pub shared: u64,
    /// Tokens of the vocabulary.
    pub vocabulary: u64,
}

/// What a batch has at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSize {
    /// Rows of prompts.
    pub micro_batch: u64,
    /// Sequences, each with a row that decodes.
    pub parallel: u64,
    /// Tokens of a sequence.
    pub context: u64,
    /// Threads that compute.
    pub threads: u64,
    /// Whether every row is computed as in decoding.
    pub reproducible: bool,
}

impl Widths {
    /// From the header of a file.
    pub(crate) fn of(metadata: &Metadata, demand: &Demand) -> Self {
        let number = |key: &str| metadata.arch_u64(key).ok();
        let of = |key: &str| number(key).unwrap_or(0);
        let head = |key: &str| number(&format!("{key}_mla")).unwrap_or_else(|| of(key));
        let rope = of("rope.dimension_count");
        let expert = of("expert_feed_forward_length");
        let groups = [TensorGroup::Embedding, TensorGroup::Head].map(|group| demand.group(group));
        let largest = groups.iter().map(|group| group.parameters).max().unwrap_or(0);
        Self {
            nope: head("attention.key_length").saturating_sub(rope),
            rope,
            value: head("attention.value_length"),
            latent: of("attention.kv_lora_rank"),
            q_rank: of("attention.q_lora_rank"),
            dense: of("feed_forward_length"),
            expert,
            shared: expert.saturating_mul(of("expert_shared_count")),
            vocabulary: largest / demand.hidden.unwrap_or(1).max(1),
        }
    }
}

impl ModelFacts {
    /// Bytes of the buffers for batches of up to this size: an upper bound, of which the engine
    /// uses most once batches have been that large.
    pub fn buffers(&self, size: BatchSize) -> u64 {
        let BatchSize { parallel, context, threads, reproducible, .. } = size;
        // No batch has more rows than the sequences have tokens.
        let micro_batch = size.micro_batch.min(parallel.saturating_mul(context));
        let (w, hidden) = (&self.widths, self.hidden);
        let key = w.nope + w.rope;
        let queries = if w.q_rank > 0 { w.q_rank } else { self.heads * key };
        let experts = self.experts_used * w.expert + w.shared;
        // Hidden states, plain and normalized; projections; queries; cache rows; results of
        // attention.
        let floats = 2 * hidden
            + queries
            + 2 * w.latent
            + 4 * w.rope
            + self.heads * (key + w.value + 2)
            + self.experts
            + 4 * self.experts_used
            + hidden;
        // Inputs of a layer, of attention and of experts; attention's outputs; hidden states of
        // networks.
        let activations = 3 * hidden + w.q_rank + self.heads * w.value + w.dense + experts;
        let row = floats * FLOAT + activations * ACTIVATION;
        // Queries and keys in the latents' width.
        let absorbed = self.heads * (w.latent.max(w.value) + w.latent + w.rope + 1) * FLOAT
            + self.heads * (w.nope + w.latent) * ACTIVATION;
        let absorbed_rows = match reproducible {
            true => micro_batch + parallel,
            false => micro_batch.min(parallel.saturating_mul(EXPANDED_FROM)) + parallel,
        };
        let runs = context.div_ceil(RUN_MIN).min(RUNS_MAX);
        let of_row = (w.latent + 2) * FLOAT;
        let partial = absorbed_rows.saturating_mul(self.heads * runs * of_row);
        // Only where there would be too few tasks for the threads without.
        let parts = if threads == 0 { u64::MAX } else { threads * PARTS_PER_THREAD * BLOCK };
        let partial = partial.min(parts.saturating_mul(of_row));
        let rows = micro_batch + parallel;
        let outputs = rows.saturating_mul(self.experts_used * hidden * FLOAT);
        let expanded = EXPANDED_ROWS.min(context).min(if reproducible { 0 } else { u64::MAX })
            * ((self.heads * (w.nope + w.value) + w.rope) * FLOAT + w.latent * ACTIVATION);
        let derived = if reproducible { 0 } else { 2 * self.heads * (w.nope + w.value) * w.latent };
        [
            rows.saturating_mul(row),
            absorbed_rows.saturating_mul(absorbed),
            partial.min(PARTIAL_MAX),
            outputs.min(OUTPUTS_MAX),
            expanded,
            derived,
            parallel.saturating_mul(w.vocabulary * FLOAT + hidden * FLOAT),
            threads.saturating_mul(self.of_thread(rows)),
        ]
        .iter()
        .fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// Bytes that a thread has for itself.
    fn of_thread(&self, rows: u64) -> u64 {
        let w = &self.widths;
        let width = w.latent + w.rope;
        let block = BLOCK.min(rows.saturating_mul(self.heads));
        let attention = block * (4 * width + RUN_MIN) * FLOAT + RUN_MIN * 4 * width * FLOAT;
        let popular = rows.saturating_mul(self.experts_used * POPULAR) / self.experts.max(1);
        let gathered = popular.min(rows) * self.hidden.max(w.dense) * FLOAT;
        attention + rows.saturating_mul(PANEL_ROWS * FLOAT) + PANEL + gathered
    }
}
