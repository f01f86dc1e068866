//! What would help, and how much: each change is made to the facts, and the planner asked again.
//!
//! There are no prices here: they change by the month. Changes are of a few kinds, ordered by what
//! they usually cost, from settings that cost nothing to another machine, and the cheapest that
//! doubles the speed is the first of its kind that does.

use serde::Serialize;

use crate::demand::CacheType;
use crate::fit::{Mode, Room, Wish};
use crate::machine::Machine;
use crate::model::Model;
use crate::predict::{Engine, Range, What};
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
    pub decode: Range,
    /// How many times as fast as now; `None` if it does not run now.
    pub gain: Option<f64>,
    /// What else is to be known: what it costs in quality, or what is needed besides.
    pub note: Option<String>,
}

/// Gains below this are not worth a line.
const GAIN_MIN: f64 = 1.03;
/// Sizes in which memory is bought, in GiB.
const MEMORY_SIZES: [u64; 15] =
    [8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536];
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
    pub model: &'a Model,
    /// Other quantizations of it.
    pub others: &'a [Model],
    /// What the user insists on.
    pub wish: Wish,
    /// The software.
    pub engine: Engine,
}

/// All changes that help, the greatest gain first.
pub fn upgrades(question: &Question<'_>) -> Vec<Upgrade> {
    let now = plan(question.machine, question.model, question.wish, question.engine).ok();
    let mut found = Vec::new();
    settings(question, now.as_ref(), &mut found);
    quantizations(question, &mut found);
    drives(question, now.as_ref(), &mut found);
    memory(question, now.as_ref(), &mut found);
    card(question, &mut found);
    second_machine(question, &mut found);
    let base = now.map(|now| now.prediction.decode(0).likely);
    for upgrade in &mut found {
        upgrade.gain = base.map(|base| upgrade.decode.likely / base);
    }
    found.retain(|upgrade| upgrade.gain.is_none_or(|gain| gain >= GAIN_MIN));
    found.sort_by(|a, b| b.decode.likely.total_cmp(&a.decode.likely).then(a.effort.cmp(&b.effort)));
    found
}

/// The least costly change that at least doubles the speed, or makes the model run at all.
pub fn cheapest_doubling(upgrades: &[Upgrade]) -> Option<&Upgrade> {
    let enough = upgrades.iter().filter(|upgrade| upgrade.gain.is_none_or(|gain| gain >= 2.0));
    enough.min_by(|a, b| a.effort.cmp(&b.effort).then(b.decode.likely.total_cmp(&a.decode.likely)))
}

fn add(
    found: &mut Vec<Upgrade>,
    what: String,
    effort: Effort,
    planned: Result<Plan, crate::Error>,
    note: Option<String>,
) {
    if let Ok(planned) = planned {
        found.push(Upgrade {
            what,
            effort,
            decode: planned.prediction.decode(0),
            gain: None,
            note,
        });
    }
}

fn settings(question: &Question<'_>, now: Option<&Plan>, found: &mut Vec<Upgrade>) {
    let Question { machine, model, wish, engine, .. } = *question;
    if model.experts_used == EXPERTS_R1 {
        for (used, percent) in FEWER_EXPERTS {
            let planned = plan(machine, &model.with_experts_used(used), wish, engine);
            let note = format!("perplexity +{percent} % (measured with R1 in 4 bits)");
            add(
                found,
                format!("{used} of {EXPERTS_R1} experts"),
                Effort::Setting,
                planned,
                Some(note),
            );
        }
    }
    if now.is_none_or(|now| now.fit.cache_type == CacheType::F16) {
        let wish = Wish { cache_type: Some(CacheType::Q8_0), ..wish };
        add(
            found,
            "keys and values in q8_0".to_owned(),
            Effort::Setting,
            plan(machine, model, wish, engine),
            None,
        );
    }
}

fn quantizations(question: &Question<'_>, found: &mut Vec<Upgrade>) {
    let Question { machine, model, others, wish, engine } = *question;
    let smaller = others.iter().filter(|other| other.size < model.size / 20 * 19);
    let planned = smaller.map(|other| (other, plan(machine, other, wish, engine)));
    for (other, planned) in planned {
        let note = format!("{:.1} bits per weight instead of {:.1}", bits(other), bits(model));
        add(found, other.name.clone(), Effort::Download, planned, Some(note));
    }
}

fn bits(model: &Model) -> f64 {
    // Every published model of R1's shape has 32 times as many routed weights as a token reads.
    let weights =
        model.routed_products * model.experts / model.experts_used.max(1) + model.dense_products;
    model.size as f64 * 8.0 / weights.max(1) as f64
}

fn drives(question: &Question<'_>, now: Option<&Plan>, found: &mut Vec<Upgrade>) {
    if now.is_some_and(|now| now.fit.mode == Mode::Resident) {
        return;
    }
    let Question { machine, model, wish, engine, .. } = *question;
    for (what, text) in [
        ("an NVMe drive of 7 GB/s (PCIe 4.0)", "gen4"),
        ("an NVMe drive of 14 GB/s (PCIe 5.0)", "gen5"),
        ("four NVMe drives of 7 GB/s as RAID 0", "4xgen4"),
    ] {
        let Ok(described) = describe::machine(text) else { continue };
        let better = Machine { drives: described.drives, ..machine.clone() };
        let faster =
            better.drive().map(|(_, rate)| rate) > machine.drive().map(|(_, rate)| rate * 1.1);
        if faster {
            add(found, what.to_owned(), Effort::Drive, plan(&better, model, wish, engine), None);
        }
    }
}

fn memory(question: &Question<'_>, now: Option<&Plan>, found: &mut Vec<Upgrade>) {
    let Question { machine, model, wish, engine, .. } = *question;
    if machine.unified().is_some() {
        return;
    }
    let total = machine.memory.total_bytes.or(machine.memory.usable()).unwrap_or(0);
    let with = |gib: u64| {
        let mut better = machine.clone();
        let more = (gib << 30).saturating_sub(total);
        better.memory.total_bytes = Some(gib << 30);
        better.memory.available_bytes = better.memory.available_bytes.map(|free| free + more);
        better
    };
    let larger = MEMORY_SIZES.into_iter().filter(|gib| (gib << 30) > total + total / 8);
    let fits = |gib: &u64| {
        plan(&with(*gib), model, wish, engine).is_ok_and(|plan| plan.fit.mode == Mode::Resident)
    };
    let runs = now.is_some_and(|now| now.fit.mode == Mode::Resident);
    let all = larger.clone().find(fits).filter(|_| !runs);
    let next =
        larger.clone().find(|gib| plan(&with(*gib), model, wish, engine).is_ok()).filter(|_| !runs);
    for gib in next.into_iter().chain(all.filter(|all| Some(*all) != next)) {
        let note = (Some(gib) == all).then(|| "holds all of it".to_owned());
        add(
            found,
            format!("{gib} GB of memory"),
            Effort::Memory,
            plan(&with(gib), model, wish, engine),
            note,
        );
    }
    if let Some((what, better)) = faster_memory(machine) {
        add(found, what, Effort::Memory, plan(&better, model, wish, engine), None);
    }
}

/// All channels of the platform, or memory a quarter faster.
fn faster_memory(machine: &Machine) -> Option<(String, Machine)> {
    let mut better = machine.clone();
    let memory = &mut better.memory;
    let channels = machine.processor.platform().map(|p| p.channels * machine.processor.sockets());
    let factor = match (memory.channels, channels) {
        (Some(filled), Some(all)) if filled < all => {
            memory.channels = Some(all);
            f64::from(all) / f64::from(filled)
        }
        _ => 1.25,
    };
    memory.read_bytes_per_second = memory.read_bytes_per_second.map(|rate| rate * factor);
    if memory.channels != machine.memory.channels {
        return Some((format!("all {} memory channels filled", memory.channels?), better));
    }
    memory.speed_mts = memory.speed_mts.map(|mts| mts + mts / 4);
    let known = memory.speed_mts.is_some() || memory.read_bytes_per_second.is_some();
    known.then(|| ("memory a quarter faster".to_owned(), better))
}

fn card(question: &Question<'_>, found: &mut Vec<Upgrade>) {
    let Question { machine, model, wish, engine, .. } = *question;
    if !machine.gpus.is_empty() {
        return;
    }
    let Some(gpu) = gpus::find("4090") else { return };
    let better = Machine { gpus: vec![gpu], ..machine.clone() };
    let note = "with software that uses it; cachalot computes on processors so far".to_owned();
    add(
        found,
        "a graphics card of 24 GB (RTX 4090)".to_owned(),
        Effort::Card,
        plan(&better, model, wish, engine),
        Some(note),
    );
}

/// Links between two machines: name, seconds for a message, bytes per second.
const LINKS: [(&str, f64, f64); 2] = [("10 GbE", 30e-6, 1.25e9), ("1 GbE", 75e-6, 0.125e9)];
/// Sums over all machines in each layer: after attention and after the experts.
const SUMS_PER_LAYER: f64 = 2.0;

/// Another machine like this one, every matrix sliced in two: each reads half of the bytes and holds
/// half of the weights, and each layer adds up two vectors of hidden length, in f16, over the network.
fn second_machine(question: &Question<'_>, found: &mut Vec<Upgrade>) {
    let Question { machine, model, wish, engine, .. } = *question;
    if machine.unified().is_some() || machine.gpu_count() > 1 {
        return;
    }
    let mut both = machine.clone();
    let memory = &mut both.memory;
    memory.total_bytes = memory.total_bytes.map(|bytes| bytes.saturating_mul(2));
    memory.available_bytes = memory.available_bytes.map(|bytes| bytes.saturating_mul(2));
    let Ok(planned) = plan(&both, model, wish, engine) else { return };
    for (name, latency, rate) in LINKS {
        let mut prediction = planned.prediction.clone();
        for part in prediction.parts.iter_mut().filter(|part| part.what != What::Layers) {
            part.seconds /= 2.0;
        }
        let vector = model.hidden as f64 * 2.0;
        let network = SUMS_PER_LAYER * model.layers as f64 * (latency + vector / rate);
        let layers = prediction.parts.iter_mut().find(|part| part.what == What::Layers);
        layers.into_iter().for_each(|part| part.seconds += network);
        let note = format!("{:.0} ms of network per token; not in this release", network * 1e3);
        found.push(Upgrade {
            what: format!("a second machine like this over {name}"),
            effort: Effort::Machine,
            decode: prediction.decode(0),
            gain: None,
            note: Some(note),
        });
    }
}

/// The least memory with which the model runs, of sizes in which memory is bought; `None` if no size
/// is enough.
pub fn least_memory(question: &Question<'_>) -> Option<u64> {
    let Question { machine, model, wish, .. } = *question;
    let fits = |gib: &u64| {
        let mut larger = machine.clone();
        larger.memory.total_bytes = Some(gib << 30);
        larger.memory.available_bytes = None;
        crate::fit::fit(model, Room::of(&larger), wish).is_ok()
    };
    MEMORY_SIZES.into_iter().find(fits).map(|gib| gib << 30)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalogue, presets};

    fn asked(machine: &str, quant: &str) -> Vec<Upgrade> {
        let machine = presets::machine(machine).unwrap();
        let model = catalogue::find(quant)[0].model();
        let others: Vec<Model> =
            catalogue::find("unsloth/DeepSeek-R1-GGUF").iter().map(|p| p.model()).collect();
        upgrades(&Question {
            machine: &machine,
            model: &model,
            others: &others,
            wish: Wish::default(),
            engine: Engine::default(),
        })
    }

    fn gain(upgrades: &[Upgrade], what: &str) -> Option<f64> {
        upgrades.iter().find(|upgrade| upgrade.what.contains(what))?.gain
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
        assert!(gain(&upgrades, "memory a quarter faster").unwrap() > 1.1);
        assert!(gain(&upgrades, "RTX 4090").unwrap() > 1.3, "{upgrades:#?}");
        assert!(gain(&upgrades, "10 GbE").unwrap() > gain(&upgrades, "1 GbE").unwrap());
        assert!(gain(&upgrades, "6 of 8 experts").unwrap() > 1.1);
    }

    #[test]
    fn the_cheapest_that_doubles_is_of_the_least_effort() {
        let range = |likely| Range { low: likely, likely, high: likely };
        let upgrade = |what: &str, effort, likely, gain| Upgrade {
            what: what.to_owned(),
            effort,
            decode: range(likely),
            gain: Some(gain),
            note: None,
        };
        let all = [
            upgrade("card", Effort::Card, 9.0, 3.0),
            upgrade("drive", Effort::Drive, 6.0, 2.0),
            upgrade("setting", Effort::Setting, 4.0, 1.3),
        ];
        assert_eq!(cheapest_doubling(&all).unwrap().what, "drive");
        assert_eq!(cheapest_doubling(&all[2..]), None);
    }

    #[test]
    fn a_machine_that_is_too_small_is_told_what_it_needs() {
        let machine = presets::machine("8GB 2x4800 nvme").unwrap();
        let model = catalogue::find("UD-IQ1_S")[0].model();
        let question = Question {
            machine: &machine,
            model: &model,
            others: &[],
            wish: Wish::default(),
            engine: Engine::default(),
        };
        assert_eq!(least_memory(&question), Some(16 << 30));
        assert!(
            upgrades(&question).iter().any(|u| u.gain.is_none() && u.what.contains("GB of memory"))
        );
    }
}
