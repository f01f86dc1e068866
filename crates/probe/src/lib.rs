//! Facts about this machine, as far as they can be seen without being root, in the form in which
//! `cachalot-plan` takes those of any machine.
//!
//! [`machine`] only reads what the system says, in milliseconds. Rates are measured by [`measure`]
//! and [`drive`], which take seconds: the caller decides when, and keeps them. Where a source does
//! not exist, the fact is absent and a sentence says so.
#![forbid(unsafe_code)]

mod cgroup;
mod devices;
pub mod dmi;
mod gpus;
pub mod system;

use std::fs;
use std::path::Path;
use std::time::Duration;

use cachalot_kernels::{Cpu, Format, probe};

pub use self::devices::device_of;
use cachalot_plan::machine::{Drive, Machine, Memory, Processor};

/// Instructions that decide about kernels, as `/proc/cpuinfo` spells them.
const FEATURES: [&str; 14] = [
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_vbmi",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
];
/// How long a drive is measured.
const DRIVE_TIME: Duration = Duration::from_millis(1500);
/// More than this is not read to measure memory.
const MEMORY_SHARE: u64 = 2;
/// What formats are measured with: more than caches hold.
const NOISE_BYTES: usize = 512 << 20;

/// What the system says about this machine.
pub fn machine() -> Machine {
    let mut unknown = Vec::new();
    let modules = dmi::read();
    if let Err(why) = &modules {
        unknown.push(format!("memory channels and their speed: {why}"));
    }
    let modules = modules.unwrap_or_default();
    let (gpus, why) = gpus::gpus();
    unknown.extend(why);
    let (sockets, cores, threads, numa_nodes) = system::topology();
    let (name, features) = processor();
    if name.is_none() {
        unknown.push("the processor's name: /proc/cpuinfo does not tell it".to_owned());
    }
    Machine {
        name: fs::read_to_string("/proc/sys/kernel/hostname")
            .map_or_else(|_| "this machine".to_owned(), |name| name.trim().to_owned()),
        processor: Processor {
            name,
            sockets,
            cores,
            threads,
            numa_nodes,
            usable_cores: Some(system::physical_cores() as u32),
            features,
            ..Processor::default()
        },
        memory: Memory {
            limit_bytes: system::memory_limit(),
            total_bytes: system::memory_total(),
            available_bytes: system::memory_available(),
            channels: modules.channels,
            speed_mts: modules.speed_mts,
            read_bytes_per_second: None,
            measured_here: false,
            ..Memory::default()
        },
        drives: devices::drives(),
        gpus,
        links: devices::links(),
        unknown,
        ..Machine::default()
    }
}

/// Measures what all cores together read, unpack and multiply, in a few seconds.
pub fn measure(machine: &mut Machine, cpu: &Cpu) {
    let room = system::memory_available().unwrap_or(u64::MAX) / MEMORY_SHARE;
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    machine.memory.read_bytes_per_second = Some(probe::read_bandwidth_over(cpu, room));
    machine.memory.measured_here = true;
    let processor = &mut machine.processor;
    processor.products_per_second = Some(probe::product_rate(cpu));
    processor.attention_flops = Some(probe::attention_rate(cpu));
    processor.join_seconds = Some(probe::region_time(cpu));
    let noise = probe::noise(cpu, room.min(NOISE_BYTES));
    let quantized = Format::all().filter(|format| format.block_len() > 1);
    let rates =
        quantized.map(|format| (format.name().to_owned(), probe::decode_rate(cpu, format, &noise)));
    processor.decode_bytes_per_second = rates.filter(|(_, rate)| *rate > 0.0).collect();
}

fn processor() -> (Option<String>, Vec<String>) {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        info.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            (found.trim() == name).then(|| value.trim().to_owned())
        })
    };
    // ARM boards name themselves, not their processor.
    let board = || {
        let model = fs::read_to_string("/sys/firmware/devicetree/base/model").ok()?;
        Some(model.trim_end_matches('\0').to_owned())
    };
    let flags = field("flags").or_else(|| field("Features")).unwrap_or_default();
    let has = |feature: &&str| flags.split(' ').any(|flag| flag == *feature);
    let features = FEATURES.iter().copied().filter(has).map(str::to_owned).collect();
    (field("model name").or_else(board), features)
}

/// Measures the drive that `file` is on, past the page cache.
///
/// # Errors
/// If it cannot be read; the message says why.
pub fn drive(file: &Path) -> Result<Drive, String> {
    let rate = cachalot_store::read_rate(file, DRIVE_TIME).map_err(|error| error.to_string())?;
    if !rate.direct {
        return Err(format!(
            "{} cannot be read past the page cache: its drive's rate is unknown",
            file.display()
        ));
    }
    Ok(Drive {
        name: device_of(file).unwrap_or_else(|| "the drive".to_owned()),
        path: file.parent().map(|folder| folder.display().to_string()),
        read_bytes_per_second: Some(rate.bytes_per_second),
        measured_here: true,
        free_bytes: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_seen() {
        let machine = machine();
        let logical = std::thread::available_parallelism().map_or(1, usize::from);
        if cfg!(target_os = "linux") {
            assert!(machine.processor.threads.unwrap() as usize >= logical);
            assert!(machine.memory.usable().unwrap() <= machine.memory.total_bytes.unwrap());
            assert!(machine.processor.sockets.is_some_and(|sockets| sockets >= 1));
        }
        let json = serde_json::to_string(&machine).unwrap();
        assert_eq!(
            serde_json::from_str::<Machine>(&json).unwrap(),
            machine,
            "it can be sent to others"
        );
        assert!(
            machine.memory.channels.is_some() || !machine.unknown.is_empty(),
            "or says why not"
        );
    }

    #[test]
    fn the_device_of_a_file_is_found_or_not_but_nothing_breaks() {
        let _ = device_of(Path::new("/proc/self/status"));
        assert_eq!(device_of(Path::new("/no/such/file")), None);
        assert!(drive(Path::new("/no/such/file")).is_err());
    }
}
