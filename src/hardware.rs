//! The machine that this program runs on, with its measured rates.
//!
//! Measuring takes a few seconds, so rates are kept in a file of the user's cache, by processor,
//! number of threads and build of this program, and by drive. Deleting the file, or `--fresh`,
//! measures again.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use cachalot_engine::layout::Options;
use cachalot_kernels::Cpu;
use cachalot_plan::Machine;
use cachalot_probe::system::Others;
use serde::{Deserialize, Serialize};

use crate::settings::Environment;
use crate::state;
use crate::terminal::Progress;

/// Other programs that keep more than this many cores busy disturb a measurement: one busy core
/// takes much of the memory bandwidth, however many cores there are.
const BUSY_CORES: f64 = 0.5;
/// Memory that delivers this many times the kept rate was shared when that was measured.
const OUTDATED: f64 = 1.2;
/// A folder for temporary files that outlive a restart, and so are on a drive.
const VAR_TMP: &str = "/var/tmp";
/// What is written to measure a drive without a model.
const SCRATCH_MIB: u64 = 256;

/// What to do about rates that have not been measured yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Measure them.
    Missing,
    /// Measure all again.
    Fresh,
    /// Go on without.
    Never,
}

/// Which drive's rate is of interest.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DriveProbe<'a> {
    /// The one that this model is on.
    File(&'a Path),
    /// One that a model would be on: a file to measure with is written for it.
    Anywhere,
    /// None.
    Nowhere,
}

/// The rates of this machine, as they are kept.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Rates {
    memory: Vec<MemoryRate>,
    drives: Vec<DriveRate>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct MemoryRate {
    processor: String,
    threads: usize,
    instructions: String,
    /// Other builds have other kernels.
    program: String,
    read_bytes_per_second: f64,
    products_per_second: f64,
    attention_flops: f64,
    join_seconds: f64,
    decode_bytes_per_second: BTreeMap<String, f64>,
}

impl MemoryRate {
    /// What was measured of `machine`, under the same key.
    fn of(machine: &Machine, key: &Self) -> Self {
        let (memory, processor) = (&machine.memory, &machine.processor);
        Self {
            read_bytes_per_second: memory.read_bytes_per_second.unwrap_or_default(),
            products_per_second: processor.products_per_second.unwrap_or_default(),
            attention_flops: processor.attention_flops.unwrap_or_default(),
            join_seconds: processor.join_seconds.unwrap_or_default(),
            decode_bytes_per_second: processor.decode_bytes_per_second.clone(),
            ..key.clone()
        }
    }

    fn is_of(&self, key: &Self) -> bool {
        let key_of = |rate: &Self| {
            let Self { processor, instructions, program, .. } = rate.clone();
            (processor, rate.threads, instructions, program)
        };
        key_of(self) == key_of(key)
    }

    fn apply_to(&self, machine: &mut Machine) {
        machine.memory.read_bytes_per_second = Some(self.read_bytes_per_second);
        machine.memory.measured_here = true;
        let processor = &mut machine.processor;
        processor.products_per_second = Some(self.products_per_second);
        processor.attention_flops = Some(self.attention_flops);
        processor.join_seconds = Some(self.join_seconds);
        processor.decode_bytes_per_second = self.decode_bytes_per_second.clone();
    }
}

/// What tells one machine from another, for `plan --import` on any machine.
pub(crate) fn identity() -> serde_json::Value {
    let machine = cachalot_probe::machine();
    serde_json::json!({
        "processor": machine.processor.name,
        "sockets": machine.processor.sockets,
        "cores": machine.processor.cores,
        "memory_bytes": machine.memory.total_bytes,
    })
}

/// What tells one build of this program from another: its version and its size.
fn program() -> String {
    let size = std::env::current_exe().and_then(fs::metadata).map_or(0, |file| file.len());
    format!("{} {size}", env!("CARGO_PKG_VERSION"))
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct DriveRate {
    device: String,
    read_bytes_per_second: f64,
}

/// More cannot be a file of ours.
const RATES_BYTES_MAX: u64 = 1 << 20;

impl Rates {
    fn load(path: Option<&Path>) -> Self {
        let text = path.and_then(|path| state::read(path, RATES_BYTES_MAX));
        // A file that makes no sense is measured anew, and written over.
        text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    /// Keeps them, if there is a place: without one, the next run measures again.
    fn save(&self, path: Option<&Path>) {
        let Some(path) = path else { return };
        if let Ok(text) = serde_json::to_string_pretty(self) {
            state::write(path, &text);
        }
    }
}

/// This machine, with measured rates.
pub(crate) fn this_machine(
    environment: &Environment,
    options: &Options,
    drive: DriveProbe<'_>,
    measure: Measure,
) -> Machine {
    let mut machine = cachalot_probe::machine();
    let path = environment.rates.as_deref();
    let mut rates = Rates::load(path);
    let key = key_of(&machine, options);
    if measure == Measure::Fresh {
        rates.memory.retain(|rate| !rate.is_of(&key));
    }
    if let Some(rate) = rates.memory.iter().find(|rate| rate.is_of(&key)) {
        rate.apply_to(&mut machine);
    } else if measure != Measure::Never {
        let mut progress = Progress::new("measuring this machine");
        progress.pulse();
        let others = Others::watch();
        cachalot_probe::measure(&mut machine, &Cpu::new(key.threads, options.tier));
        progress.clear();
        if let Some(busy) = disturbed(others) {
            machine.unknown.push(format!(
                "the undisturbed memory bandwidth: other programs kept {busy:.1} cores busy while it was \
                 measured, so the real one may be higher; it was not saved, and is measured again next time"
            ));
        } else {
            rates.memory.push(MemoryRate::of(&machine, &key));
            rates.save(path);
        }
    }
    with_drive(machine, rates, environment, drive, measure)
}

/// What rates of `machine` with these options are kept under.
fn key_of(machine: &Machine, options: &Options) -> MemoryRate {
    MemoryRate {
        processor: machine.processor.name.clone().unwrap_or_default(),
        threads: options.threads.unwrap_or_else(cachalot_probe::system::physical_cores),
        instructions: options.tier.to_string(),
        program: program(),
        read_bytes_per_second: 0.0,
        products_per_second: 0.0,
        attention_flops: 0.0,
        join_seconds: 0.0,
        decode_bytes_per_second: BTreeMap::new(),
    }
}

/// Forgets the kept rates if memory delivers much more than they say, and returns the rate that was
/// kept: other virtual machines may have been busy when it was measured, which is not seen from
/// here.
pub(crate) fn forget_outdated(
    environment: &Environment,
    options: &Options,
    now: f64,
) -> Option<f64> {
    let path = environment.rates.as_deref();
    let mut rates = Rates::load(path);
    let key = key_of(&cachalot_probe::machine(), options);
    let kept = rates.memory.iter().find(|rate| rate.is_of(&key))?.read_bytes_per_second;
    (now > kept * OUTDATED).then(|| {
        rates.memory.retain(|rate| !rate.is_of(&key));
        rates.save(path);
        kept
    })
}

/// Cores that other programs kept busy meanwhile, if that disturbs a measurement.
fn disturbed(others: Option<Others>) -> Option<f64> {
    others.and_then(|others| others.busy()).filter(|busy| *busy > BUSY_CORES)
}

/// The machine with the rate of the drive that holds the model, or would hold one.
fn with_drive(
    mut machine: Machine,
    mut rates: Rates,
    environment: &Environment,
    place: DriveProbe<'_>,
    measure: Measure,
) -> Machine {
    let kept = environment.rates.as_deref();
    match place {
        DriveProbe::File(file) => drive(&mut machine, &mut rates, kept, file, measure),
        DriveProbe::Anywhere => any_drive(&mut machine, &mut rates, kept, measure),
        DriveProbe::Nowhere => {}
    }
    machine
}

/// There is no model yet: measures the drive of the first folder that is on one and can be written
/// to. Where none can, the drives that the system lists keep an unknown rate.
fn any_drive(machine: &mut Machine, rates: &mut Rates, kept: Option<&Path>, measure: Measure) {
    let cache = kept.and_then(Path::parent).map(Path::to_owned);
    let folders = cache.into_iter().chain(std::env::current_dir()).chain([VAR_TMP.into()]);
    let mut failures = Vec::new();
    for folder in folders {
        // A folder that does not exist yet is on the drive of the one that it will be made in.
        let existing = folder.ancestors().find(|folder| folder.exists()).unwrap_or(&folder);
        if cachalot_probe::system::is_memory(existing) {
            failures.push(format!("{} is in memory", folder.display()));
            continue;
        }
        let known = cachalot_probe::device_of(existing)
            .is_some_and(|device| rates.drives.iter().any(|rate| rate.device == device));
        if known && measure != Measure::Fresh {
            return drive(machine, rates, kept, existing, measure);
        }
        if measure == Measure::Never {
            return;
        }
        match scratch(&folder) {
            Ok(file) => return drive(machine, rates, kept, file.path(), measure),
            Err(error) => failures.push(format!("{}: {error}", folder.display())),
        }
    }
    let failures = failures.join("; ");
    machine.unknown.push(format!(
        "the drive's read rate: no file could be written to measure it ({failures}); give it with --disk"
    ));
}

/// A file of numbers that no drive can compress, which goes away when it is dropped.
fn scratch(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    let mut progress = Progress::new("measuring the drive");
    let mut random = fastrand::Rng::with_seed(671);
    let mut piece = vec![0; 1 << 20];
    for done in 0..SCRATCH_MIB {
        random.fill(&mut piece);
        file.write_all(&piece)?;
        progress.set(done, SCRATCH_MIB);
    }
    file.as_file().sync_all()?;
    Ok(file)
}

/// The drive of the model, measured or as remembered, before all others.
fn drive(
    machine: &mut Machine,
    rates: &mut Rates,
    kept: Option<&Path>,
    file: &Path,
    measure: Measure,
) {
    let device = cachalot_probe::device_of(file).unwrap_or_else(|| "unknown drive".to_owned());
    if measure == Measure::Fresh {
        rates.drives.retain(|rate| rate.device != device);
    }
    let known = rates.drives.iter().find(|rate| rate.device == device);
    let found = match known {
        Some(rate) => Some(cachalot_plan::machine::Drive {
            name: device.clone(),
            path: file.parent().map(|folder| folder.display().to_string()),
            read_bytes_per_second: Some(rate.read_bytes_per_second),
            measured_here: true,
            free_bytes: None,
        }),
        None if measure == Measure::Never => None,
        None => match cachalot_probe::drive(file) {
            Ok(drive) => {
                let rate = drive.read_bytes_per_second.unwrap_or_default();
                rates
                    .drives
                    .push(DriveRate { device: device.clone(), read_bytes_per_second: rate });
                rates.save(kept);
                Some(drive)
            }
            Err(why) => {
                machine.unknown.push(why);
                None
            }
        },
    };
    if let Some(found) = found {
        machine.drives.retain(|drive| drive.name != device);
        machine.drives.insert(0, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_comes_back_from_its_file_to_the_last_bit() {
        for rate in [24_146_248_469.723_366_f64, 0.1, 1e300] {
            let read: f64 = serde_json::from_str(&serde_json::to_string(&rate).unwrap()).unwrap();
            assert_eq!(read.to_bits(), rate.to_bits());
        }
    }

    #[test]
    fn a_cache_folder_that_cannot_be_written_to_does_not_hide_the_drive() {
        let mut environment = Environment::default();
        environment.rates = Some("/proc/no/such/folder/rates.json".into());
        let machine = Machine::default();
        let (rates, anywhere) = (Rates::default(), DriveProbe::Anywhere);
        let machine = with_drive(machine, rates, &environment, anywhere, Measure::Missing);
        let said = machine.unknown.iter().any(|why| why.contains("--disk"));
        assert!(machine.drive().is_some() || said, "{machine:?}");
    }

    #[test]
    fn rates_are_measured_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut environment = Environment::default();
        environment.rates = Some(folder.path().join("cachalot/rates.json"));
        let options = Options { threads: Some(1), ..Options::default() };
        let calf = DriveProbe::File(Path::new("models/calf.gguf"));
        let none = this_machine(&environment, &options, DriveProbe::Nowhere, Measure::Never);
        assert_eq!(none.memory.read_bytes_per_second, None);
        let first = this_machine(&environment, &options, calf, Measure::Missing);
        assert!(first.memory.measured_here && first.memory.read_bytes_per_second.unwrap() > 1e6);
        let again = this_machine(&environment, &options, DriveProbe::Nowhere, Measure::Never);
        // On a busy machine nothing is kept, and that is said.
        let busy = first.unknown.iter().any(|why| why.contains("other programs kept"));
        let kept = first.memory.read_bytes_per_second.filter(|_| !busy);
        assert_eq!(again.memory.read_bytes_per_second, kept);
        if let Some(kept) = kept {
            assert_eq!(forget_outdated(&environment, &options, kept * 1.1), None);
            assert_eq!(forget_outdated(&environment, &options, kept * 1.3), Some(kept));
        }
        assert_eq!(forget_outdated(&environment, &options, 1e15), None, "nothing is kept any more");
        let path = environment.rates.as_deref();
        fs::create_dir_all(path.unwrap().parent().unwrap()).unwrap();
        fs::write(path.unwrap(), "nonsense").unwrap();
        assert!(Rates::load(path).memory.is_empty(), "what makes no sense is forgotten");
    }
}
