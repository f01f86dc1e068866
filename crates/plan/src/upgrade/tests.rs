//! Which changes help whom, and which of them are recommended.

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
    assert!(gain(&upgrades, "256 GB of memory").is_some_and(|gain| gain > 1.3), "{upgrades:#?}");
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
