//! Machines in a few words: `epyc-9654 12x4800 384GB rtx4090 nvme 7GB/s`.
//!
//! | words | meaning |
//! |---|---|
//! | `epyc-9654`, `dual 7742`, `2x 9354`, `i7-13700k`, `xeon 8480+` | processors, and how many sockets |
//! | `m4 max`, `dgx spark`, `raspberry pi 5`, `r7a.48xlarge`, `dgx h100` | products and cloud instances |
//! | `12x4800`, `12 channels DDR5-4800`, `192GB 6000` | memory channels of the machine, and MT/s |
//! | `384GB`, `12x32GB` | memory |
//! | `80GB/s` | measured memory bandwidth |
//! | `rtx4090`, `H100 x8`, `24GB:1008GB/s`, `24gb vram` | GPUs, by name or by memory and bandwidth |
//! | `nvme`, `4xnvme`, `nvme 7GB/s`, `990 pro`, `2x 4TB 990 pro` | drives; several are taken as RAID 0 |
//! | `10gbe`, `thunderbolt`, `8x mac mini` | a network, and several machines |
//!
//! Three steps: `lexer` finds numbers with units, counts and words; `parser` finds what they name,
//! where a bare number has candidate meanings and its neighbours decide; `assemble` gives sizes,
//! rates and counts to what they belong to. A bare model number is never a speed, a size or a
//! count. What cannot be placed is an error that names it, and where two readings remain the error
//! names both.

mod assemble;
mod cloud;
mod lexer;
mod names;
mod parser;
mod products;
mod vocabulary;

use self::lexer::lexemes;
use self::parser::Parser;
use self::products::SERVERS;
use self::vocabulary::DRIVES;
use crate::gpus;
use crate::machine::{Drive, Gpu, Machine};
use crate::units::UnitError;

/// What is wrong with a description.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DescribeError {
    /// An unknown word.
    #[error("`{word}` is not a hardware term that cachalot knows{}", suggestion(.nearest))]
    Word {
        /// The word.
        word: String,
        /// Names that look like it.
        nearest: Vec<String>,
    },
    /// A word with two meanings.
    #[error("`{word}` can be {first} or {second}")]
    Ambiguous {
        /// The word.
        word: String,
        /// The one, and how to write it.
        first: String,
        /// The other one.
        second: String,
    },
    /// Not a size, or not a rate.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// An unknown GPU.
    #[error("`{0}` is not a known GPU: write its name, or memory and bandwidth like 24GB:1008GB/s")]
    Gpu(String),
    /// Something said twice.
    #[error("{what} is given twice: {first} and {second}")]
    Twice {
        /// What.
        what: &'static str,
        /// The first value.
        first: String,
        /// The second value.
        second: String,
    },
    /// Numbers that cannot both be true.
    #[error(
        "{measured:.0} GB/s cannot be read from {channels} channels at {mts} MT/s, which deliver \
         {theoretical:.0} GB/s at best"
    )]
    Bandwidth {
        /// The measured rate.
        measured: f64,
        /// Memory channels.
        channels: u32,
        /// Their speed.
        mts: u32,
        /// Their product.
        theoretical: f64,
    },
    /// Nothing at all.
    #[error(
        "an empty description: say what the machine has, as in \"epyc-9654 12x4800 384GB rtx4090 nvme 7GB/s\""
    )]
    Nothing,
}

fn suggestion(nearest: &[String]) -> String {
    if nearest.is_empty() {
        ": leave it out if it does not matter here".to_owned()
    } else {
        format!(": did you mean {}?", nearest.join(", "))
    }
}

/// Several drives deliver a little less than the sum of their rates.
const RAID: f64 = 0.93;

/// Reads a description.
///
/// # Errors
/// If a word is unknown or has two meanings, or two facts contradict each other.
pub fn machine(text: &str) -> Result<Machine, DescribeError> {
    let mut lower = text.to_lowercase().replace('_', " ");
    if text.contains('_') && cloud::find(&text.trim().to_lowercase()).is_some() {
        lower = text.to_lowercase();
    }
    for (server, parts) in SERVERS {
        if let Some((before, after)) = lower.split_once(server) {
            lower = several(before, parts, after);
        }
    }
    if let Some((before, (inside, after))) =
        lower.split_once('(').and_then(|(before, rest)| Some((before, rest.split_once(')')?)))
        && of_words(inside)
            .is_ok_and(|machine| machine.processor.name.is_some() || machine.product.is_some())
    {
        lower = several(before, inside, after);
    }
    let mut machine = of_words(&lower)?;
    machine.name = text.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(machine)
}

fn of_words(text: &str) -> Result<Machine, DescribeError> {
    let lexemes = lexemes(text);
    if lexemes.is_empty() {
        return Err(DescribeError::Nothing);
    }
    let items = Parser { lexemes: &lexemes, items: Vec::new() }.parse()?;
    assemble::machine(&items)
}

/// `2x (EPYC 9654 768GB)`, `2 DGX H100`: a count before a whole machine is of machines.
fn several(before: &str, machine: &str, after: &str) -> String {
    let trimmed = before.trim_end();
    let counted = trimmed.strip_suffix(['x', '×']).unwrap_or(trimmed).trim_end();
    let start = counted.rfind(|c: char| !c.is_alphanumeric()).map_or(0, |at| at + 1);
    let number = &counted[start..];
    let written = vocabulary::COUNTS.iter().find(|(word, _)| *word == number);
    match written.map(|(_, count)| *count).or_else(|| number.parse().ok()) {
        Some(count) if count <= lexer::COUNT_MAX => {
            format!("{} {count} nodes {machine} {after}", &counted[..start])
        }
        _ => format!("{before} {machine} {after}"),
    }
}

/// `2x4090` or `24GB:1008GB/s` -> graphics cards.
///
/// # Errors
/// If it is not the name of one.
pub fn gpu(text: &str) -> Result<Gpu, DescribeError> {
    let error = || DescribeError::Gpu(text.to_owned());
    let found = machine(text).map_err(|_| error())?.gpus.into_iter().next();
    found.or_else(|| gpus::find(text)).ok_or_else(error)
}

/// The rate of a drive that is named somewhere in `text`: `Samsung 990 Pro`.
pub fn drive_rate(text: &str) -> Option<f64> {
    let text: String = text.to_lowercase().split_whitespace().collect();
    DRIVES.iter().find(|(name, _)| text.contains(name)).map(|(_, rate)| *rate)
}

/// A drive of this rate.
pub fn drive(rate: f64) -> Drive {
    Drive { name: "drive".to_owned(), read_bytes_per_second: Some(rate), ..Drive::default() }
}

/// Checks that a measured bandwidth is possible.
///
/// # Errors
/// If it is more than the channels deliver.
pub fn consistent(machine: &Machine) -> Result<(), DescribeError> {
    let memory = &machine.memory;
    if let (Some(measured), Some(theoretical), Some(channels), Some(mts)) =
        (memory.read_bytes_per_second, memory.theoretical(), memory.channels, memory.speed_mts)
        && measured > 1.02 * theoretical
    {
        let [measured, theoretical] = [measured, theoretical].map(|rate| rate / 1e9);
        return Err(DescribeError::Bandwidth { measured, channels, mts, theoretical });
    }
    Ok(())
}

fn together(rate: f64, count: f64) -> f64 {
    if count > 1.0 { rate * count * RAID } else { rate }
}

/// The names that are most similar to `word`, best first; at most three.
pub fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let word = word.trim_start_matches("rtx").trim_start_matches(['-', '_']);
    let mut alike: Vec<(f64, &str)> = names
        .map(|name| (strsim::jaro_winkler(word, name), name))
        .filter(|(alike, _)| *alike > 0.8)
        .collect();
    alike.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    alike.dedup_by_key(|(_, name)| *name);
    alike.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests;
