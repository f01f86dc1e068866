//! A machine as data: the facts that decide whether and how fast a model runs on it.
//!
//! The same facts come from `cachalot-probe`, from a description in words, from a preset, or as
//! JSON from another machine. What is not known is absent, and `unknown` says why. JSON comes from
//! outside: [`Machine::check`] refuses impossible numbers, and sums and products saturate.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::processors::{self, Platform};

/// Most bytes of memory that are believed: 1 EiB.
const BYTES_MAX: u64 = 1 << 60;
/// Highest rate that is believed, in bytes or operations per second.
const RATE_MAX: f64 = 1e21;

/// A fact that no machine can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{what}` is {value}, which no machine has: correct it, or leave it out")]
pub struct MachineError {
    /// Path of the field.
    pub what: &'static str,
    /// Its value.
    pub value: String,
}

/// A machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Machine {
    /// Its name, or its description.
    pub name: String,
    /// Its processors.
    pub processor: Processor,
    /// Its main memory.
    pub memory: Memory,
    /// Its drives, or the one that holds the model.
    pub drives: Vec<Drive>,
    /// Its graphics cards, by kind.
    pub gpus: Vec<Gpu>,
    /// Its network.
    pub links: Vec<Link>,
    /// How many machines like this there are, connected by the first link; one if absent.
    pub machines: Option<u32>,
    /// The product that it is, where its name says that.
    pub product: Option<String>,
    /// Where facts come from: `cores`, `memory`, `channels`, `speed`, `drive`.
    pub origins: BTreeMap<String, Origin>,
    /// What was taken to be so where nothing was said, in sentences.
    pub assumed: Vec<String>,
    /// What must be said before anything can be planned, in sentences.
    pub questions: Vec<String>,
    /// What could not be seen, and why, in sentences.
    pub unknown: Vec<String>,
}

/// Where a fact comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The description says it.
    Given,
    /// It follows from a name, by data sheets.
    Known,
    /// It is what such machines commonly have.
    Assumed,
}

/// The processors of a machine, taken together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Processor {
    /// The name that `/proc/cpuinfo` has, or a description.
    pub name: Option<String>,
    /// Sockets in use.
    pub sockets: Option<u32>,
    /// Physical cores of all sockets.
    pub cores: Option<u32>,
    /// Physical cores that a process may use, where a container or its affinity sets a limit.
    pub usable_cores: Option<u32>,
    /// Hardware threads of all sockets.
    pub threads: Option<u32>,
    /// NUMA nodes.
    pub numa_nodes: Option<u32>,
    /// Relevant CPU features, as Linux names them.
    pub features: Vec<String>,
    /// Measured: multiply-adds of weights and activations per second, all cores.
    pub products_per_second: Option<f64>,
    /// Measured: bytes of weights per second in matrix-vector products, by format, all cores.
    /// Memory limits some formats, unpacking the others.
    pub decode_bytes_per_second: BTreeMap<String, f64>,
    /// Measured: operations of attention per second in decode, all cores.
    pub attention_flops: Option<f64>,
    /// Measured: seconds to start a parallel region on all cores and to wait for its end.
    pub join_seconds: Option<f64>,
}

/// Main memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Memory {
    /// Total bytes.
    pub total_bytes: Option<u64>,
    /// Limit of the control groups (a container), below the total.
    pub limit_bytes: Option<u64>,
    /// Bytes that a process can allocate now, within the limits of its control groups.
    pub available_bytes: Option<u64>,
    /// Sizes that the product is made with, in bytes.
    pub sizes: Vec<u64>,
    /// Memory modules.
    pub modules: Option<u32>,
    /// Populated channels of all sockets.
    pub channels: Option<u32>,
    /// Transfers per second and channel, in millions (MT/s).
    pub speed_mts: Option<u32>,
    /// Measured: bytes per second that all cores together read.
    pub read_bytes_per_second: Option<f64>,
    /// Whether cachalot measured that, with its own threads and instructions. A rate from another
    /// program says less about decode.
    pub measured_here: bool,
}

/// A drive, or several of one kind in RAID 0.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drive {
    /// Its name.
    pub name: String,
    /// The folder that was measured.
    pub path: Option<String>,
    /// Bytes per second of direct reads, several large ones in flight.
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
    /// Its name.
    pub name: String,
    /// Number of cards.
    pub count: u32,
    /// Memory of each.
    pub memory_bytes: u64,
    /// Memory bandwidth of each in bytes per second, by data sheet.
    pub bytes_per_second: Option<f64>,
    /// Operations per second of attention over a latent cache.
    pub attention_flops: Option<f64>,
    /// Whether its memory is the main memory of the machine.
    pub unified: bool,
    /// Whether cards of this kind are connected by NVLink or the like.
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
    /// Seconds that a small message takes, if its kind of network is known for another than
    /// Ethernet's.
    pub latency_seconds: Option<f64>,
}

impl Processor {
    /// The platform of a processor of this name.
    pub fn platform(&self) -> Option<&'static Platform> {
        processors::find(self.name.as_deref()?)
    }

    /// Sockets; one if unknown.
    pub fn sockets(&self) -> u32 {
        self.sockets.unwrap_or(1).max(1)
    }

    /// Physical cores of all sockets that may be used, as given or by name.
    pub fn cores(&self) -> Option<u32> {
        let by_name = || {
            let name = self.name.as_deref()?;
            Some(processors::cores(name)?.saturating_mul(self.sockets()))
        };
        let cores = self.cores.or_else(by_name);
        match (cores, self.usable_cores) {
            (Some(cores), Some(usable)) => Some(cores.min(usable)),
            (cores, usable) => cores.or(usable),
        }
    }
}

impl Memory {
    /// Theoretical bandwidth: channels x transfers per second x 8 bytes.
    pub fn theoretical(&self) -> Option<f64> {
        Some(f64::from(self.channels?) * f64::from(self.speed_mts?) * 8e6)
    }

    /// Bytes that may be used: those that are free, or for a described machine all but what the
    /// operating system takes.
    pub fn usable(&self) -> Option<u64> {
        let described = || self.total_bytes.map(|total| total - total / 32);
        self.available_bytes.or_else(described)
    }
}

impl Machine {
    /// Notes where a fact comes from.
    pub fn origin(&mut self, fact: &str, origin: Origin) {
        self.origins.insert(fact.to_owned(), origin);
    }

    /// Machines like this, one if absent.
    pub fn machines(&self) -> u32 {
        self.machines.unwrap_or(1).max(1)
    }

    /// Refuses facts that no machine can have: negative or infinite rates, empty cards, absurd
    /// counts.
    ///
    /// # Errors
    /// Names the first impossible fact.
    pub fn check(&self) -> Result<(), MachineError> {
        let Processor { sockets, cores, usable_cores, threads, numa_nodes, .. } = self.processor;
        let counts = [
            ("processor.usable_cores", usable_cores, 65_536),
            ("machines", self.machines, 4096),
            ("processor.sockets", sockets, 64),
            ("processor.cores", cores, 65_536),
            ("processor.threads", threads, 65_536),
            ("processor.numa_nodes", numa_nodes, 1024),
            ("memory.channels", self.memory.channels, 1024),
            ("memory.speed_mts", self.memory.speed_mts, 100_000),
        ];
        let gpus = self.gpus.iter().map(|gpu| ("gpus.count", Some(gpu.count), 65_536));
        for (what, count, most) in counts.into_iter().chain(gpus) {
            if let Some(count) = count.filter(|count| !(1..=most).contains(count)) {
                return Err(MachineError { what, value: count.to_string() });
            }
        }
        self.check_sizes()?;
        self.check_rates()
    }

    fn check_sizes(&self) -> Result<(), MachineError> {
        let memory = [
            ("memory.total_bytes", self.memory.total_bytes),
            ("memory.limit_bytes", self.memory.limit_bytes),
            ("memory.available_bytes", self.memory.available_bytes),
        ];
        let gpus = self.gpus.iter().map(|gpu| ("gpus.memory_bytes", Some(gpu.memory_bytes)));
        for (what, bytes) in memory.into_iter().chain(gpus) {
            if let Some(bytes) = bytes.filter(|bytes| *bytes > BYTES_MAX) {
                return Err(MachineError { what, value: bytes.to_string() });
            }
        }
        Ok(())
    }

    fn check_rates(&self) -> Result<(), MachineError> {
        let processor = &self.processor;
        let own = [
            ("memory.read_bytes_per_second", self.memory.read_bytes_per_second),
            ("processor.products_per_second", processor.products_per_second),
            ("processor.attention_flops", processor.attention_flops),
            ("processor.join_seconds", processor.join_seconds),
        ];
        let formats = processor.decode_bytes_per_second.values();
        let formats = formats.map(|rate| ("processor.decode_bytes_per_second", Some(*rate)));
        let drives = self.drives.iter();
        let drives = drives.map(|d| ("drives.read_bytes_per_second", d.read_bytes_per_second));
        let gpus = self.gpus.iter().flat_map(|gpu| {
            [
                ("gpus.bytes_per_second", gpu.bytes_per_second),
                ("gpus.attention_flops", gpu.attention_flops),
            ]
        });
        for (what, rate) in own.into_iter().chain(formats).chain(drives).chain(gpus) {
            if let Some(rate) = rate.filter(|rate| !(*rate > 0.0 && *rate < RATE_MAX)) {
                return Err(MachineError { what, value: rate.to_string() });
            }
        }
        Ok(())
    }

    /// The GPU that shares the main memory, if there is one.
    pub fn unified(&self) -> Option<&Gpu> {
        self.gpus.iter().find(|gpu| gpu.unified)
    }

    /// Number of graphics cards.
    pub fn gpu_count(&self) -> u32 {
        self.gpus.iter().fold(0, |sum, gpu| sum.saturating_add(gpu.count))
    }

    /// The fastest drive whose rate is known.
    pub fn drive(&self) -> Option<(&Drive, f64)> {
        let rated = self.drives.iter().filter_map(|drive| {
            Some((drive, drive.read_bytes_per_second.filter(|rate| *rate > 0.0)?))
        });
        rated.max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The machine without its graphics cards, which cachalot does not use yet.
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
    fn impossible_facts_are_refused() {
        let check = |json: &str| serde_json::from_str::<Machine>(json).unwrap().check();
        assert_eq!(check(r#"{"memory": {"channels": 8, "speed_mts": 3200}}"#), Ok(()));
        for (json, what) in [
            (r#"{"processor": {"sockets": 4294967295}}"#, "processor.sockets"),
            (r#"{"processor": {"cores": 0}}"#, "processor.cores"),
            (r#"{"memory": {"total_bytes": 18446744073709551615}}"#, "memory.total_bytes"),
            (r#"{"memory": {"read_bytes_per_second": -1.0}}"#, "memory.read_bytes_per_second"),
            (r#"{"drives": [{"read_bytes_per_second": 0}]}"#, "drives.read_bytes_per_second"),
            (r#"{"gpus": [{"count": 0, "memory_bytes": 1}]}"#, "gpus.count"),
            (r#"{"processor": {"decode_bytes_per_second": {"Q4_K": -3}}}"#, "decode_bytes"),
        ] {
            let error = check(json).unwrap_err().to_string();
            assert!(error.contains(what), "{json}: {error}");
        }
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
