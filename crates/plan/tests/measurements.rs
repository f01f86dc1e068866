//! Every published measurement, computed again from the hardware that its row names.
//!
//! `fixtures/measurements.csv` and `measurements-2.csv` have 250 rows, each with its source. A row
//! becomes a machine, a model and a placement exactly as a description does; constants know classes
//! of hardware only. `cargo test -p cachalot-plan --test measurements -- --nocapture` prints all.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use cachalot_plan::Class;
use common::rows::{Kind, Row, rows};

/// A row and what was made of it.
struct Computed {
    row: Row,
    class: Class,
    low: f64,
    likely: f64,
    high: f64,
}

impl Computed {
    /// Predicted less measured, as a share of the latter.
    fn error(&self) -> f64 {
        self.likely / self.row.measured() - 1.0
    }

    /// By what factor the prediction is off, either way.
    fn factor(&self) -> f64 {
        let quotient = self.likely / self.row.measured();
        quotient.max(1.0 / quotient)
    }

    fn in_range(&self) -> bool {
        (self.low..=self.high).contains(&self.row.measured())
    }
}

fn computed() -> Vec<Computed> {
    let computed = rows().into_iter().filter_map(|row| {
        let prediction = match row.predict() {
            Ok(prediction) => prediction,
            Err(why) => {
                println!("{:>4}  {:<34} not computed: {why}", row.id, row.cpu);
                return None;
            }
        };
        let range = prediction.decode(row.depth());
        let (low, likely, high) = (range.low, range.likely, range.high);
        Some(Computed { row, class: prediction.class, low, likely, high })
    });
    computed.collect()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn share(rows: &[&Computed], good: impl Fn(&Computed) -> bool) -> f64 {
    rows.iter().filter(|row| good(row)).count() as f64 / rows.len() as f64
}

#[test]
fn errors_are_those_promised() {
    let all = computed();
    let mut kinds: BTreeMap<Kind, Vec<&Computed>> = BTreeMap::new();
    for computed in &all {
        kinds.entry(computed.row.kind()).or_default().push(computed);
    }
    for (kind, rows) in &kinds {
        println!("\n{kind:?}");
        for Computed { row, class, low, likely, high } in rows {
            let measured = row.measured();
            println!(
                "{:>4}  {:<30.30} {:<26.26} {:<16.16} {:>6}  {measured:6.2}  {likely:6.2} ({low:.2}-{high:.2}) \
                 {:+4.0} % {class:?}",
                row.id,
                row.cpu,
                row.gpu,
                row.quant,
                row.depth(),
                (likely / measured - 1.0) * 100.0
            );
        }
        println!(
            "{} rows: median error {:.1} %, within 25 %: {:.0} %, within a factor of 1.6: {:.0} %, in range: {:.0} %",
            rows.len(),
            100.0 * median(rows.iter().map(|row| row.error().abs()).collect()),
            100.0 * share(rows, |row| row.error().abs() <= 0.25),
            100.0 * share(rows, |row| row.factor() <= 1.6),
            100.0 * share(rows, Computed::in_range),
        );
    }
    let one = &kinds[&Kind::OneSocket];
    assert!(median(one.iter().map(|row| row.error().abs()).collect()) <= 0.12);
    assert!(share(one, |row| row.error().abs() <= 0.25) >= 0.80);
    assert!(share(&kinds[&Kind::SocketsOrDisk], |row| row.factor() <= 1.6) >= 0.80);
    assert!(all.len() >= 180, "{} of 250 rows", all.len());
}

/// What is left of a class when each machine is predicted by constants that were fitted without it.
struct LeftOut {
    class: Class,
    machines: usize,
    /// Measured rate over predicted rate, of every row.
    quotients: Vec<f64>,
    /// How many rows are inside of the range that the others' quotients promise.
    inside: usize,
}

/// Fits again without each machine: the class's scale becomes the median of all others, and its range the
/// quantiles of their quotients, wider by a margin for machines unlike those that were measured.
fn left_out(all: &[Computed]) -> Vec<LeftOut> {
    let mut classes: BTreeMap<Class, Vec<&Computed>> = BTreeMap::new();
    for computed in all {
        classes.entry(computed.class).or_default().push(computed);
    }
    classes.into_iter().map(|(class, rows)| leave_out(class, &rows)).collect()
}

/// Quotients of one machine count as one: thirty rows of one machine say less than three machines.
fn by_machine(rows: &[&Computed]) -> Vec<f64> {
    let mut machines: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for row in rows {
        machines.entry(row.row.machine_name()).or_default().push(1.0 / (1.0 + row.error()));
    }
    machines.into_values().map(median).collect()
}

fn leave_out(class: Class, rows: &[&Computed]) -> LeftOut {
    let machines: BTreeSet<String> = rows.iter().map(|c| c.row.machine_name()).collect();
    let (mut quotients, mut inside) = (Vec::new(), 0);
    for machine in &machines {
        let (own, others): (Vec<&Computed>, Vec<&Computed>) =
            rows.iter().copied().partition(|c| c.row.machine_name() == *machine);
        let scale = if others.is_empty() { 1.0 } else { median(by_machine(&others)) };
        let (low, high) = class.spread();
        for row in own {
            let quotient = 1.0 / (1.0 + row.error()) / scale;
            inside += usize::from((low..=high).contains(&quotient));
            quotients.push(quotient);
        }
    }
    LeftOut { class, machines: machines.len(), quotients, inside }
}

/// Machines of a class from which its range can be tested.
const MACHINES_MIN: usize = 3;

/// The table of README: how far predictions are off for machines that had no part in the fit.
#[test]
fn machines_left_out_of_the_fit_are_inside_of_the_promised_ranges() {
    let all = computed();
    println!("class, machines, rows, median error, within 25 %, inside the range");
    let mut failures = Vec::new();
    for LeftOut { class, machines, mut quotients, inside } in left_out(&all) {
        quotients.sort_by(f64::total_cmp);
        let rows = quotients.len();
        let errors: Vec<f64> = quotients.iter().map(|q| (1.0 / q - 1.0).abs()).collect();
        let within = errors.iter().filter(|error| **error <= 0.25).count();
        let at = |share: f64| quotients[((rows - 1) as f64 * share).round() as usize];
        let share = inside as f64 / rows as f64;
        println!(
            "| {} | {machines} | {rows} | {:.0} % | {:.0} % | {:.0} % | 10 %: {:.2}, 90 %: {:.2}, {:?}",
            class.name(),
            100.0 * median(errors),
            100.0 * within as f64 / rows as f64,
            100.0 * share,
            at(0.1),
            at(0.9),
            class.spread()
        );
        // Of fewer machines nothing can be promised, and README says so.
        if share < 0.80 && machines >= MACHINES_MIN {
            failures.push(format!("{class:?}: {:.0} % inside", share * 100.0));
        }
    }
    assert!(failures.is_empty(), "{failures:?}");
}

/// Rows of a class from which the range of its prompts can be tested.
const PROMPTS_MIN: usize = 10;

/// Prefill has its own error, tested like that of decode.
#[test]
fn prompts_are_inside_of_their_range() {
    let mut kinds: BTreeMap<Class, Vec<f64>> = BTreeMap::new();
    for row in rows() {
        let Some(measured) = row.prefill() else { continue };
        let Ok(prediction) = row.predict() else { continue };
        let quotient = measured / prediction.prefill(row.depth()).likely;
        kinds.entry(prediction.class).or_default().push(quotient);
    }
    let (mut inside, mut rows) = (0, 0);
    for (class, mut quotients) in kinds {
        quotients.sort_by(f64::total_cmp);
        let at = |share: f64| quotients[((quotients.len() - 1) as f64 * share).round() as usize];
        let (low, high) = class.prompt_spread();
        let within = quotients.iter().filter(|q| (low..=high).contains(*q)).count();
        println!(
            "prefill, {class:?}: {} rows, measured/predicted {:.2} at 10 %, {:.2} at 50 %, {:.2} at 90 %; {:.0} % inside of {:?}",
            quotients.len(),
            at(0.1),
            at(0.5),
            at(0.9),
            100.0 * within as f64 / quotients.len() as f64,
            class.prompt_spread()
        );
        if quotients.len() >= PROMPTS_MIN {
            inside += within;
            rows += quotients.len();
        }
    }
    assert!(inside as f64 >= 0.80 * rows as f64, "{inside} of {rows}");
}
