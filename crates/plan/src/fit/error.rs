//! Why a model cannot be placed: what it needs, what there is, and what would help.

use cachalot_gguf::KvType;

use super::{
    BudgetOrigin, CONTEXT_MIN, Choice, Constraints, MICRO_BATCH_MIN, MemoryBudget, Stream,
    cache_min, fit, whole_pages,
};
use crate::layout::PAGE_TOKENS;
use crate::model::ModelFacts;
use crate::units;

/// Why a model cannot be placed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// Not even non-expert weights and a few experts fit.
    #[error(
        "{model} needs at least {} of memory ({} of non-expert weights, {} of KV cache for {context} \
         tokens, {} of buffers and a few experts), but only {} may be used{origin}: close other programs, \
         allow more with `--memory`, or take a smaller quantization",
        units::bytes(*.needed), units::bytes(*.dense), units::bytes(*.kv),
        units::bytes(.needed - .dense - .kv), units::bytes(*.budget)
    )]
    Memory {
        /// The model.
        model: String,
        /// Least memory needed.
        needed: u64,
        /// Of this, non-expert weights.
        dense: u64,
        /// Of this, KV cache.
        kv: u64,
        /// Tokens of context.
        context: u64,
        /// Memory that may be used.
        budget: u64,
        /// Where that number comes from.
        origin: BudgetOrigin,
    },
    /// The KV cache of the requested context is too large.
    #[error(
        "a context of {asked} tokens takes {} of memory, but {model} leaves {} for it{origin}: {possible} \
         tokens would fit. A KV cache in q8_0 takes half of one in f16",
        units::bytes(*.needed), units::bytes(*.budget)
    )]
    ContextMemory {
        /// The model.
        model: String,
        /// Tokens asked for.
        asked: u64,
        /// Memory that they need.
        needed: u64,
        /// Memory left for them.
        budget: u64,
        /// Where that number comes from.
        origin: BudgetOrigin,
        /// Tokens that would fit.
        possible: u64,
    },
    /// It would have to be streamed, and there is no drive, or streaming is off.
    #[error(
        "{model} needs {} of memory, {} may be used{origin}, and there is no drive to stream from",
        units::bytes(*.needed), units::bytes(*.budget)
    )]
    NoDrive {
        /// The model.
        model: String,
        /// Memory needed.
        needed: u64,
        /// Memory that may be used.
        budget: u64,
        /// Where that number comes from.
        origin: BudgetOrigin,
    },
    /// The requested context is longer than the model supports.
    #[error("{model} supports at most {most} tokens of context; {asked} were requested")]
    Context {
        /// The model.
        model: String,
        /// Tokens asked for.
        asked: u64,
        /// Tokens possible.
        most: u64,
    },
}

impl PlacementError {
    /// Bytes of memory that are missing, if that is what is missing.
    pub fn missing(&self) -> Option<u64> {
        match self {
            Self::Memory { needed, budget, .. }
            | Self::NoDrive { needed, budget, .. }
            | Self::ContextMemory { needed, budget, .. } => Some(needed.saturating_sub(*budget)),
            Self::Context { .. } => None,
        }
    }
}

/// What is missing where nothing was found.
pub(super) fn placement_error(
    model: &ModelFacts,
    budget: MemoryBudget,
    constraints: Constraints,
) -> PlacementError {
    let (name, origin) = (model.name.clone(), budget.origin);
    let context = constraints.context.unwrap_or(CONTEXT_MIN.min(model.context));
    let choice = Choice {
        context,
        parallel: constraints.parallel.max(1),
        cache_type: constraints.cache_type.unwrap_or(KvType::Q8_0),
        reduced: false,
        reproducible: constraints.reproducible,
    };
    let per_token = model.cache_bytes_per_token(choice.cache_type);
    let per_token = per_token.saturating_mul(constraints.parallel.max(1));
    let kv = per_token.saturating_mul(whole_pages(context));
    let buffers = model.buffers(choice.batch(MICRO_BATCH_MIN, budget));
    let (weights, experts) = match constraints.stream {
        Stream::Never => (0, 0),
        _ if !budget.drive || model.routed == 0 => (model.size, 0),
        _ => (model.dense, cache_min(model)),
    };
    let fixed = [buffers, experts].iter().fold(weights, |sum, n| sum.saturating_add(*n));
    let needed = fixed.saturating_add(kv);
    let all = budget.ram.saturating_add(budget.vram);
    let shorter = Constraints { context: None, ..constraints };
    if constraints.context.is_some() && fit(model, budget, shorter).is_ok() {
        let left = all.saturating_sub(fixed);
        let possible = left / per_token.max(1) / PAGE_TOKENS * PAGE_TOKENS;
        let possible = possible.min(model.context);
        return PlacementError::ContextMemory {
            model: name,
            asked: context,
            needed: kv,
            budget: left,
            origin,
            possible,
        };
    }
    if weights == model.size {
        return PlacementError::NoDrive { model: name, needed, budget: all, origin };
    }
    let budget = budget.ram;
    PlacementError::Memory { model: name, needed, dense: weights, kv, context, budget, origin }
}
