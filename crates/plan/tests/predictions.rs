//! What predictions must be, whatever the constants: never slower for better hardware, true to the
//! figures that people go by, and explained the same way every time.

use cachalot_plan::machine::{Drive, Link, Machine};
use cachalot_plan::{
    Class, Constraints, KvType, Mode, ModelFacts, Plan, RuntimeProfile, SoftwareAge, catalogue,
    describe, explain, gpus, plan, presets,
};
use proptest::prelude::*;

fn model(name: &str) -> ModelFacts {
    catalogue::find(name)[0].model()
}

fn planned(machine: &str, name: &str) -> Plan {
    let machine = presets::machine(machine).expect("a machine that is understood");
    plan(&machine, &model(name), Constraints::default(), RuntimeProfile::default())
        .expect("it fits")
}

/// Answers of R1 are thousands of tokens long: rates that people report are those halfway through.
const HALFWAY: u64 = 4096;

#[test]
fn eight_channels_of_ddr5_do_4_to_6() {
    let rate = planned("epyc-9354 8x4800 512GB", "q4_k_m").prediction.decode(HALFWAY).likely;
    assert!((4.0..=6.0).contains(&rate), "{rate}");
}

#[test]
fn eight_channels_of_ddr4_do_3_to_4() {
    let rate = planned("epyc-7702 8x3200 512GB", "q4_k_m").prediction.decode(HALFWAY).likely;
    assert!((3.0..=4.0).contains(&rate), "{rate}");
    let rig = planned("epyc-ddr4", "q4_k_m").prediction.decode(0).likely;
    assert!((3.0..=4.0).contains(&rig), "the 2,000-dollar rig: {rig}");
}

#[test]
fn twelve_channels_do_8_and_more_in_q4_k_s() {
    let plan = planned("epyc-ddr5", "q4_k_s");
    for depth in [0, HALFWAY] {
        let rate = plan.prediction.decode(depth).likely;
        assert!(rate >= 8.0, "{rate} at {depth}");
    }
}

#[test]
fn eight_h100_did_30_to_40_and_do_about_60() {
    let current = planned("8xh100", "q4_k_m");
    assert_eq!(current.prediction.class, Class::JoinedCards);
    let range = current.prediction.decode(0);
    assert!((55.0..=70.0).contains(&range.likely), "current runtimes: {range:?}");
    let early = RuntimeProfile { age: SoftwareAge::Early, ..RuntimeProfile::default() };
    let machine = presets::machine("8xh100").unwrap();
    let early = plan(&machine, &model("q4_k_m"), Constraints::default(), early).unwrap();
    let range = early.prediction.decode(0);
    assert!((30.0..=40.0).contains(&range.likely), "runtimes of early 2025: {range:?}");
}

#[test]
fn a_desktop_of_96_gb_streams_r1_at_about_3() {
    let plan = planned("desktop-96", "UD-Q2_K_XL");
    assert!(matches!(plan.fit.mode, Mode::Streamed { .. }));
    let range = plan.prediction.decode(0);
    assert!((2.0..=3.5).contains(&range.likely), "{range:?}");
}

#[test]
fn presets_are_planned_the_same_way_every_time() {
    let mut table = String::new();
    for preset in presets::PRESETS {
        for quant in ["UD-IQ1_S", "UD-Q2_K_XL", "Q4_K_M"] {
            let machine = presets::machine(preset.name).unwrap();
            let line = match plan(
                &machine,
                &model(quant),
                Constraints::default(),
                RuntimeProfile::default(),
            ) {
                Ok(Plan { fit, prediction }) => {
                    let range = prediction.decode(0);
                    format!(
                        "{:5.2} tok/s ({:.2}-{:.2}), bound by {}, {} tokens, {:?}",
                        range.likely,
                        range.low,
                        range.high,
                        prediction.bound().bound(),
                        fit.context,
                        prediction.class
                    )
                }
                Err(error) => error.to_string(),
            };
            table += &format!("{:<17} {quant:<11} {line}\n", preset.name);
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn explanations_are_complete_and_the_same_every_time() {
    let mut text = String::new();
    for (machine, quant) in
        [("desktop-96", "UD-Q2_K_XL"), ("desktop-4090", "UD-IQ1_S"), ("dual-xeon", "q4_k_m")]
    {
        text += &format!("{quant} on {machine}\n");
        let facts = presets::machine(machine).unwrap();
        let model = model(quant);
        let plan = plan(&facts, &model, Constraints::default(), RuntimeProfile::default()).unwrap();
        for row in explain::explain(&facts, &model, &plan) {
            text += &format!("  {:<30} {:>12}  {}\n", row.name, row.value, row.formula);
        }
    }
    insta::assert_snapshot!(text);
}

/// A machine with all that matters, of any size.
#[derive(Debug, Clone)]
struct Any {
    machine: Machine,
    quant: &'static str,
}

fn any_machine() -> impl Strategy<Value = Any> {
    let quants = prop_oneof![Just("UD-IQ1_S"), Just("UD-Q2_K_XL"), Just("Q4_K_M"), Just("Q8_0")];
    let cards =
        proptest::option::of((prop_oneof![Just("3090"), Just("4090"), Just("5090")], 1_u32..16));
    (8_u64..1600, 1_u32..25, 1600_u32..9000, 1e8_f64..5e10, cards, quants).prop_map(
        |(gib, channels, mts, drive, cards, quant)| {
            let mut machine =
                Machine { drives: vec![describe::drive(drive)], ..Machine::default() };
            machine.memory.total_bytes = Some(gib << 30);
            (machine.memory.channels, machine.memory.speed_mts) = (Some(channels), Some(mts));
            machine.processor.cores = Some(32);
            machine.gpus.extend(cards.map(|(name, count)| {
                let mut gpu = gpus::find(name).expect("a known card");
                gpu.count = count;
                gpu
            }));
            Any { machine, quant }
        },
    )
}

/// Tokens per second halfway through an answer, at one and the same context, 0 if it does not run.
fn rate(any: &Any, change: impl FnOnce(&mut Machine)) -> f64 {
    let mut machine = any.machine.clone();
    change(&mut machine);
    // What a longer context takes is not there for experts, and more memory may mean a longer one.
    let constraints = Constraints {
        context: Some(4096),
        cache_type: Some(KvType::F16),
        ..Constraints::default()
    };
    plan(&machine, &model(any.quant), constraints, RuntimeProfile::default())
        .map_or(0.0, |plan| plan.prediction.decode(HALFWAY).likely)
}

proptest! {
    #[test]
    fn more_memory_is_never_slower(any in any_machine(), more in 1_u64..500) {
        let larger = rate(&any, |machine| {
            let memory = &mut machine.memory;
            memory.total_bytes = memory.total_bytes.map(|bytes| bytes + (more << 30));
        });
        prop_assert!(larger >= rate(&any, |_| {}) * 0.9999, "{larger}");
    }

    #[test]
    fn faster_memory_is_never_slower(any in any_machine(), more in 1_u32..4000) {
        let faster = rate(&any, |machine| {
            machine.memory.speed_mts = machine.memory.speed_mts.map(|mts| mts + more);
        });
        prop_assert!(faster >= rate(&any, |_| {}) * 0.9999, "{faster}");
    }

    #[test]
    fn more_channels_are_never_slower(any in any_machine(), more in 1_u32..12) {
        let wider = rate(&any, |machine| {
            machine.memory.channels = machine.memory.channels.map(|channels| channels + more);
        });


        prop_assert!(wider >= rate(&any, |_| {}) * 0.9999, "{wider}");
    }

    #[test]
    fn more_cards_are_never_slower(any in any_machine(), joined: bool) {
        let of = |count: u32| rate(&any, |machine| {
            if machine.gpus.is_empty() {
                machine.gpus.extend(gpus::find("3090"));
            }
            for gpu in &mut machine.gpus {
                (gpu.count, gpu.joined) = (count, joined);
            }
        });
        let mut last = 0.0;
        for count in 1..=10 {
            let now = of(count);
            prop_assert!(now >= last * 0.9999, "{count} cards: {now} after {last}");
            last = now;
        }
    }

    #[test]
    fn more_machines_are_never_slower(
        any in any_machine(),
        bits in prop_oneof![Just(1_000_000_000_u64), Just(10_000_000_000), Just(200_000_000_000)],
    ) {
        let of = |count: u32| rate(&any, |machine| {
            machine.machines = Some(count);
            let name = "network".to_owned();
            machine.links = vec![Link { name, bits_per_second: bits, latency_seconds: None }];
        });
        let mut last = 0.0;
        for count in 2..=8 {
            let now = of(count);
            prop_assert!(now >= last * 0.9999, "{count} machines: {now} after {last}");
            last = now;
        }
    }

    #[test]
    fn a_faster_drive_is_never_slower(any in any_machine(), factor in 1.0..10.0) {
        let faster = rate(&any, |machine| {
            let rate = machine.drives[0].read_bytes_per_second;
            let read_bytes_per_second = rate.map(|rate| rate * factor);
            machine.drives = vec![Drive { read_bytes_per_second, ..Drive::default() }];
        });
        prop_assert!(faster >= rate(&any, |_| {}) * 0.9999, "{faster}");
    }

    #[test]
    fn fewer_experts_and_smaller_caches_are_never_slower(any in any_machine(), used in 1_u64..8) {
        let machine = &any.machine;
        let model = model(any.quant);
        let of = |model: &ModelFacts| {
            plan(machine, model, Constraints::default(), RuntimeProfile::default())
        };
        if let (Ok(all), Ok(fewer)) = (of(&model), of(&model.with_experts_used(used))) {
            prop_assert!(fewer.prediction.seconds(0) <= all.prediction.seconds(0) * 1.0001);
            prop_assert!(all.prediction.decode(8192).likely <= all.prediction.decode(0).likely);
        }
    }
}
