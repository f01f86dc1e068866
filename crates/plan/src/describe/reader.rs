//! Words become a machine, one thing after the other.

use std::fmt::Display;

use super::vocabulary::{BRANDS, DRIVES, FILLERS, KINDS_OF_DRIVES, MAKERS};
use super::words::is_speed;
use super::{
    DescribeError, consistent, counted, custom_gpu, nearest, parse_rate, parse_size, together,
};
use crate::machine::{Drive, Gpu, Link, Machine};
use crate::{gpus, processors, units};

/// Names of cards and of drives have so many words at most: `RTX 4070 Ti Super`.
const NAME_WORDS: usize = 4;

/// More terabytes than a machine has memory.
const THREADS_MIN: u32 = 16;

/// What the last word was about, whose a following rate or size is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Topic {
    #[default]
    Machine,
    Processor,
    Drive,
    Card,
    /// A maker, whose product's name may follow.
    Brand,
}

/// What was understood so far.
#[derive(Default)]
pub(super) struct Reader {
    machine: Machine,
    topic: Topic,
    processor: Vec<String>,
    /// How many drives the last drive stands for.
    drive_count: u32,
    /// A rate before its drive.
    drive_rate: Option<f64>,
    /// Channels of a socket or of the machine: which of them depends on the processor.
    channels: Option<u32>,
    modules: Option<u32>,
    /// Sizes before or after a drive: its own, or the memory's.
    beside_drives: Vec<u64>,
}

impl Reader {
    /// Takes the meaning of some words, and returns the others.
    pub(super) fn take<'a>(&mut self, words: &'a [String]) -> Result<&'a [String], DescribeError> {
        if let Some(rest) = self.card(words).or_else(|| self.drive(words)) {
            return Ok(rest);
        }
        let (count, word) = counted(&words[0]);
        let is_counted = word.len() < words[0].len();
        let rest = &words[1..];
        let is_drive_next = rest.iter().find(|word| !FILLERS.contains(&word.as_str()));
        let is_drive_next = is_drive_next.is_some_and(|word| drive_rate(counted(word).1).is_some());
        if self.is_threads(word) {
            // What a core does with two threads does not matter here.
        } else if let Some(gpu) = custom_gpu(word) {
            self.machine.gpus.push(Gpu { count, ..gpu });
            self.topic = Topic::Card;
        } else if let Some(rate) = parse_rate(word) {
            self.rate(rate, is_drive_next)?;
        } else if let Some(bytes) = parse_size(word) {
            let is_memory = rest.first().is_some_and(|word| {
                matches!(word.as_str(), "ram" | "memory")
                    || word.contains("ddr")
                    || word.ends_with("mts")
            });
            let is_beside_drive = !is_memory && (is_drive_next || self.topic == Topic::Drive);
            self.size(bytes, is_counted.then_some(count), is_beside_drive)?;
        } else if let Some(gigabits) = word.strip_suffix("gbe").and_then(|n| n.parse::<f64>().ok())
        {
            let bits_per_second = (gigabits * 1e9) as u64;
            self.machine.links.push(Link { name: word.to_owned(), bits_per_second });
        } else if let Some(mts) =
            word.strip_suffix("mts").or(Some(word)).filter(|mts| is_speed(mts))
            && (is_counted || word.ends_with("mts"))
        {
            self.speed(is_counted.then_some(count), mts.parse().unwrap_or_default())?;
        } else if let Some(channels) = word.strip_suffix("ch").and_then(|n| n.parse().ok()) {
            if let Some(first) = self.channels.replace(channels) {
                return Err(twice("memory channels", &first, &channels));
            }
        } else if word == "socket" && is_counted {
            self.machine.processor.sockets = Some(count);
        } else if self.is_processor(word) {
            if is_counted && count > 1 {
                self.machine.processor.sockets = Some(count);
            }
            self.processor.push(word.to_owned());
            self.topic = Topic::Processor;
        } else if BRANDS.contains(&word) {
            self.topic = Topic::Brand;
        } else if !FILLERS.contains(&word) && self.topic != Topic::Brand {
            return Err(unknown(&words[0], word));
        }
        Ok(rest)
    }

    /// Names of several words: `rtx 6000 ada`, `m3 ultra`, with the memory of the card after it if it is
    /// made with so much.
    fn card<'a>(&mut self, words: &'a [String]) -> Option<&'a [String]> {
        let (count, word) = counted(&words[0]);
        for n in (1..=words.len().min(NAME_WORDS)).rev() {
            let name: String =
                [word].into_iter().chain(words[1..n].iter().map(String::as_str)).collect();
            let Some(mut gpu) = gpus::by_name(&name) else { continue };
            self.topic = Topic::Card;
            gpu.count = count;
            let mut rest = &words[n..];
            let size = rest.first().and_then(|word| parse_size(word));
            if let Some(bytes) = size.filter(|bytes| gpus::is_made_with(&gpu, *bytes)) {
                gpu.memory_bytes = bytes;
                rest = &rest[1..];
            }
            self.machine.gpus.push(gpu);
            return Some(rest);
        }
        None
    }

    /// `nvme`, `990 pro`, `4xgen4`: words about one drive may follow each other.
    fn drive<'a>(&mut self, words: &'a [String]) -> Option<&'a [String]> {
        let (count, word) = counted(&words[0]);
        for n in (1..=words.len().min(2)).rev() {
            let name: String =
                [word].into_iter().chain(words[1..n].iter().map(String::as_str)).collect();
            let Some(rate) = drive_rate(&name) else { continue };
            let is_kind = KINDS_OF_DRIVES.contains(&name.as_str());
            let same = self.topic == Topic::Drive && word.len() == words[0].len();
            match self.machine.drives.last_mut().filter(|_| same) {
                Some(_) if is_kind => {}
                Some(drive) => {
                    drive.read_bytes_per_second = Some(together(rate, f64::from(self.drive_count)));
                }
                None => {
                    let rate = together(self.drive_rate.take().unwrap_or(rate), f64::from(count));
                    let name = if count > 1 { format!("{count}x {name}") } else { name };
                    let read_bytes_per_second = Some(rate);
                    self.machine.drives.push(Drive {
                        name,
                        read_bytes_per_second,
                        ..Drive::default()
                    });
                    self.drive_count = count;
                }
            }
            self.topic = Topic::Drive;
            return Some(&words[n..]);
        }
        None
    }

    fn is_processor(&self, word: &str) -> bool {
        let goes_on = self.topic == Topic::Processor
            && word.len() <= 12
            && (word.starts_with(|c: char| c.is_ascii_digit() || "vwi".contains(c))
                || matches!(word, "hx" | "hs" | "h" | "u" | "p"));
        MAKERS.contains(&word)
            || processors::find(word).is_some()
            || processors::cores(word).is_some()
            || goes_on
    }

    /// `128t`, unless it is 128 TB.
    fn is_threads(&self, word: &str) -> bool {
        let count = word.strip_suffix('t').and_then(|count| count.parse::<u32>().ok());
        count.is_some_and(|count| self.topic == Topic::Processor || count >= THREADS_MIN)
    }

    fn rate(&mut self, rate: f64, is_drive_next: bool) -> Result<(), DescribeError> {
        if is_drive_next && self.topic != Topic::Card {
            self.drive_rate = Some(rate);
            return Ok(());
        }
        if let (Topic::Drive, Some(drive)) = (self.topic, self.machine.drives.last_mut()) {
            drive.read_bytes_per_second = Some(together(rate, f64::from(self.drive_count)));
            return Ok(());
        }
        if let (Topic::Card, Some(gpu)) = (self.topic, self.machine.gpus.last_mut()) {
            gpu.bytes_per_second = Some(rate);
            return Ok(());
        }
        if let Some(first) = self.machine.memory.read_bytes_per_second.replace(rate) {
            return Err(twice("the bandwidth of memory", &units::rate(first), &units::rate(rate)));
        }
        Ok(())
    }

    fn size(
        &mut self,
        bytes: u64,
        modules: Option<u32>,
        is_beside_drive: bool,
    ) -> Result<(), DescribeError> {
        if is_beside_drive {
            self.beside_drives.push(bytes.saturating_mul(modules.unwrap_or(1).into()));
            return Ok(());
        }
        if let (Topic::Card, Some(gpu)) = (self.topic, self.machine.gpus.last_mut())
            && gpu.unified
        {
            gpu.memory_bytes = bytes;
            return Ok(());
        }
        self.topic = Topic::Machine;
        self.modules = modules.filter(|count| *count > 1);
        let bytes = bytes.saturating_mul(modules.unwrap_or(1).into());
        if let Some(first) = self.machine.memory.total_bytes.replace(bytes) {
            return Err(twice("memory", &units::bytes(first), &units::bytes(bytes)));
        }
        Ok(())
    }

    fn speed(&mut self, channels: Option<u32>, mts: u32) -> Result<(), DescribeError> {
        let memory = &mut self.machine.memory;
        let said = |channels: Option<u32>, mts: u32| {
            channels.map_or(format!("{mts} MT/s"), |channels| format!("{channels}x{mts}"))
        };
        if let Some(first) = memory.speed_mts.replace(mts) {
            return Err(twice(
                "the speed of memory",
                &said(memory.channels, first),
                &said(channels, mts),
            ));
        }
        memory.channels = channels;
        self.topic = Topic::Machine;
        Ok(())
    }

    /// Puts together what was said in pieces.
    pub(super) fn finish(mut self, text: &str) -> Result<Machine, DescribeError> {
        self.machine.name = text.split_whitespace().collect::<Vec<_>>().join(" ");
        self.name_processor()?;
        self.count_channels()?;
        let Self { mut machine, beside_drives, .. } = self;
        // Of `96GB, 2TB NVMe` and `96GB NVMe 2TB` the drive's is the larger.
        machine.memory.total_bytes = machine.memory.total_bytes.or(beside_drives.into_iter().min());
        let total = machine.memory.total_bytes;
        if let Some(gpu) = machine.gpus.iter_mut().find(|gpu| gpu.unified) {
            // `512GB M3 Ultra` is as good as `M3 Ultra 512GB`.
            gpu.memory_bytes = total.unwrap_or(gpu.memory_bytes);
            machine.memory.total_bytes = Some(gpu.memory_bytes);
        }
        consistent(&machine)?;
        Ok(machine)
    }

    fn name_processor(&mut self) -> Result<(), DescribeError> {
        let name = self.processor.join(" ");
        let processor = &mut self.machine.processor;
        let says_nothing = self.processor.iter().all(|word| MAKERS.contains(&word.as_str()));
        // `MacBook Pro M4 Max`: the name is the graphics unit's.
        if name.is_empty() || (says_nothing && self.machine.gpus.iter().any(|gpu| gpu.unified)) {
            return Ok(());
        }
        let cores = processors::cores(&name);
        if processors::find(&name).is_none() && cores.is_none() && !says_nothing {
            let nearest = nearest(&name, processors::names());
            return Err(DescribeError::Word { word: name, nearest });
        }
        processor.cores = cores.map(|cores| cores.saturating_mul(processor.sockets()));
        processor.name = Some(name);
        Ok(())
    }

    /// Channels that were not said together with their speed, or follow from the modules.
    fn count_channels(&mut self) -> Result<(), DescribeError> {
        let sockets = self.machine.processor.sockets();
        let most = self.machine.processor.platform().map(|platform| platform.channels);
        let memory = &mut self.machine.memory;
        let said = self.channels.map(|channels| match most {
            // `dual EPYC, 8 channels`: of each.
            Some(most) if channels <= most => channels * sockets,
            _ => channels,
        });
        if let (Some(first), Some(second)) = (memory.channels, said)
            && first != second
        {
            return Err(twice("memory channels", &first, &second));
        }
        let by_modules = || Some(self.modules?.min(most? * sockets));
        memory.channels = memory.channels.or(said).or_else(by_modules);
        Ok(())
    }
}

fn drive_rate(name: &str) -> Option<f64> {
    DRIVES.iter().find(|(known, _)| *known == name).map(|(_, rate)| *rate)
}

fn twice(what: &'static str, first: &dyn Display, second: &dyn Display) -> DescribeError {
    DescribeError::Twice { what, first: first.to_string(), second: second.to_string() }
}

fn unknown(whole: &str, word: &str) -> DescribeError {
    let drives = DRIVES.iter().map(|(name, _)| *name);
    let nearest = nearest(word, processors::names().chain(gpus::names()).chain(drives));
    DescribeError::Word { word: whole.to_owned(), nearest }
}
