//! How the constants of `constants.rs` are fitted to rows: the procedure for all of them, and for
//! all but those of one machine.
//!
//! A row's error is the logarithm of predicted / measured, and an error of a constant that of value
//! / prior. What is minimized is the sum of robust errors (large ones count by their size, small
//! ones by its square), in units of what is usual. All rows of a machine together weigh as much as
//! the root of their number: thirty rows of one machine say less than thirty machines.

use std::collections::BTreeMap;

use cachalot_plan::Constants;

use super::rows::Case;

/// Usual error of a rate of decoding and of prompts, as logarithms.
const USUAL: [f64; 2] = [0.2, 0.4];
/// Steps of the method of Gauss and Newton, and of reweighting within one.
const STEPS: usize = 12;
const WEIGHINGS: usize = 12;
/// Step of a numeric derivative, as a logarithm.
const DELTA: f64 = 0.01;

/// One measured rate: which case, whether of prompts, and its logarithm.
struct Rate {
    case: usize,
    of_prompts: bool,
    measured: f64,
    weight: f64,
}

/// Errors at some constants, and how they change with each.
pub(crate) struct Linear {
    rates: Vec<Rate>,
    machines: Vec<String>,
    at: Vec<f64>,
    errors: Vec<f64>,
    /// For each rate: constants on which it depends, and by how much.
    slopes: Vec<Vec<(usize, f64)>>,
}

fn logs(constants: &Constants) -> Vec<f64> {
    constants.values().iter().map(|value| value.ln()).collect()
}

fn constants(logs: &[f64]) -> Constants {
    Constants::of(&logs.iter().map(|log| log.exp()).collect::<Vec<_>>())
}

/// Logarithms of the rates that a case predicts: of decoding, and of prompts.
fn predicted(case: &Case, constants: &Constants) -> [f64; 2] {
    let prediction = case.predict(constants).expect("it was predicted before");
    let depth = case.row.depth();
    [prediction.decode(depth).likely.ln(), prediction.prefill(depth).likely.ln()]
}

impl Linear {
    pub(crate) fn at(cases: &[Case], at: &Constants) -> Self {
        let machines: Vec<String> = cases.iter().map(|case| case.row.machine_name()).collect();
        let mut rates = Vec::new();
        for (index, case) in cases.iter().enumerate() {
            let measured = [Some(case.row.measured()), case.row.prefill()];
            for (of_prompts, measured) in [false, true].into_iter().zip(measured) {
                if let Some(measured) = measured {
                    let measured = measured.ln();
                    rates.push(Rate { case: index, of_prompts, measured, weight: 0.0 });
                }
            }
        }
        let mut counts: BTreeMap<(&str, bool), f64> = BTreeMap::new();
        for rate in &rates {
            *counts.entry((&machines[rate.case], rate.of_prompts)).or_default() += 1.0;
        }
        for rate in &mut rates {
            let usual = USUAL[usize::from(rate.of_prompts)];
            let count = counts[&(machines[rate.case].as_str(), rate.of_prompts)];
            let vague = if cases[rate.case].row.is_vague() { 0.0 } else { 1.0 };
            rate.weight = vague / count.sqrt() / usual / usual;
        }
        drop(counts);
        let at = logs(at);
        let here: Vec<[f64; 2]> =
            cases.iter().map(|case| predicted(case, &constants(&at))).collect();
        let value = |of: &[[f64; 2]], rate: &Rate| of[rate.case][usize::from(rate.of_prompts)];
        let errors = rates.iter().map(|rate| value(&here, rate) - rate.measured).collect();
        let mut slopes = vec![Vec::new(); rates.len()];
        for constant in 0..at.len() {
            let mut moved = at.clone();
            moved[constant] += DELTA;
            let moved = constants(&moved);
            let there: Vec<[f64; 2]> = cases.iter().map(|case| predicted(case, &moved)).collect();
            for (rate, slopes) in rates.iter().zip(&mut slopes) {
                let slope = (value(&there, rate) - value(&here, rate)) / DELTA;
                if slope.abs() > 1e-6 {
                    slopes.push((constant, slope));
                }
            }
        }
        Self { rates, machines, at, errors, slopes }
    }

    /// The best constants without the rows of `left_out`, as far as slopes do not change.
    pub(crate) fn solve(&self, left_out: Option<&str>) -> Constants {
        let prior = logs(&Constants::PRIOR);
        let believed: Vec<f64> =
            Constants::NAMES.iter().map(|(_, factor)| factor.ln().powi(-2)).collect();
        let count = prior.len();
        let mut step = vec![0.0; count];
        for _ in 0..WEIGHINGS {
            let mut matrix = vec![vec![0.0; count + 1]; count];
            for j in 0..count {
                matrix[j][j] = believed[j];
                matrix[j][count] = believed[j] * (prior[j] - self.at[j]);
            }
            for ((rate, error), slopes) in self.rates.iter().zip(&self.errors).zip(&self.slopes) {
                if left_out == Some(&self.machines[rate.case]) {
                    continue;
                }
                let now = error + slopes.iter().map(|(j, slope)| slope * step[*j]).sum::<f64>();
                let usual = USUAL[usize::from(rate.of_prompts)];
                let weight = rate.weight / (now.abs() / usual).max(0.5);
                for (j, slope) in slopes {
                    for (k, other) in slopes {
                        matrix[*j][*k] += weight * slope * other;
                    }
                    matrix[*j][count] -= weight * slope * error;
                }
            }
            step = eliminated(matrix);
        }
        let logs: Vec<f64> = self.at.iter().zip(&step).map(|(at, step)| at + step).collect();
        constants(&logs)
    }
}

/// The best constants for all cases, from the prior on.
pub(crate) fn fitted(cases: &[Case]) -> Constants {
    let mut at = Constants::PRIOR;
    for step in 0..STEPS {
        let next = logs(&Linear::at(cases, &at).solve(None));
        // Shorter steps towards the end, where minima of two parts alternate.
        let share = if step < STEPS / 2 { 0.7 } else { 0.4 };
        let mixed: Vec<f64> =
            logs(&at).iter().zip(next).map(|(at, next)| at + share * (next - at)).collect();
        at = constants(&mixed);
    }
    at
}

/// Solves a system of equations by elimination, with its right side as the last column.
fn eliminated(mut matrix: Vec<Vec<f64>>) -> Vec<f64> {
    let count = matrix.len();
    for column in 0..count {
        let pivot = (column..count)
            .max_by(|a, b| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs()))
            .expect("there are rows left");
        matrix.swap(column, pivot);
        let of = matrix[column].clone();
        for (row, values) in matrix.iter_mut().enumerate() {
            if row != column && values[column] != 0.0 {
                let factor = values[column] / of[column];
                values.iter_mut().zip(&of).for_each(|(value, of)| *value -= factor * of);
            }
        }
    }
    (0..count).map(|row| matrix[row][count] / matrix[row][row]).collect()
}
