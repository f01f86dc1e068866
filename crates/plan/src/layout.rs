//! Which device holds what: computed once by the planner, printed, and carried out by the engine,
//! so that what is printed and what is loaded cannot differ.
//!
//! A layout is made from a [`Placement`] by [`Layout::of`]. To carry it out:
//!
//! 1. make one stage for each [`StagePlan`], in order: layers `layers` on `device`. The stage with
//!    `embeds` looks up embeddings, the one with `heads` computes logits;
//! 2. hold the routed experts of each [`ExpertPlan`] on its device, or stream them through a cache
//!    of its size;
//! 3. reserve `kv.pages` pages of [`PAGE_TOKENS`] tokens in each stage, in the data type `kv.ty`;
//! 4. compute prompts in micro-batches of `micro_batch` tokens, with the threads in `threads`.

use std::fmt;
use std::ops::Range;

use cachalot_gguf::KvType;
use serde::Serialize;

use crate::fit::{MemoryTier, Mode, Placement};
use crate::machine::Machine;
use crate::model::ModelFacts;
use crate::units;

/// Tokens of a KV page.
pub const PAGE_TOKENS: u64 = 64;

/// A device that computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceId {
    /// The processor, with main memory.
    Cpu,
    /// A graphics card, counted from 0 in the order of the machine's facts.
    Gpu(u32),
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("CPU"),
            Self::Gpu(index) => write!(f, "GPU {index}"),
        }
    }
}

/// Consecutive layers on one device: attention, shared experts, dense layers, and their KV pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StagePlan {
    /// Where they are computed.
    pub device: DeviceId,
    /// The layers.
    pub layers: Range<u64>,
    /// Whether the stage looks up embeddings: the first one does.
    pub embeds: bool,
    /// Whether the stage computes logits: the last one does.
    pub heads: bool,
    /// Bytes of its weights, without routed experts.
    pub weights: u64,
}

/// Routed experts of consecutive layers on one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExpertPlan {
    /// Where they are computed.
    pub device: DeviceId,
    /// The layers.
    pub layers: Range<u64>,
    /// Bytes of all these experts.
    pub bytes: u64,
    /// Bytes of the cache through which they are streamed from the drive; `None` if they are
    /// resident.
    pub cache: Option<u64>,
}

/// The KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KvPlan {
    /// Its data type.
    #[serde(serialize_with = "as_text")]
    pub ty: KvType,
    /// Tokens of context of each sequence.
    pub context: u64,
    /// Sequences at a time.
    pub parallel: u64,
    /// Pages of [`PAGE_TOKENS`] tokens, for all sequences.
    pub pages: u64,
    /// Bytes of all pages, over all stages.
    pub bytes: u64,
}

/// Threads on one NUMA node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct NodeThreads {
    /// The node.
    pub node: u32,
    /// Threads on it.
    pub threads: u32,
}

/// Which device holds what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Layout {
    /// Layers, first to last.
    pub stages: Vec<StagePlan>,
    /// Routed experts, first layer to last.
    pub experts: Vec<ExpertPlan>,
    /// The KV cache.
    pub kv: KvPlan,
    /// Tokens of a prompt that are computed at once.
    pub micro_batch: u64,
    /// Bytes of the buffers that this takes at most.
    pub buffers: u64,
    /// Threads by NUMA node; empty where the number of cores is unknown.
    pub threads: Vec<NodeThreads>,
}

fn as_text<S: serde::Serializer>(ty: &KvType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(ty)
}

impl Layout {
    /// The layout of a model that is placed as `fit` says. `threads` are those that compute;
    /// without it, as many as the machine has cores.
    pub fn of(
        machine: &Machine,
        model: &ModelFacts,
        fit: &Placement,
        threads: Option<u32>,
    ) -> Self {
        let devices = Devices { cards: cards(machine), threads: threads_by_node(machine, threads) };
        Self::over(&devices, model, fit)
    }

    /// The layout over devices that are here.
    pub fn over(devices: &Devices, model: &ModelFacts, fit: &Placement) -> Self {
        let cards = match fit.dense_in {
            MemoryTier::Vram => &devices.cards[..],
            MemoryTier::Ram => &[],
        };
        Self {
            stages: stages(model, cards),
            experts: experts(model, fit, cards),
            kv: KvPlan {
                ty: fit.cache_type,
                context: fit.context,
                parallel: fit.parallel,
                pages: fit.context.div_ceil(PAGE_TOKENS).saturating_mul(fit.parallel),
                bytes: fit.kv,
            },
            micro_batch: fit.micro_batch,
            buffers: fit.buffers,
            threads: devices.threads.clone(),
        }
    }
}

/// What a layout can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devices {
    /// Devices with memory of their own, and its bytes.
    cards: Vec<(DeviceId, u64)>,
    threads: Vec<NodeThreads>,
}

impl Devices {
    /// Cards with the bytes of their memory, and the processor's threads, spread over its NUMA
    /// nodes.
    pub fn new(cards: Vec<(DeviceId, u64)>, threads: u32, nodes: u32) -> Self {
        Self { cards, threads: spread(threads, nodes) }
    }
}

/// Each card with its memory.
fn cards(machine: &Machine) -> Vec<(DeviceId, u64)> {
    let each = machine.gpus.iter().flat_map(|gpu| (0..gpu.count).map(|_| gpu.memory_bytes));
    each.enumerate().map(|(index, bytes)| (DeviceId::Gpu(index as u32), bytes)).collect()
}

/// Splits `0..count` among devices in proportion to their memory.
fn split(count: u64, cards: &[(DeviceId, u64)]) -> Vec<(DeviceId, Range<u64>)> {
    let all: u128 = cards.iter().map(|(_, bytes)| u128::from(*bytes)).sum();
    let (mut begun, mut before) = (0, 0_u128);
    let mut parts = Vec::new();
    for (device, bytes) in cards {
        before += u128::from(*bytes);
        let end = (u128::from(count) * before / all.max(1)) as u64;
        if end > begun {
            parts.push((*device, begun..end));
        }
        begun = end;
    }
    parts
}

fn stages(model: &ModelFacts, cards: &[(DeviceId, u64)]) -> Vec<StagePlan> {
    let parts = if cards.is_empty() {
        vec![(DeviceId::Cpu, 0..model.layers)]
    } else {
        split(model.layers, cards)
    };
    let last = parts.len().saturating_sub(1);
    let weights = |layers: &Range<u64>| {
        let share = u128::from(layers.end - layers.start) * u128::from(model.dense);
        (share / u128::from(model.layers.max(1))) as u64
    };
    let stage = |(index, (device, layers)): (usize, (DeviceId, Range<u64>))| StagePlan {
        device,
        weights: weights(&layers),
        layers,
        embeds: index == 0,
        heads: index == last,
    };
    parts.into_iter().enumerate().map(stage).collect()
}

fn experts(model: &ModelFacts, fit: &Placement, cards: &[(DeviceId, u64)]) -> Vec<ExpertPlan> {
    if model.routed == 0 {
        return Vec::new();
    }
    let first = model.layers - model.moe_layers.min(model.layers);
    let on_cards = u128::from(model.moe_layers) * u128::from(fit.routed_vram);
    let on_cards = (on_cards / u128::from(model.routed)) as u64;
    let bytes = |layers: &Range<u64>| {
        let share = u128::from(layers.end - layers.start) * u128::from(model.routed);
        (share / u128::from(model.moe_layers.max(1))) as u64
    };
    let mut plans: Vec<ExpertPlan> = split(on_cards, cards)
        .into_iter()
        .map(|(device, layers)| {
            let layers = first + layers.start..first + layers.end;
            ExpertPlan { device, bytes: bytes(&layers), layers, cache: None }
        })
        .collect();
    let rest = first + on_cards..model.layers;
    if !rest.is_empty() {
        let cache = match fit.mode {
            Mode::Resident => None,
            Mode::Streamed { cache } => Some(cache),
        };
        plans.push(ExpertPlan { device: DeviceId::Cpu, bytes: bytes(&rest), layers: rest, cache });
    }
    plans
}

fn threads_by_node(machine: &Machine, threads: Option<u32>) -> Vec<NodeThreads> {
    let Some(threads) = threads.or(machine.processor.cores()) else { return Vec::new() };
    spread(threads, machine.processor.numa_nodes.unwrap_or(machine.processor.sockets()))
}

fn spread(threads: u32, nodes: u32) -> Vec<NodeThreads> {
    let nodes = nodes.clamp(1, threads.max(1));
    let on = |node| threads / nodes + u32::from(node < threads % nodes);
    (0..nodes).map(|node| NodeThreads { node, threads: on(node) }).collect()
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for stage in &self.stages {
            let Range { start, end } = stage.layers;
            let role = match (stage.embeds, stage.heads) {
                (true, true) => ", with embedding and head",
                (true, false) => ", with embedding",
                (false, true) => ", with head",
                (false, false) => "",
            };
            let weights = units::bytes(stage.weights);
            writeln!(f, "layers {start}-{}: {}, {weights}{role}", end - 1, stage.device)?;
        }
        for experts in &self.experts {
            let Range { start, end } = experts.layers;
            let bytes = units::bytes(experts.bytes);
            write!(f, "experts of layers {start}-{}: {}, {bytes}", end - 1, experts.device)?;
            match experts.cache {
                Some(cache) => {
                    writeln!(f, ", streamed through a cache of {}", units::bytes(cache))?
                }
                None => writeln!(f, ", resident")?,
            }
        }
        let KvPlan { ty, context, parallel, pages, bytes } = self.kv;
        let users = if parallel > 1 { format!(" for {parallel} sequences") } else { String::new() };
        writeln!(
            f,
            "KV cache: {} tokens{users} in {ty}, {} pages of {PAGE_TOKENS}, {}",
            units::grouped(context),
            units::grouped(pages),
            units::bytes(bytes)
        )?;
        let buffers = units::bytes(self.buffers);
        write!(f, "micro-batch: {} tokens, {buffers}", units::grouped(self.micro_batch))?;
        let each: Vec<String> = self.threads.iter().map(|node| node.threads.to_string()).collect();
        match &each[..] {
            [] => writeln!(f),
            [threads] => writeln!(f, "; {threads} threads"),
            several => {
                writeln!(f, "; {} threads on {} NUMA nodes", several.join(" + "), several.len())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Constraints, MemoryBudget, catalogue, fit, presets};

    fn of(machine: &str, quant: &str) -> Layout {
        let machine = presets::machine(machine).unwrap();
        let model = catalogue::find(quant)[0].model();
        let fit =
            fit::fit(&model, MemoryBudget::of(&machine, None), Constraints::default()).unwrap();
        Layout::of(&machine, &model, &fit, None)
    }

    #[test]
    fn a_processor_holds_one_stage() {
        let layout = of("epyc-ddr5", "Q4_K_M");
        assert_eq!(layout.stages.len(), 1);
        assert!(layout.stages[0].embeds && layout.stages[0].heads);
        assert_eq!(layout.stages[0].layers, 0..61);
        assert_eq!(layout.experts[0].layers, 3..61);
        assert_eq!((layout.kv.pages, layout.kv.context), (512, 32_768));
        assert_eq!(layout.threads, [NodeThreads { node: 0, threads: 96 }]);
        let text = layout.to_string();
        assert!(text.contains("layers 0-60: CPU") && text.contains("512 pages of 64"), "{text}");
    }

    #[test]
    fn streamed_experts_name_their_cache_and_two_sockets_share_threads() {
        let text = of("desktop-96", "UD-Q2_K_XL").to_string();
        assert!(text.contains("streamed through a cache of"), "{text}");
        let text = of("dual-xeon", "Q4_K_M").to_string();
        assert!(text.contains("32 + 32 threads on 2 NUMA nodes"), "{text}");
    }

    proptest! {
        #[test]
        fn every_layer_is_in_one_place(cards in 1_u32..20, gib in 1_u64..1000, ram in 16_u64..900) {
            let description = format!("{cards}x24GB:900GB/s 8x3200 {ram}GB nvme 7GB/s");
            let mut machine = crate::describe::machine(&description).unwrap();
            machine.gpus[0].memory_bytes = gib << 30;
            let model = catalogue::find("UD-Q2_K_XL")[0].model();
            let budget = MemoryBudget::of(&machine, None);
            if let Ok(fit) = fit::fit(&model, budget, Constraints::default()) {
                let layout = Layout::of(&machine, &model, &fit, None);
                let mut next = 0;
                for stage in &layout.stages {
                    prop_assert_eq!(stage.layers.start, next);
                    next = stage.layers.end;
                }
                prop_assert_eq!(next, 61);
                let mut next = 3;
                for experts in &layout.experts {
                    prop_assert_eq!(experts.layers.start, next);
                    next = experts.layers.end;
                }
                prop_assert_eq!(next, 61);
                prop_assert!(!layout.to_string().is_empty());
            }
        }
    }
}
