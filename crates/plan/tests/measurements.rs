//! Every published measurement, computed again from the hardware that its row names.
//!
//! `fixtures/measurements.csv` has 162 rows about models of R1's class, each with its source. A row
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
    assert!(share(one, |row| row.error().abs() <= 0.25) >= 0.85);
    assert!(share(&kinds[&Kind::SocketsOrDisk], |row| row.factor() <= 1.6) >= 0.80);
    assert!(share(&kinds[&Kind::Other], Computed::in_range) >= 0.80);
    assert!(all.len() >= 150, "{} of 162 rows", all.len());
}

/// Leaves out one machine at a time: the class's median error on all others is a correction of its
/// constants that the machine had no part in.
fn left_out(kind: Kind, all: &[Computed]) -> Vec<f64> {
    let rows: Vec<&Computed> = all.iter().filter(|c| c.row.kind() == kind).collect();
    let machines: BTreeSet<String> = rows.iter().map(|c| c.row.machine_name()).collect();
    let mut quotients = Vec::new();
    for machine in &machines {
        let (own, others): (Vec<&Computed>, Vec<&Computed>) =
            rows.iter().partition(|c| c.row.machine_name() == *machine);
        for row in own {
            let alike = others.iter().filter(|other| other.class == row.class);
            let alike: Vec<f64> = alike.map(|other| 1.0 + other.error()).collect();
            let correction = if alike.is_empty() { 1.0 } else { 1.0 / median(alike) };
            quotients.push(row.likely * correction / row.row.measured());
        }
    }
    let error = |quotient: &f64| (quotient - 1.0).abs();
    let share = |good: &dyn Fn(&f64) -> bool| {
        100.0 * quotients.iter().filter(|q| good(q)).count() as f64 / quotients.len() as f64
    };
    println!(
        "{kind:?}: {} machines, each predicted by the others: median error {:.1} %, within 25 %: {:.0} %, within a \
         factor of 1.6: {:.0} %",
        machines.len(),
        100.0 * median(quotients.iter().map(error).collect()),
        share(&|q| error(q) <= 0.25),
        share(&|q| q.max(1.0 / q) <= 1.6),
    );
    quotients
}

#[test]
fn machines_that_had_no_part_in_the_fit_are_predicted_as_well() {
    let all = computed();
    let share = |quotients: &[f64], good: &dyn Fn(f64) -> bool| {
        quotients.iter().filter(|q| good(**q)).count() as f64 / quotients.len() as f64
    };
    let one = left_out(Kind::OneSocket, &all);
    assert!(median(one.iter().map(|q| (q - 1.0).abs()).collect()) <= 0.12);
    assert!(share(&one, &|q| (q - 1.0).abs() <= 0.25) >= 0.80);
    let several = left_out(Kind::SocketsOrDisk, &all);
    assert!(share(&several, &|q| q.max(1.0 / q) <= 1.6) >= 0.70);
}

/// The range that a class promises, against the rows of that class.
#[test]
fn most_measurements_are_in_the_range_of_their_class() {
    let mut classes: BTreeMap<Class, Vec<f64>> = BTreeMap::new();
    for computed in computed().iter().filter(|c| c.row.kind() != Kind::Other) {
        classes.entry(computed.class).or_default().push(1.0 / (1.0 + computed.error()));
    }
    for (class, mut quotients) in classes {
        quotients.sort_by(f64::total_cmp);
        let at = |share: f64| quotients[((quotients.len() - 1) as f64 * share).round() as usize];
        println!(
            "{class:?}: {} rows, measured/predicted {:.2} at 10 %, {:.2} at 90 %; promised {:?}",
            quotients.len(),
            at(0.1),
            at(0.9),
            class.spread()
        );
        let (low, high) = class.spread();
        let inside = quotients.iter().filter(|q| (low..=high).contains(*q)).count();
        assert!(inside as f64 >= 0.7 * quotients.len() as f64, "{class:?}: {inside}");
    }
}
