//! A machine as data: what decides whether and how fast a model runs on it.
//!
//! The same facts come from the probe of this machine, from a description in words, from a preset, or
//! as JSON from somebody else's machine, so that one person can plan for another. What is not known
//! is absent, and `unknown` says why; nothing is filled in here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::processors::{self, Platform};

/// A machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Machine {
    /// What to call it.
    pub name: String,
    /// Its processors.
    pub processor: Processor,
    /// Its main memory.
    pub memory: Memory,
    /// Its drives, or the one where the model lies.
    pub drives: Vec<Drive>,
    /// Its graphics cards, by kind.
    pub gpus: Vec<Gpu>,
    /// Its network.
    pub links: Vec<Link>,
    /// What could not be seen, and why, in sentences.
    pub unknown: Vec<String>,
}

/// The processors of a machine, taken together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Processor {
    /// As it calls itself.
    pub name: Option<String>,
    /// Sockets that are used.
    pub sockets: Option<u32>,
    /// Physical cores of all sockets.
    pub cores: Option<u32>,
    /// Hardware threads of all sockets.
    pub threads: Option<u32>,
    /// Parts of memory that are nearer to some cores than to others.
    pub numa_nodes: Option<u32>,
    /// Instructions that matter here, as Linux calls them.
    pub features: Vec<String>,
    /// Measured: products of weights and inputs per second, with all cores.
    pub products_per_second: Option<f64>,
    /// Measured: bytes of weights per second that are multiplied with one input, by format, with all
    /// cores. Memory limits some formats, unpacking the others.
    pub decode_bytes_per_second: BTreeMap<String, f64>,
    /// Measured: operations of attention per second in decoding, with all cores.
    pub attention_flops: Option<f64>,
    /// Measured: seconds that all cores take to begin something together and to wait for each other.
    pub join_seconds: Option<f64>,
}

/// Main memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Memory {
    /// All of it.
    pub total_bytes: Option<u64>,
    /// What a process may take now, within the limits of its control group.
    pub available_bytes: Option<u64>,
    /// Channels with memory in them, of all sockets.
    pub channels: Option<u32>,
    /// Millions of transfers per second and channel.
    pub speed_mts: Option<u32>,
    /// Bytes per second that all cores together read, as measured.
    pub read_bytes_per_second: Option<f64>,
    /// Whether cachalot measured that, with its own threads and instructions. A figure that somebody
    /// else reports tells less about what decoding reaches.
    pub measured_here: bool,
}

/// A drive, or several of one kind as RAID 0.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drive {
    /// What to call it.
    pub name: String,
    /// The place whose rate this is.
    pub path: Option<String>,
    /// Bytes per second past the page cache, with several large reads under way.
    pub read_bytes_per_second: Option<f64>,
    /// Whether that was measured here.
    pub measured_here: bool,
    /// Bytes that are free on it.
    pub free_bytes: Option<u64>,
}

/// Graphics cards of one kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gpu {
    /// What to call it.
    pub name: String,
    /// How many there are.
    pub count: u32,
    /// Memory of each.
    pub memory_bytes: u64,
    /// Bytes per second that each reads from its memory, by its data sheet.
    pub bytes_per_second: Option<f64>,
    /// Operations per second of attention over a latent cache.
    pub attention_flops: Option<f64>,
    /// Its memory is the machine's main memory.
    pub unified: bool,
    /// It is joined to its like by links made for sharing one layer's work.
    pub joined: bool,
}

/// A network link.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Link {
    /// The interface.
    pub name: String,
    /// Bits per second.
    pub bits_per_second: u64,
}

impl Processor {
    /// What is known of processors of this name.
    pub fn platform(&self) -> Option<&'static Platform> {
        processors::find(self.name.as_deref()?)
    }

    /// Sockets, one if nobody said how many.
    pub fn sockets(&self) -> u32 {
        self.sockets.unwrap_or(1).max(1)
    }

    /// Physical cores of all sockets, if they are known or the name tells.
    pub fn cores(&self) -> Option<u32> {
        let by_name = || {
            let name = self.name.as_deref()?;
            Some(processors::cores(name)? * self.sockets())
        };
        self.cores.or_else(by_name)
    }
}

impl Memory {
    /// Channels times transfers times eight bytes: what memory delivers at the very best.
    pub fn theoretical(&self) -> Option<f64> {
        Some(f64::from(self.channels?) * f64::from(self.speed_mts?) * 8e6)
    }

    /// What may be used: what is free, or of a machine that is only described, all but what a system
    /// takes for itself.
    pub fn usable(&self) -> Option<u64> {
        let described = || self.total_bytes.map(|total| total - total / 32);
        self.available_bytes.or_else(described)
    }
}

impl Machine {
    /// Its only kind of memory is shared with its graphics unit.
    pub fn unified(&self) -> Option<&Gpu> {
        self.gpus.iter().find(|gpu| gpu.unified)
    }

    /// Graphics cards in all.
    pub fn gpu_count(&self) -> u32 {
        self.gpus.iter().map(|gpu| gpu.count).sum()
    }

    /// The fastest drive whose rate is known.
    pub fn drive(&self) -> Option<(&Drive, f64)> {
        let rated = self.drives.iter().filter_map(|drive| {
            Some((drive, drive.read_bytes_per_second.filter(|rate| *rate > 0.0)?))
        });
        rated.max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The machine without its graphics cards: what cachalot itself uses of it.
    pub fn without_gpus(&self) -> Self {
        Self { gpus: Vec::new(), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_survive_json_and_unknown_ones_are_absent() {
        let json = r#"{"name": "rig", "memory": {"total_bytes": 549755813888, "channels": 8,
            "speed_mts": 3200}, "processor": {"name": "AMD EPYC 7532"}}"#;
        let machine: Machine = serde_json::from_str(json).unwrap();
        assert_eq!(machine.memory.theoretical(), Some(204.8e9));
        assert_eq!(machine.memory.read_bytes_per_second, None);
        assert_eq!(machine.processor.sockets(), 1);
        let again = serde_json::to_string(&machine).unwrap();
        assert_eq!(serde_json::from_str::<Machine>(&again).unwrap(), machine);
        let error =
            serde_json::from_str::<Machine>(r#"{"memory": {"totl_bytes": 1}}"#).unwrap_err();
        assert!(error.to_string().contains("totl_bytes"), "{error}");
    }

    #[test]
    fn the_fastest_known_drive_counts() {
        let drive = |name: &str, rate| Drive {
            name: name.to_owned(),
            read_bytes_per_second: rate,
            ..Drive::default()
        };
        let drives = vec![drive("a", Some(1e9)), drive("b", None), drive("c", Some(7e9))];
        let machine = Machine { drives, ..Machine::default() };
        assert_eq!(machine.drive().unwrap().0.name, "c");
        assert!(Machine::default().drive().is_none());
    }
}
