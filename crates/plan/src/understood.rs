//! A machine as it was understood: each part with its figure and where the figure comes from.

use crate::machine::{Machine, Memory, Origin};
use crate::predict::{Channels, assumed_channels};
use crate::units;

/// A part of a machine.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Understood {
    /// Which part.
    pub part: &'static str,
    /// What it is.
    pub value: String,
    /// `given`, `known`, `assumed`, `measured`, or empty where there is nothing to tell apart.
    pub from: String,
}

/// All parts, in the order in which people name them.
pub fn understood(machine: &Machine) -> Vec<Understood> {
    let mut rows = Vec::new();
    let mut row = |part, value: String, from: String| rows.push(Understood { part, value, from });
    if machine.machines() > 1 {
        let each = machine.product.as_deref().unwrap_or("machines like the following");
        row("machines", format!("{} x {each}", machine.machines()), from(machine, &["machines"]));
    } else if let Some(product) = &machine.product {
        row("product", product.clone(), "given".to_owned());
    }
    let processor = &machine.processor;
    if processor.name.is_some() || processor.cores().is_some() {
        let name = processor.name.as_deref().unwrap_or("unnamed");
        let sockets = match processor.sockets() {
            1 => String::new(),
            sockets => format!("{sockets} x "),
        };
        let family = processor.platform().map_or(String::new(), |p| format!(" ({})", p.name));
        let cores = match processor.cores() {
            Some(cores) => format!("{cores} cores"),
            None => "number of cores unknown".to_owned(),
        };
        row("CPU", format!("{sockets}{name}{family}, {cores}"), from(machine, &["cores"]));
    }
    memory(machine, &mut row);
    for gpu in &machine.gpus {
        let rate = gpu.bytes_per_second.map_or("bandwidth unknown".to_owned(), units::rate);
        let count = if gpu.count > 1 { format!("{} x ", gpu.count) } else { String::new() };
        let value = if gpu.unified {
            format!("{count}{}, {rate} of unified memory", gpu.name)
        } else {
            format!("{count}{}, {} at {rate}", gpu.name, units::bytes(gpu.memory_bytes))
        };
        let from = if gpu.bytes_per_second.is_some() { "known" } else { "given" };
        row("GPU", value, from.to_owned());
    }
    for drive in &machine.drives {
        let rate = drive.read_bytes_per_second.map(units::rate);
        let value = format!("{}, {}", drive.name, rate.unwrap_or("rate unknown".to_owned()));
        let origin =
            if drive.measured_here { "measured".into() } else { from(machine, &["drive"]) };
        row("drive", value, origin);
    }
    for link in &machine.links {
        let gigabits = link.bits_per_second as f64 / 1e9;
        row("network", format!("{}, {gigabits} Gbit/s", link.name), "given".to_owned());
    }
    for assumed in &machine.assumed {
        row("assumed", assumed.clone(), String::new());
    }
    for question in &machine.questions {
        row("missing", question.clone(), String::new());
    }
    rows
}

fn memory(machine: &Machine, row: &mut impl FnMut(&'static str, String, String)) {
    let Memory { total_bytes, read_bytes_per_second, measured_here, .. } = machine.memory;
    match total_bytes {
        Some(bytes) => row("memory", units::bytes(bytes), from(machine, &["memory"])),
        None if !machine.memory.sizes.is_empty() => {
            let sizes: Vec<String> =
                machine.memory.sizes.iter().map(|bytes| units::bytes(*bytes)).collect();
            row("memory", format!("not said; made with {}", sizes.join(", ")), String::new());
        }
        None => row("memory", "not said".to_owned(), String::new()),
    }
    if let Some(rate) = read_bytes_per_second {
        let from = if measured_here { "measured" } else { "given" };
        row("bandwidth", units::rate(rate), from.to_owned());
    } else if machine.unified().is_none()
        && let Some(Channels { count: channels, mts, is_assumed }) = assumed_channels(machine)
    {
        let rate = units::rate(f64::from(channels) * f64::from(mts) * 8e6);
        let from =
            if is_assumed { "assumed".into() } else { from(machine, &["channels", "speed"]) };
        row("bandwidth", format!("{channels} channels x {mts} MT/s = {rate}"), from);
    }
}

/// The weakest origin of some facts; given where nothing else is noted.
fn from(machine: &Machine, facts: &[&str]) -> String {
    let origins = facts.iter().map(|fact| machine.origins.get(*fact).copied());
    match origins.max().flatten().unwrap_or(Origin::Given) {
        Origin::Given => "given",
        Origin::Known => "known",
        Origin::Assumed => "assumed",
    }
    .to_owned()
}
