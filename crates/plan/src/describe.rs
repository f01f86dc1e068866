//! Machines in a few words: `epyc-9654 12x4800 384GB rtx4090 nvme 7GB/s`.
//!
//! | word | means |
//! |---|---|
//! | `epyc-9654`, `xeon gold 6454s`, `2x epyc-9654`, `32c` | processors, sockets, cores of each |
//! | `12x4800` | memory channels of the machine, and millions of transfers per second |
//! | `384GB`, `12x32GB` | memory, in the binary units that it is sold in |
//! | `80GB/s` | what memory delivers, as measured |
//! | `rtx4090`, `8xH100`, `24GB:1008GB/s` | graphics cards, by name or by memory and bandwidth |
//! | `nvme`, `4xnvme`, `nvme 7GB/s`, `sata`, `hdd` | drives; several are taken as RAID 0 |
//! | `10gbe` | a network |
//!
//! Order matters only in that a rate after a drive or a card is theirs.

use crate::machine::{Drive, Gpu, Link, Machine};
use crate::{gpus, processors};

/// What is wrong with a description.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DescribeError {
    /// A word that means nothing.
    #[error("`{word}` is no part of a machine that cachalot knows{}", suggestion(.nearest))]
    Word {
        /// The word.
        word: String,
        /// Names that look like it.
        nearest: Vec<String>,
    },
    /// A size that is none.
    #[error("`{0}` is no size: write it like 128GB, 1.5TB or 512MiB")]
    Size(String),
    /// A rate that is none.
    #[error("`{0}` is no rate: write it like 7GB/s or 850MB/s")]
    Rate(String),
    /// A card that is none.
    #[error(
        "`{0}` is no graphics card: write its name, or memory and bandwidth like 24GB:1008GB/s"
    )]
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
        /// What was said to be measured.
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
        String::new()
    } else {
        format!(": did you mean {}?", nearest.join(", "))
    }
}

/// Rates of drives whose own is not given: the sequential reads of common ones.
const DRIVES: [(&str, f64); 16] = [
    ("sn8100", 14.9e9),
    ("9100pro", 14.7e9),
    ("t705", 14.5e9),
    ("990pro", 7.4e9),
    ("sn850x", 7.3e9),
    ("sn850", 7.0e9),
    ("980pro", 6.9e9),
    ("970evo", 3.5e9),
    ("gen3", 3.5e9),
    ("gen4", 7e9),
    ("gen5", 14e9),
    ("nvme", 7e9),
    ("ssd", 0.55e9),
    ("sata", 0.55e9),
    ("emmc", 0.25e9),
    ("hdd", 0.2e9),
];
/// Several drives deliver a little less than the sum of what each does.
const RAID: f64 = 0.93;
/// More than so many of one thing are not described, but part of a name.
const COUNT_MAX: u32 = 64;
/// Words that help people and say nothing.
const FILLERS: [&str; 24] = [
    "with", "and", "ram", "memory", "ddr3", "ddr4", "ddr5", "lpddr5x", "rtx", "geforce", "nvidia",
    "radeon", "gpu", "cpu", "disk", "drive", "raid0", "raid", "apple", "mac", "studio", "server",
    "desktop", "laptop",
];
/// Words that names of processors begin with.
const MAKERS: [&str; 20] = [
    "amd",
    "intel",
    "epyc",
    "xeon",
    "ryzen",
    "threadripper",
    "tr",
    "core",
    "gold",
    "platinum",
    "silver",
    "raspberry",
    "pi",
    "ultra",
    "ampere",
    "ampereone",
    "altra",
    "pro",
    "ai",
    "max",
];

/// Reads a description.
///
/// # Errors
/// If a word means nothing, or two contradict each other.
pub fn machine(text: &str) -> Result<Machine, DescribeError> {
    let words = words(text);
    if words.is_empty() {
        return Err(DescribeError::Nothing);
    }
    let mut reader = Reader::default();
    let mut rest = &words[..];
    while !rest.is_empty() {
        rest = reader.take(rest)?;
    }
    reader.finish(text)
}

/// `128GB` -> bytes, in binary units, as memory is sold.
///
/// # Errors
/// If it is no size.
pub fn size(text: &str) -> Result<u64, DescribeError> {
    parse_size(&text.to_lowercase().replace(' ', ""))
        .ok_or_else(|| DescribeError::Size(text.to_owned()))
}

/// `7GB/s` -> bytes per second, in decimal units, as rates are given.
///
/// # Errors
/// If it is no rate.
pub fn rate(text: &str) -> Result<f64, DescribeError> {
    parse_rate(&text.to_lowercase().replace(' ', ""))
        .ok_or_else(|| DescribeError::Rate(text.to_owned()))
}

/// `2x4090` or `24GB:1008GB/s` -> graphics cards.
///
/// # Errors
/// If it is none.
pub fn gpu(text: &str) -> Result<Gpu, DescribeError> {
    let lower = text.to_lowercase().replace(' ', "");
    let (count, name) = counted(&lower);
    let found = custom_gpu(name).or_else(|| gpus::find(name));
    found.map(|gpu| Gpu { count, ..gpu }).ok_or_else(|| DescribeError::Gpu(text.to_owned()))
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

/// Small words; a number and its unit become one.
fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase().replace(['×', '*'], "x");
    let mut words: Vec<String> = Vec::new();
    for word in lower.split(|c: char| c.is_whitespace() || ",;+()".contains(c)) {
        let unit = word.starts_with(|c: char| c.is_ascii_alphabetic())
            && (parse_size(&format!("1{word}")).is_some()
                || parse_rate(&format!("1{word}")).is_some());
        match words.last_mut() {
            Some(last) if unit && last.parse::<f64>().is_ok() => last.push_str(word),
            // `2 x 4090`, `2x 4090`; but `9950x` is a name
            Some(last) if word == "x" && is_count(last) => last.push('x'),
            Some(last) if last.strip_suffix('x').is_some_and(is_count) => last.push_str(word),
            _ if word.is_empty() => {}
            _ => words.push(word.to_owned()),
        }
    }
    words
}

fn is_count(word: &str) -> bool {
    word.parse().is_ok_and(|count: u32| (1..=COUNT_MAX).contains(&count))
}

/// `4xnvme` -> 4 and `nvme`; 1 and the whole if there is no number.
fn counted(word: &str) -> (u32, &str) {
    let split = word.split_once('x').and_then(|(count, rest)| {
        let count = count.parse().ok().filter(|count| (1..=COUNT_MAX).contains(count))?;
        (!rest.is_empty()).then_some((count, rest))
    });
    split.unwrap_or((1, word))
}

fn parse_size(word: &str) -> Option<u64> {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &word[digits.len()..] {
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    let bytes = number(digits)? * unit as f64;
    (1.0..1e18).contains(&bytes).then_some(bytes as u64)
}

fn parse_rate(word: &str) -> Option<f64> {
    let word = word.strip_suffix("/s").or_else(|| word.strip_suffix("ps"))?;
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &word[digits.len()..] {
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "mib" => (1u64 << 20) as f64,
        "gib" => (1u64 << 30) as f64,
        _ => return None,
    };
    Some(number(digits)? * unit).filter(|rate| (1e3..1e17).contains(rate))
}

fn number(digits: &str) -> Option<f64> {
    let plain = digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    plain.then(|| digits.parse().ok())?
}

fn custom_gpu(word: &str) -> Option<Gpu> {
    let (memory, rate) = word.split_once(':')?;
    Some(Gpu {
        name: format!("{} card", memory.to_uppercase()),
        count: 1,
        memory_bytes: parse_size(memory)?,
        bytes_per_second: Some(parse_rate(rate)?),
        ..Gpu::default()
    })
}

/// What the last word was about, whose a following rate or size is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Topic {
    #[default]
    Machine,
    Processor,
    Drive,
    Card,
}

#[derive(Default)]
struct Reader {
    machine: Machine,
    topic: Topic,
    processor: Vec<String>,
}

impl Reader {
    /// Takes the meaning of some words, and returns the others.
    fn take<'a>(&mut self, words: &'a [String]) -> Result<&'a [String], DescribeError> {
        let (count, word) = counted(&words[0]);
        // Names of several words come first: `rtx 6000 ada`, `m3 ultra`.
        for n in (1..=words.len().min(3)).rev() {
            let mut name = word.to_owned();
            words[1..n].iter().for_each(|word| name.push_str(word));
            if let Some(gpu) = card(&name) {
                self.machine.gpus.push(Gpu { count, ..gpu });
                self.topic = Topic::Card;
                return Ok(&words[n..]);
            }
        }
        if let Some(gpu) = custom_gpu(word) {
            self.machine.gpus.push(Gpu { count, ..gpu });
            self.topic = Topic::Card;
        } else if let Some(rate) = parse_rate(word) {
            self.rate(rate)?;
        } else if let Some(bytes) = parse_size(word) {
            self.size(bytes.saturating_mul(count.into()))?;
        } else if let Some((_, rate)) = DRIVES.iter().find(|(name, _)| *name == word) {
            self.drive(word, count, *rate)?;
        } else if let Some(bits) = word.strip_suffix("gbe").and_then(|n| n.parse::<u64>().ok()) {
            let bits_per_second = bits.saturating_mul(1_000_000_000);
            self.machine.links.push(Link { name: word.to_owned(), bits_per_second });
        } else if count > 1 && word.parse().is_ok_and(|mts: u32| (800..=20_000).contains(&mts)) {
            let speed = word.parse().unwrap_or_default();
            let memory = &mut self.machine.memory;
            if let (Some(channels), Some(mts)) = (memory.channels, memory.speed_mts) {
                let (first, second) = (format!("{channels}x{mts}"), words[0].clone());
                return Err(DescribeError::Twice { what: "the speed of memory", first, second });
            }
            (memory.channels, memory.speed_mts) = (Some(count), Some(speed));
            self.topic = Topic::Machine;
        } else if self.is_processor(word) {
            if count > 1 {
                self.machine.processor.sockets = Some(count);
            }
            self.processor.push(word.to_owned());
            self.topic = Topic::Processor;
        } else if !FILLERS.contains(&word) {
            let nearest = nearest(
                word,
                processors::names().chain(gpus::names()).chain(DRIVES.map(|(name, _)| name)),
            );
            return Err(DescribeError::Word { word: words[0].clone(), nearest });
        }
        Ok(&words[1..])
    }

    fn is_processor(&self, word: &str) -> bool {
        let goes_on = self.topic == Topic::Processor
            && word.len() <= 12
            && word.starts_with(|c: char| c.is_ascii_digit() || "vwi".contains(c));
        MAKERS.contains(&word)
            || processors::find(word).is_some()
            || processors::cores(word).is_some()
            || goes_on
    }

    fn rate(&mut self, rate: f64) -> Result<(), DescribeError> {
        let slot = match self.topic {
            Topic::Drive => {
                let Some(drive) = self.machine.drives.last_mut() else { return Ok(()) };
                // The rate of each of several drives was asked for under the name of the first.
                let count =
                    drive.name.split_once('x').and_then(|(n, _)| n.parse().ok()).unwrap_or(1.0);
                drive.read_bytes_per_second = Some(together(rate, count));
                return Ok(());
            }
            Topic::Card => match self.machine.gpus.last_mut() {
                Some(gpu) => {
                    gpu.bytes_per_second = Some(rate);
                    return Ok(());
                }
                None => return Ok(()),
            },
            Topic::Machine | Topic::Processor => &mut self.machine.memory.read_bytes_per_second,
        };
        if let Some(first) = slot.replace(rate) {
            let [first, second] = [first, rate].map(crate::units::rate);
            return Err(DescribeError::Twice { what: "the bandwidth of memory", first, second });
        }
        Ok(())
    }

    fn size(&mut self, bytes: u64) -> Result<(), DescribeError> {
        if let (Topic::Card, Some(gpu)) = (self.topic, self.machine.gpus.last_mut())
            && (gpu.unified || gpu.memory_bytes == bytes)
        {
            gpu.memory_bytes = bytes;
            return Ok(());
        }
        self.topic = Topic::Machine;
        if let Some(first) = self.machine.memory.total_bytes.replace(bytes) {
            let [first, second] = [first, bytes].map(crate::units::bytes);
            return Err(DescribeError::Twice { what: "memory", first, second });
        }
        Ok(())
    }

    fn drive(&mut self, word: &str, count: u32, rate: f64) -> Result<(), DescribeError> {
        let name = if count > 1 { format!("{count}x {word}") } else { word.to_owned() };
        // `nvme gen5` is one drive, said more exactly.
        if self.topic == Topic::Drive && word.starts_with("gen") {
            return self.rate(rate);
        }
        self.topic = Topic::Drive;
        let read_bytes_per_second = Some(together(rate, f64::from(count)));
        self.machine.drives.push(Drive { name, read_bytes_per_second, ..Drive::default() });
        Ok(())
    }

    fn finish(mut self, text: &str) -> Result<Machine, DescribeError> {
        let machine = &mut self.machine;
        machine.name = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if !self.processor.is_empty() {
            let name = self.processor.join(" ");
            let known = processors::find(&name);
            if known.is_none() && processors::cores(&name).is_none() {
                let nearest = nearest(&name, processors::names());
                return Err(DescribeError::Word { word: name, nearest });
            }
            machine.processor.cores = processors::cores(&name)
                .map(|cores| cores.saturating_mul(machine.processor.sockets()));
            machine.processor.name = Some(name);
        }
        if let Some(gpu) = machine.unified() {
            machine.memory.total_bytes = Some(gpu.memory_bytes);
        }
        consistent(machine)?;
        Ok(self.machine)
    }
}

/// Whether what was measured is possible.
///
/// # Errors
/// If more is read than channels deliver.
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

/// A card whose name is just this, or this and its memory.
fn card(name: &str) -> Option<Gpu> {
    let gpu = gpus::find(name)?;
    let bare = |text: &str| text.trim_start_matches("rtx").trim_start_matches('-').to_owned();
    let known = gpus::names().any(|known| {
        let rest = bare(name);
        rest == known || rest.strip_prefix(known).is_some_and(|rest| parse_size(rest).is_some())
    });
    known.then_some(gpu)
}

/// The names that are most like `word`, the likest first; at most three, and none if none is like it.
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_the_manual_is_understood() {
        let machine = machine("epyc-9654 12x4800 384GB rtx4090 nvme 7GB/s").unwrap();
        assert_eq!(machine.processor.cores, Some(96));
        assert_eq!(machine.memory.theoretical(), Some(460.8e9));
        assert_eq!(machine.memory.total_bytes, Some(384 << 30));
        assert_eq!((machine.gpus[0].name.as_str(), machine.gpu_count()), ("RTX 4090", 1));
        assert_eq!(machine.drive().unwrap().1, 7e9);
    }

    #[test]
    fn words_may_come_in_many_forms() {
        let of = |text: &str| machine(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(of("8xH100").gpu_count(), 8);
        assert_eq!(of("8 x H100 80GB").gpus[0].count, 8);
        assert_eq!(of("2x Xeon Gold 6454S 16x4800 1TB").processor.sockets, Some(2));
        assert_eq!(of("2x Xeon Gold 6454S 16x4800 1TB").processor.cores, Some(64));
        assert_eq!(of("Xeon E5-2690 v3, 4x2133").processor.cores, Some(12));
        assert_eq!(of("12x32GB 12x4800").memory.total_bytes, Some(384 << 30));
        assert_eq!(of("128 GB, 80 GB/s").memory.read_bytes_per_second, Some(80e9));
        assert_eq!(of("m3 ultra 512GB").gpus[0].memory_bytes, 512 << 30);
        assert_eq!(of("RTX PRO 6000 + 2x RTX 6000 Ada").gpu_count(), 3);
        assert_eq!(of("4xnvme 7GB/s").drive().unwrap().1, 28e9 * RAID);
        assert_eq!(of("nvme gen5").drive().unwrap().1, 14e9);
        assert_eq!(of("24GB:1008GB/s").gpus[0].bytes_per_second, Some(1008e9));
        assert_eq!(of("raspberry pi 5 16GB").processor.cores, Some(4));
        assert_eq!(of("10gbe 64GB").links[0].bits_per_second, 10_000_000_000);
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| machine(text).unwrap_err().to_string();
        assert!(error("rtx4O90").contains("did you mean 4090"), "{}", error("rtx4O90"));
        assert!(error("384GB nvne").contains("did you mean nvme?"), "{}", error("384GB nvne"));
        assert!(error("64GB 128GB").contains("twice"));
        assert!(error("2x4800 200GB/s").contains("77 GB/s at best"), "{}", error("2x4800 200GB/s"));
        assert!(error("flux-capacitor").contains("`flux-capacitor`"));
        assert!(error(" ").contains("empty"));
        assert!(size("12 parsecs").unwrap_err().to_string().contains("no size"));
        assert!(rate("7GB").unwrap_err().to_string().contains("7GB/s or"));
        assert!(gpu("potato").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_machine_or_an_error(text in "\\PC{0,60}") {
            if let Err(error) = machine(&text) {
                prop_assert!(!error.to_string().is_empty());
            }
        }

        #[test]
        fn likely_words_are_no_danger_either(
            words in proptest::collection::vec(
                "([0-9]{1,5}x?)?(epyc|xeon|nvme|4090|gen5|gb|GB/s|TB|h100|:|c|x|v3|gbe)?[0-9]{0,5}", 0..8)
        ) {
            let _ = machine(&words.join(" "));
        }
    }
}
