//! What would help, and how much: each change is made to the facts, and the planner asked again.
//!
//! There are no prices here: they change by the month. Changes are of a few kinds, ordered by what
//! they usually cost, from settings that cost nothing to another machine, and the cheapest that
//! doubles the speed is the first of its kind that does; if none does alone, two together.

use cachalot_gguf::KvType;
use serde::Serialize;

use crate::fit::{Constraints, MemoryBudget, Mode};
use crate::machine::{Link, Machine, Memory};
use crate::model::ModelFacts;
use crate::predict::{Prediction, RateRange, RuntimeProfile};
use crate::{Plan, describe, gpus, plan};

/// What kind of change it is, in the order of usual cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effort {
    /// A flag.
    Setting,
    /// Another file.
    Download,
    /// A drive, or several.
    Drive,
    /// Memory modules.
    Memory,
    /// A graphics card.
    Card,
    /// Another machine, or another board and processor.
    Machine,
}

/// A change, and what it brings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Upgrade {
    /// In a few words.
    pub what: String,
    /// Its kind.
    pub effort: Effort,
    /// Tokens per second with it, nothing in the cache.
    pub decode: RateRange,
    /// How many times as fast as now; `None` if it does not run now.
    pub gain: Option<f64>,
    /// What else is to be known: what it costs in quality, or what is needed besides.
    pub note: Option<String>,
    /// Whether cachalot makes use of it so far.
    pub supported: bool,
    /// Its place among changes of its kind, the smallest first: one drive before four, a slightly
    /// smaller file before a much smaller one.
    pub rank: usize,
}

/// What to recommend.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Advice {
    /// The cheapest change that doubles the speed, or with which the model runs.
    One(Upgrade),
    /// The same, of which cachalot makes no use yet; and the cheapest pair of which it does.
    Elsewhere(Upgrade, Option<Upgrade>),
    /// No single change doubles the speed; the cheapest pair that does.
    Two(Upgrade),
    /// Not even a pair doubles it.
    Nothing,
}

impl Advice {
    /// The change that is named first.
    pub fn first(&self) -> Option<&Upgrade> {
        match self {
            Self::One(upgrade) | Self::Elsewhere(upgrade, _) | Self::Two(upgrade) => Some(upgrade),
            Self::Nothing => None,
        }
    }
}

/// What to recommend, of `upgrades`; pages and JSON say the same.
pub fn advice(question: &Question<'_>, upgrades: &[Upgrade]) -> Advice {
    match cheapest_doubling(upgrades) {
        Some(one) if one.supported => Advice::One(one.clone()),
        Some(one) => Advice::Elsewhere(one.clone(), cheapest_pair(question)),
        None => cheapest_pair(question).map_or(Advice::Nothing, Advice::Two),
    }
}

/// Gains below this are not worth a line.
const GAIN_MIN: f64 = 1.03;
/// Sizes in which memory is bought, in GiB.
const MEMORY_SIZES: [u64; 15] =
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

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The machine as it is.
    pub machine: &'a Machine,
    /// The model.
    pub model: &'a ModelFacts,
    /// Other quantizations of it.
    pub others: &'a [ModelFacts],
    /// What the user insists on.
    pub constraints: Constraints,
    /// The software.
    pub profile: RuntimeProfile,
}

/// What is planned, and can be changed.
#[derive(Clone)]
struct State {
    machine: Machine,
    model: ModelFacts,
    constraints: Constraints,
}

/// Links that people have: name and bits per second.
const NETWORKS: [(&str, u64); 2] = [("10 GbE", 10_000_000_000), ("1 GbE", 1_000_000_000)];

/// A change that can be made.
struct Change<'a> {
    what: String,
    effort: Effort,
    note: Option<String>,
    supported: bool,
    make: Box<dyn Fn(&mut State) + 'a>,
}

impl Question<'_> {
    fn state(&self) -> State {
        let (machine, model) = (self.machine.clone(), self.model.clone());
        State { machine, model, constraints: self.constraints }
    }

    /// What is predicted after some changes; `None` if it does not run.
    fn after(&self, changes: &[&Change<'_>]) -> Option<Prediction> {
        let mut state = self.state();
        changes.iter().for_each(|change| (change.make)(&mut state));
        let plan = plan(&state.machine, &state.model, state.constraints, self.profile).ok()?;
        Some(plan.prediction)
    }
}

/// All changes that help, the greatest gain first.
pub fn upgrades(question: &Question<'_>) -> Vec<Upgrade> {
    let now = plan(question.machine, question.model, question.constraints, question.profile).ok();
    let base = now.as_ref().map(|now| now.prediction.decode(0).likely);
    let changes = changes(question, now.as_ref());
    let found = changes.iter().enumerate().filter_map(|(rank, change)| {
        let decode = question.after(&[change])?.decode(0);
        let gain = base.map(|base| decode.likely / base);
        let (what, note) = (change.what.clone(), change.note.clone());
        let (effort, supported) = (change.effort, change.supported);
        Some(Upgrade { what, effort, decode, gain, note, supported, rank })
    });
    let mut found: Vec<Upgrade> =
        found.filter(|upgrade| upgrade.gain.is_none_or(|gain| gain >= GAIN_MIN)).collect();
    found.sort_by(|a, b| b.decode.likely.total_cmp(&a.decode.likely).then(a.effort.cmp(&b.effort)));
    found
}

/// The least costly change that at least doubles the speed, or makes the model run at all; one that
/// cachalot makes no use of only if there is no other.
pub fn cheapest_doubling(upgrades: &[Upgrade]) -> Option<&Upgrade> {
    let enough = upgrades.iter().filter(|upgrade| upgrade.gain.is_none_or(|gain| gain >= 2.0));
    enough.min_by_key(|upgrade| (!upgrade.supported, upgrade.effort, upgrade.rank))
}

/// The two least costly changes of different kinds that double the speed together, where none does
/// alone; or of those with which it runs at all the two that bring least, since more is not a
/// smaller change.
pub fn cheapest_pair(question: &Question<'_>) -> Option<Upgrade> {
    let now = plan(question.machine, question.model, question.constraints, question.profile).ok();
    let base = now.as_ref().map(|now| now.prediction.decode(0).likely);
    let changes = changes(question, now.as_ref());
    let enough = |changes: &[&Change<'_>]| {
        let decode = question.after(changes)?.decode(0);
        base.is_none_or(|base| decode.likely >= 2.0 * base).then_some(decode)
    };
    let not_alone: Vec<&Change<'_>> =
        changes.iter().filter(|change| change.supported && enough(&[change]).is_none()).collect();
    let mut pairs = Vec::new();
    for (index, first) in not_alone.iter().enumerate() {
        for second in not_alone[index + 1..].iter().filter(|second| second.effort != first.effort) {
            let Some(decode) = enough(&[first, second]) else { continue };
            let what = format!("{}, and {}", first.what, second.what);
            let gain = base.map(|base| decode.likely / base);
            let (effort, rank) = (second.effort, pairs.len());
            let costs = (second.effort, first.effort, rank);
            let pair = Upgrade { what, effort, decode, gain, note: None, supported: true, rank };
            pairs.push((costs, pair));
        }
    }
    pairs.into_iter().min_by_key(|(costs, _)| *costs).map(|(_, pair)| pair)
}

/// All changes that can be made, the least costly first.
fn changes<'a>(question: &Question<'a>, now: Option<&Plan>) -> Vec<Change<'a>> {
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

/// The least memory with which the model runs, of sizes in which memory is bought, and whether a
/// drive is needed besides; `None` if no size is enough.
pub fn least_memory(question: &Question<'_>) -> Option<(u64, bool)> {
    let Question { machine, model, constraints, .. } = *question;
    let fits = |gib: u64| {
        let mut larger = machine.clone();
        larger.memory.total_bytes = Some(gib << 30);
        larger.memory.available_bytes = None;
        let budget = MemoryBudget::of(&larger, None);
        let fits =
            |drive| crate::fit::fit(model, MemoryBudget { drive, ..budget }, constraints).is_ok();
        match (fits(budget.drive), fits(true)) {
            (true, _) => Some((gib << 30, false)),
            (false, true) => Some((gib << 30, true)),
            (false, false) => None,
        }
    };
    MEMORY_SIZES.into_iter().find_map(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalogue, presets};

    fn asked(machine: &str, quant: &str) -> Vec<Upgrade> {
        let machine = presets::machine(machine).unwrap();
        let model = catalogue::find(quant)[0].model();
        let others: Vec<ModelFacts> =
            catalogue::find("unsloth/DeepSeek-R1-GGUF").iter().map(|p| p.model()).collect();
        upgrades(&Question {
            machine: &machine,
            model: &model,
            others: &others,
            constraints: Constraints::default(),
            profile: RuntimeProfile::default(),
        })
    }

    fn gain(upgrades: &[Upgrade], what: &str) -> Option<f64> {
        upgrades.iter().find(|upgrade| upgrade.what.contains(what))?.gain
    }

    #[test]
    fn closed_machines_are_offered_no_parts() {
        let offered = |machine: &str| -> Vec<Effort> {
            asked(machine, "UD-IQ1_S").iter().map(|upgrade| upgrade.effort).collect()
        };
        for machine in ["phone 16GB", "chromebook 8GB", "raspberry pi 5 16GB", "steam deck"] {
            let offered = offered(machine);
            assert!(offered.iter().all(|effort| *effort <= Effort::Download), "{machine}");
        }
        let parts = [Effort::Drive, Effort::Memory, Effort::Card];
        assert!(offered("macbook air m3 24GB").iter().all(|effort| !parts.contains(effort)));
        let laptop = asked("laptop 64GB", "UD-IQ1_S");
        assert_eq!((gain(&laptop, "RAID"), gain(&laptop, "RTX")), (None, None));
        assert_eq!(gain(&laptop, "256 GB of memory"), None);
    }

    #[test]
    fn a_machine_that_streams_is_helped_by_drives_and_memory() {
        let upgrades = asked("96GB 2x6000 ryzen 9950x nvme 3.5GB/s", "UD-Q2_K_XL");
        assert!(gain(&upgrades, "RAID 0").is_some_and(|gain| gain > 1.2), "{upgrades:#?}");
        assert!(gain(&upgrades, "holds").is_none());
        assert!(
            gain(&upgrades, "256 GB of memory").is_some_and(|gain| gain > 1.3),
            "{upgrades:#?}"
        );
        assert!(gain(&upgrades, "UD-IQ1_S").is_some_and(|gain| gain > 1.0), "{upgrades:#?}");
        let gains: Vec<f64> = upgrades.iter().filter_map(|upgrade| upgrade.gain).collect();
        assert!(gains.is_sorted_by(|a, b| a >= b), "{gains:?}");
    }

    #[test]
    fn a_machine_that_holds_everything_is_helped_by_bandwidth_not_by_drives() {
        let upgrades = asked("epyc-ddr4", "q4_k_m");
        assert_eq!(gain(&upgrades, "NVMe"), None);
        assert!(gain(&upgrades, "memory at 3000 instead of 2400").unwrap() > 1.1);
        assert!(gain(&upgrades, "RTX 4090").unwrap() > 1.3, "{upgrades:#?}");
        assert!(gain(&upgrades, "10 GbE").unwrap() > gain(&upgrades, "1 GbE").unwrap());
        assert!(gain(&upgrades, "6 of 8 experts").unwrap() > 1.1);
    }

    #[test]
    fn the_cheapest_that_doubles_is_of_the_least_effort() {
        let range = |likely| RateRange { low: likely, likely, high: likely };
        let upgrade = |what: &str, effort, likely, gain| Upgrade {
            what: what.to_owned(),
            effort,
            decode: range(likely),
            gain: Some(gain),
            note: None,
            supported: true,
            rank: 0,
        };
        let all = [
            upgrade("card", Effort::Card, 9.0, 3.0),
            upgrade("drive", Effort::Drive, 6.0, 2.0),
            upgrade("setting", Effort::Setting, 4.0, 1.3),
        ];
        assert_eq!(cheapest_doubling(&all).unwrap().what, "drive");
        let four = Upgrade { rank: 1, ..upgrade("four drives", Effort::Drive, 8.0, 2.7) };
        let all = [four, upgrade("one drive", Effort::Drive, 6.0, 2.0)];
        assert_eq!(cheapest_doubling(&all).unwrap().what, "one drive", "no more than is needed");
        assert_eq!(cheapest_doubling(&all[2..]), None);
    }

    #[test]
    fn unified_memory_streams_too() {
        let upgrades = asked("dgx spark nvme 1GB/s", "UD-IQ1_S");
        assert!(gain(&upgrades, "14 GB/s").is_some_and(|gain| gain > 1.0), "{upgrades:#?}");
    }

    #[test]
    fn where_one_change_does_not_double_two_do() {
        let machine = presets::machine("desktop-96").unwrap();
        let model = catalogue::find("UD-Q2_K_XL")[0].model();
        let others = [catalogue::find("UD-IQ1_S")[0].model()];
        let (constraints, profile) = (Constraints::default(), RuntimeProfile::default());
        let question =
            Question { machine: &machine, model: &model, others: &others, constraints, profile };
        let single = cheapest_doubling(&upgrades(&question)).cloned();
        assert!(single.is_none_or(|single| !single.supported));
        let pair = cheapest_pair(&question).unwrap();
        assert!(pair.gain.unwrap() >= 2.0 && pair.what.contains(", and "), "{pair:?}");
    }

    #[test]
    fn nobody_is_told_to_buy_what_does_not_fit() {
        let of = |machine: &str| {
            let upgrades = asked(machine, "UD-IQ1_S");
            upgrades.iter().map(|upgrade| upgrade.what.clone()).collect::<Vec<_>>().join("\n")
        };
        assert!(!of("strix-halo").contains("GB of memory"), "it is soldered");
        assert!(!of("raspberry-pi").contains("RTX 4090"));
        assert!(!of("desktop-96").contains("384 GB of memory"));
        assert!(of("epyc-7702 8x3200 64GB nvme").contains("GB of memory"));
        assert!(!of("epyc-7702 8x3200 64GB nvme").contains("MT/s"), "3200 is the fastest it takes");
    }

    #[test]
    fn changes_that_make_no_sense_are_not_offered() {
        let offered = |machine: &str, what: &str| gain(&asked(machine, "UD-IQ1_S"), what).is_some();
        assert!(!offered("raspberry pi 5 16GB", "server board"));
        assert!(!offered("raspberry pi 5 16GB", "PCIe 5.0"));
        assert!(!offered("macbook pro m4 max 48GB 1TB", "NVMe"));
        assert!(!offered("mac mini m4 pro 64GB", "GB of memory"));
    }

    #[test]
    fn a_machine_that_is_too_small_is_told_what_it_needs() {
        let machine = presets::machine("8GB 2x4800 nvme").unwrap();
        let model = catalogue::find("UD-IQ1_S")[0].model();
        let question = Question {
            machine: &machine,
            model: &model,
            others: &[],
            constraints: Constraints::default(),
            profile: RuntimeProfile::default(),
        };
        assert_eq!(least_memory(&question), Some((16 << 30, false)));
        assert!(
            upgrades(&question).iter().any(|u| u.gain.is_none() && u.what.contains("GB of memory"))
        );
        // Without a drive, too, 16 GB and one are less than what holds all of it.
        let machine = presets::machine("8GB 2x4800").unwrap();
        let question = Question { machine: &machine, ..question };
        assert_eq!(least_memory(&question), Some((16 << 30, true)));
        let pair = cheapest_pair(&question).unwrap();
        assert!(pair.what.contains("NVMe") && pair.what.contains("16 GB of memory"), "{pair:?}");
    }
}
