//! The changes that can be made to a model's settings, its file or its machine.
//!
//! Each is offered only where it is possible: soldered memory, closed cases and handhelds take no
//! parts.

use cachalot_gguf::KvType;

use super::{Effort, Question};
use crate::fit::{Constraints, Mode};
use crate::machine::{Link, Machine, Memory};
use crate::model::ModelFacts;
use crate::{Plan, describe, gpus};

/// Sizes in which memory is bought, in GiB.
pub(super) const MEMORY_SIZES: [u64; 15] =
    [8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536];
/// The most that boards with two channels take, in GiB: four modules of 64.
const MEMORY_MAX_DESKTOP: u64 = 256;
/// Platforms whose memory is soldered.
const SOLDERED: [&str; 8] = [
    "Steam Deck",
    "Ryzen AI Max",
    "Ryzen AI 300",
    "Raspberry Pi 5",
    "Raspberry Pi 4",
    "RK3588",
    "Grace",
    "Graviton4",
];
/// Single-board computers and handhelds, whose ports and cases take nothing else.
const BOARDS: [&str; 5] =
    ["Raspberry Pi 5", "Raspberry Pi 4", "RK3588", "Steam Deck", "Snapdragon X"];
/// The fastest modules for boards with two channels, by generation: DDR4, DDR5.
const FASTEST_DESKTOP: [(u32, u32); 2] = [(4000, 4000), (20_000, 8000)];
/// Perplexity of R1 (IQ4_KSS) with fewer active experts, relative to 8:
/// github.com/ikawrakow/ik_llama.cpp pull 239.
const FEWER_EXPERTS: [(u64, f64); 2] = [(7, 0.6), (6, 2.1)];
/// Experts in published models of R1's shape.
const EXPERTS_R1: u64 = 8;

/// Links that people have: name and bits per second.
const NETWORKS: [(&str, u64); 2] = [("10 GbE", 10_000_000_000), ("1 GbE", 1_000_000_000)];

/// What is planned, and can be changed.
pub(super) struct State {
    pub(super) machine: Machine,
    pub(super) model: ModelFacts,
    pub(super) constraints: Constraints,
}

/// A change that can be made.
pub(super) struct Change<'a> {
    pub(super) what: String,
    pub(super) effort: Effort,
    pub(super) note: Option<String>,
    pub(super) supported: bool,
    pub(super) make: Box<dyn Fn(&mut State) + 'a>,
}

/// All changes that can be made, the least costly first.
pub(super) fn changes<'a>(question: &Question<'a>, now: Option<&Plan>) -> Vec<Change<'a>> {
    let mut found = Vec::new();
    settings(question, now, &mut found);
    quantizations(question, &mut found);
    drives(question, now, &mut found);
    memory(question, now, &mut found);
    card(question, &mut found);
    boards(question, &mut found);
    second_machine(question, &mut found);
    found
}

fn change<'a>(
    what: impl Into<String>,
    effort: Effort,
    make: impl Fn(&mut State) + 'a,
) -> Change<'a> {
    Change { what: what.into(), effort, note: None, supported: true, make: Box::new(make) }
}

impl Change<'_> {
    fn noted(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }

    /// A change that other software makes use of.
    fn unsupported(self) -> Self {
        Self { supported: false, ..self }
    }
}

fn settings<'a>(question: &Question<'a>, now: Option<&Plan>, found: &mut Vec<Change<'a>>) {
    if now.is_none_or(|now| now.fit.cache_type == KvType::F16) {
        let make = |state: &mut State| state.constraints.cache_type = Some(KvType::Q8_0);
        let change = change("KV cache in q8_0", Effort::Setting, make);
        found.push(change.noted("--kv-type q8_0"));
    }
    if question.model.experts_used == EXPERTS_R1 {
        for (used, percent) in FEWER_EXPERTS {
            let make = move |state: &mut State| state.model = state.model.with_experts_used(used);
            let what = format!("{used} of {EXPERTS_R1} experts");
            let note =
                format!("--experts {used}: perplexity +{percent} % (measured with R1 in 4 bits)");
            found.push(change(what, Effort::Setting, make).noted(note));
        }
    }
}

fn quantizations<'a>(question: &Question<'a>, found: &mut Vec<Change<'a>>) {
    let Question { model, others, .. } = *question;
    let mut smaller: Vec<&ModelFacts> =
        others.iter().filter(|other| other.size < model.size / 20 * 19).collect();
    smaller.sort_by_key(|other| std::cmp::Reverse(other.size));
    for other in smaller {
        let make = |state: &mut State| {
            let used = state.model.experts_used;
            state.model = other.with_experts_used(used);
        };
        let note = format!("{:.1} bits per weight instead of {:.1}", bits(other), bits(model));
        found.push(change(other.name.clone(), Effort::Download, make).noted(note));
    }
}

fn bits(model: &ModelFacts) -> f64 {
    // Every published model of R1's shape has 32 times as many routed weights as a token reads.
    let weights =
        model.routed_products * model.experts / model.experts_used.max(1) + model.dense_products;
    model.size as f64 * 8.0 / weights.max(1) as f64
}

/// Whether it takes no other parts: telephones, single-board computers, and what Apple makes.
fn is_closed(machine: &Machine) -> bool {
    let board = machine.processor.platform().is_some_and(|p| BOARDS.contains(&p.name));
    let product = machine.product.as_deref().unwrap_or_default();
    board
        || product.starts_with('M')
        || product.contains("iMac")
        || matches!(product, "phone" | "Chromebook")
}

fn is_portable(machine: &Machine) -> bool {
    machine.product.as_deref() == Some("laptop")
        || machine.gpus.iter().any(|gpu| gpu.name.contains("Laptop"))
}

fn drives<'a>(question: &Question<'a>, now: Option<&Plan>, found: &mut Vec<Change<'a>>) {
    if now.is_some_and(|now| now.fit.mode == Mode::Resident) || is_closed(question.machine) {
        return;
    }
    let slots = if is_portable(question.machine) { 1 } else { 4 };
    for (what, text) in [
        ("an NVMe drive of 7 GB/s (PCIe 4.0)", "gen4"),
        ("an NVMe drive of 14 GB/s (PCIe 5.0)", "gen5"),
        ("four NVMe drives of 7 GB/s as RAID 0", "4xgen4"),
    ] {
        let Ok(described) = describe::machine(text) else { continue };
        let rate = |machine: &Machine| machine.drive().map(|(_, rate)| rate);
        if what.starts_with("four") && slots < 4 {
            continue;
        }
        if rate(&described) > rate(question.machine).map(|rate| rate * 1.1) {
            let make = move |state: &mut State| state.machine.drives.clone_from(&described.drives);
            found.push(change(what, Effort::Drive, make));
        }
    }
}

fn memory<'a>(question: &Question<'a>, now: Option<&Plan>, found: &mut Vec<Change<'a>>) {
    let machine = question.machine;
    if machine.unified().is_some() || machine.machines() > 1 || is_closed(machine) {
        return;
    }
    let total = machine.memory.total_bytes.or(machine.memory.usable()).unwrap_or(0);
    let most = memory_max(machine);
    let larger: Vec<Change<'a>> = MEMORY_SIZES
        .into_iter()
        .filter(|gib| (gib << 30) > total + total / 8 && *gib <= most)
        .map(|gib| {
            let make = move |state: &mut State| set_memory(&mut state.machine.memory, gib << 30);
            change(format!("{gib} GB of memory"), Effort::Memory, make)
        })
        .collect();
    let runs = now.is_some_and(|now| now.fit.mode == Mode::Resident);
    let is_resident = |change: &Change<'_>| {
        question.after(&[change]).is_some_and(|prediction| prediction.hits.is_none())
    };
    let all = larger.iter().position(|change| !runs && is_resident(change));
    // The next size may help only with something else, such as a drive.
    for (index, change) in larger.into_iter().enumerate() {
        if Some(index) == all {
            found.push(change.noted("holds all of it"));
        } else if index == 0 && !runs {
            found.push(change);
        }
    }
    if let Some((what, make)) = faster_memory(machine) {
        found.push(Change { what, effort: Effort::Memory, note: None, supported: true, make });
    }
}

/// GiB that the board takes, as far as the platform tells.
fn memory_max(machine: &Machine) -> u64 {
    let platform = machine.processor.platform();
    match machine.memory.channels.or(platform.map(|platform| platform.channels)) {
        _ if !machine.memory.sizes.is_empty() => {
            machine.memory.sizes.iter().max().map_or(0, |bytes| bytes >> 30)
        }
        _ if platform.is_some_and(|platform| SOLDERED.contains(&platform.name)) => 0,
        Some(..=2) => MEMORY_MAX_DESKTOP,
        _ => u64::MAX,
    }
}

fn set_memory(memory: &mut Memory, total: u64) {
    let more = total.saturating_sub(memory.total_bytes.or(memory.usable()).unwrap_or(0));
    memory.total_bytes = Some(total);
    memory.available_bytes = memory.available_bytes.map(|free| free + more);
}

type Make<'a> = Box<dyn Fn(&mut State) + 'a>;

/// All channels of the platform filled, or the fastest modules that it takes.
fn faster_memory<'a>(machine: &Machine) -> Option<(String, Make<'a>)> {
    let (memory, platform) = (&machine.memory, machine.processor.platform());
    if platform.is_some_and(|platform| SOLDERED.contains(&platform.name)) {
        return None;
    }
    let all = platform.map(|platform| platform.channels * machine.processor.sockets());
    if let (Some(filled), Some(all)) = (memory.channels, all)
        && filled < all
    {
        let factor = f64::from(all) / f64::from(filled);
        let make = move |state: &mut State| {
            state.machine.memory.channels = Some(all);
            scale_bandwidth(&mut state.machine, factor);
        };
        return Some((format!("all {all} memory channels filled"), Box::new(make)));
    }
    let now = memory.speed_mts.or(platform.map(|platform| platform.speed_mts))?;
    let is_desktop = memory.channels.or(all).is_none_or(|channels| channels <= 2);
    let of_generation =
        FASTEST_DESKTOP.iter().find(|(slowest, _)| now < *slowest).map(|(_, most)| *most);
    let most = if is_desktop { of_generation? } else { platform?.speed_mts };
    let mts = most.min(now + now / 4);
    if mts < now + now / 20 {
        return None;
    }
    let make = move |state: &mut State| {
        state.machine.memory.speed_mts = Some(mts);
        scale_bandwidth(&mut state.machine, f64::from(mts) / f64::from(now));
    };
    Some((format!("memory at {mts} instead of {now} MT/s"), Box::new(make)))
}

/// Multiplies what was measured or reported by `factor`, except for formats that are limited by
/// their unpacking.
fn scale_bandwidth(machine: &mut Machine, factor: f64) {
    let Some(rate) = machine.memory.read_bytes_per_second.as_mut() else { return };
    let limited = *rate * 0.75;
    *rate *= factor;
    for of_format in machine.processor.decode_bytes_per_second.values_mut() {
        if *of_format >= limited {
            *of_format *= factor;
        }
    }
}

fn card<'a>(question: &Question<'a>, found: &mut Vec<Change<'a>>) {
    let machine = question.machine;
    let is_board = is_closed(machine)
        || is_portable(machine)
        || machine.processor.platform().is_some_and(|platform| platform.channels < 2);
    let Some(gpu) = gpus::find("4090").filter(|_| question.machine.gpus.is_empty() && !is_board)
    else {
        return;
    };
    let make = move |state: &mut State| state.machine.gpus = vec![gpu.clone()];
    let change = change("a graphics card of 24 GB (RTX 4090)", Effort::Card, make);
    let note = "with software that uses it; cachalot computes on processors so far";
    found.push(change.noted(note).unsupported());
}

/// Boards with more memory channels, for the memory and the drives that there are.
fn boards<'a>(question: &Question<'a>, found: &mut Vec<Change<'a>>) {
    let machine = question.machine;
    let board = machine.processor.platform().is_some_and(|p| BOARDS.contains(&p.name));
    if machine.unified().is_some() || machine.gpu_count() > 1 || board || machine.product.is_some()
    {
        return;
    }
    let delivers = |machine: &Machine| {
        let platform = machine.processor.platform().map(|platform| {
            f64::from(platform.channels * machine.processor.sockets())
                * f64::from(platform.speed_mts)
                * 8e6
        });
        machine.memory.theoretical().or(machine.memory.read_bytes_per_second).or(platform)
    };
    let Some(now) = delivers(machine) else { return };
    for (what, text) in [
        ("a used server board with 8 channels of DDR4-3200 (EPYC 7002)", "epyc-7702 8x3200"),
        ("a server board with 12 channels of DDR5-4800 (EPYC 9004)", "epyc-9654 12x4800"),
    ] {
        let Ok(board) = describe::machine(text) else { continue };
        if delivers(&board).is_some_and(|rate| rate > now * 1.2) {
            let make = move |state: &mut State| {
                let total = state.machine.memory.total_bytes;
                state.machine.processor = board.processor.clone();
                state.machine.memory = Memory { total_bytes: total, ..board.memory.clone() };
            };
            found.push(change(what, Effort::Machine, make).noted("with as much memory"));
        }
    }
}

/// Another machine like this one, with the model split over both.
fn second_machine<'a>(question: &Question<'a>, found: &mut Vec<Change<'a>>) {
    let machine = question.machine;
    let is_small = matches!(machine.product.as_deref(), Some("phone" | "Chromebook"))
        || machine.processor.platform().is_some_and(|p| BOARDS.contains(&p.name));
    if machine.gpu_count() > 1 || is_small {
        return;
    }
    for (name, bits_per_second) in NETWORKS {
        let link = Link {
            name: name.to_owned(),
            bits_per_second,
            ..machine.links.first().cloned().unwrap_or_default()
        };
        let link = Link { latency_seconds: None, ..link };
        let make = move |state: &mut State| {
            state.machine.machines = Some(state.machine.machines() + 1);
            state.machine.links = vec![link.clone()];
        };
        let what = format!("a second machine like this over {name}");
        let note = "with software for several machines; cachalot runs on one so far";
        found.push(change(what, Effort::Machine, make).noted(note).unsupported());
    }
}
