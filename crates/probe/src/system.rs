//! The few facts about this machine that a default depends on, read from `/proc` and `/sys`. Where
//! those do not exist, there is no fact, and the caller goes on without it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::cgroup::{self, Group};

/// Physical cores that this process may use: two threads of one core share the units that do the
/// arithmetic, so more threads than this gain nothing. At least 1.
pub fn physical_cores() -> usize {
    // Respects the affinity mask and the CPU quota of a container.
    let logical = std::thread::available_parallelism().map_or(1, usize::from);
    let allowed = status("Cpus_allowed_list").map(|list| cpus(&list)).unwrap_or_default();
    let siblings = |cpu: &usize| {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        fs::read_to_string(path).ok()
    };
    let cores: BTreeSet<String> = allowed.iter().filter_map(siblings).collect();
    if cores.is_empty() { logical } else { cores.len().min(logical) }
}

/// Bytes that can be allocated without swapping, if the system says so: what is free, and what the
/// limits of the control groups that this process runs in leave of it.
pub fn memory_available() -> Option<u64> {
    let free = kilobytes(&meminfo("MemAvailable")?)?;
    Some(cgroup::groups().iter().filter_map(Group::left).fold(free, u64::min))
}

/// Bytes of memory that this machine has.
pub fn memory_total() -> Option<u64> {
    kilobytes(&meminfo("MemTotal")?)
}

/// The lowest limit of the control groups that this process runs in, if there is any below the
/// machine's memory.
pub fn memory_limit() -> Option<u64> {
    let lowest = cgroup::groups().iter().filter_map(Group::limit).min();
    lowest.filter(|limit| memory_total().is_none_or(|total| *limit < total))
}

/// Whether this file is in memory already, because its file system is.
#[cfg(target_os = "linux")]
pub fn is_memory(path: &Path) -> bool {
    // TMPFS_MAGIC and RAMFS_MAGIC of <linux/magic.h>.
    const MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
    rustix::fs::statfs(path).is_ok_and(|system| MEMORY.contains(&(system.f_type as u64)))
}

/// Whether this file is in memory already: not known on this system.
#[cfg(not(target_os = "linux"))]
pub fn is_memory(_: &Path) -> bool {
    false
}

/// The most memory that this process has used so far, in bytes: mapped files count as far as their
/// pages were touched.
pub fn memory_peak() -> Option<u64> {
    kilobytes(&status("VmHWM")?)
}

/// Bytes of this process's memory that lie in huge pages, if the system says so.
pub fn huge_pages() -> Option<u64> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    kilobytes(&field(&rollup, "AnonHugePages")?)
}

fn meminfo(name: &str) -> Option<String> {
    field(&fs::read_to_string("/proc/meminfo").ok()?, name)
}

fn status(name: &str) -> Option<String> {
    field(&fs::read_to_string("/proc/self/status").ok()?, name)
}

/// How much other programs compute while something is measured.
#[derive(Debug, Clone, Copy)]
pub struct Others {
    begun: Instant,
    seconds: f64,
}

/// Ticks of the clock in a second, as `/proc` counts them: `USER_HZ`, the same on all Linux.
const TICKS_PER_SECOND: f64 = 100.0;

impl Others {
    /// Begins to watch; `None` if the system does not tell.
    pub fn watch() -> Option<Self> {
        Some(Self { begun: Instant::now(), seconds: other_seconds()? })
    }

    /// Processors that others kept busy since, on average.
    pub fn busy(&self) -> Option<f64> {
        Some((other_seconds()? - self.seconds) / self.begun.elapsed().as_secs_f64().max(1e-3))
    }
}

/// Seconds that all processors have computed for others than this process; what a hypervisor took
/// for other machines is among them.
fn other_seconds() -> Option<f64> {
    let all = fs::read_to_string("/proc/stat").ok()?;
    // `cpu user nice system idle iowait irq softirq steal`
    let ticks: Vec<f64> =
        all.lines().next()?.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    let busy: f64 =
        ticks.iter().take(8).enumerate().filter(|(i, _)| !matches!(i, 3 | 4)).map(|(_, n)| n).sum();
    let own = fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in brackets, may hold blanks; utime and stime are fields 14 and 15, 12 and 13 after
    // it.
    let fields: Vec<&str> = own.rsplit_once(')')?.1.split_whitespace().collect();
    let own: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some((busy - own) / TICKS_PER_SECOND)
}

/// Sockets, physical cores, hardware threads and NUMA nodes of the whole machine, as far as known.
pub fn topology() -> (Option<u32>, Option<u32>, Option<u32>, Option<u32>) {
    let online = |what: &str| {
        let list = fs::read_to_string(format!("/sys/devices/system/{what}/online")).ok()?;
        Some(cpus(list.trim()))
    };
    let of = |cpu: &usize, file: &str| {
        fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/{file}")).ok()
    };
    let threads = online("cpu").unwrap_or_default();
    let different = |file: &str| {
        let found: BTreeSet<String> = threads.iter().filter_map(|cpu| of(cpu, file)).collect();
        Some(found.len() as u32).filter(|count| *count > 0)
    };
    (
        different("physical_package_id"),
        different("thread_siblings_list"),
        Some(threads.len() as u32).filter(|count| *count > 0),
        online("node").map(|nodes| nodes.len() as u32).filter(|count| *count > 0),
    )
}

/// The NUMA nodes that have both cores and memory; none where the system does not say. A node of
/// memory alone is slow, or a GPU's.
pub fn memory_nodes() -> Vec<usize> {
    let list = |what: &str| {
        let list =
            fs::read_to_string(format!("/sys/devices/system/node/{what}")).unwrap_or_default();
        cpus(list.trim())
    };
    let cores = list("has_cpu");
    list("has_memory").into_iter().filter(|node| cores.contains(node)).collect()
}

/// `Name:   value` among the lines of `text`.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(':')?;
        Some(value.trim().to_owned())
    })
}

/// `1620 kB` in bytes; the kernel's kB are KiB.
fn kilobytes(value: &str) -> Option<u64> {
    Some(value.strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// `0-3,8` -> 0, 1, 2, 3, 8.
fn cpus(list: &str) -> Vec<usize> {
    let ranges = list.split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    });
    ranges.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_notations_are_read() {
        assert_eq!(cpus("0-3,8,10-11"), [0, 1, 2, 3, 8, 10, 11]);
        assert_eq!(cpus(""), [0; 0]);
        assert_eq!(kilobytes("1620 kB"), Some(1620 * 1024));
        assert_eq!(field("VmPeak: 3 kB\nVmHWM:\t  1 kB\n", "VmHWM").as_deref(), Some("1 kB"));
    }

    #[test]
    fn what_this_process_computes_is_not_the_others() {
        let Some(others) = Others::watch() else { return };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let begun = Instant::now();
        while begun.elapsed().as_millis() < 200 {
            std::hint::black_box(begun);
        }
        let busy = others.busy().unwrap();
        assert!((-1.0..threads as f64 + 1.0).contains(&busy), "{busy}");
    }

    #[test]
    fn files_in_memory_are_known() {
        assert!(!is_memory(Path::new("no such file")));
        if let Ok(folder) = tempfile::tempdir_in("/dev/shm") {
            assert!(is_memory(folder.path()));
        }
    }

    #[test]
    fn this_machine_has_a_core_and_this_process_has_used_memory() {
        let logical = std::thread::available_parallelism().map_or(1, usize::from);
        assert!((1..=logical).contains(&physical_cores()));
        if cfg!(target_os = "linux") {
            assert!(memory_peak().unwrap() > 100 << 10);
            assert!(memory_available().unwrap() > 1 << 20);
        }
    }
}
