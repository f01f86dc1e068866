//! The few facts about this machine that a default depends on, read from `/proc` and `/sys`. Where
//! those do not exist, there is no fact, and the caller goes on without it.

use std::collections::BTreeSet;
use std::fs;

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

/// Bytes that can be allocated without swapping, if the system says so.
pub fn memory_available() -> Option<u64> {
    let free = field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable")?;
    let free = kilobytes(&free)?;
    Some(memory_limit().map_or(free, |limit| limit.min(free)))
}

/// The most memory that this process has used so far, in bytes: mapped files count as far as their
/// pages were touched.
pub fn memory_peak() -> Option<u64> {
    kilobytes(&status("VmHWM")?)
}

/// The limit of the control group that this process runs in, either version of them.
fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let limits = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let file = match controllers {
            "" => format!("/sys/fs/cgroup{path}/memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes")
            }
            _ => return None,
        };
        fs::read_to_string(file).ok()?.trim().parse().ok() // `max` is no number: no limit
    });
    limits.min()
}

fn status(name: &str) -> Option<String> {
    field(&fs::read_to_string("/proc/self/status").ok()?, name)
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
    fn this_machine_has_a_core_and_this_process_has_used_memory() {
        let logical = std::thread::available_parallelism().map_or(1, usize::from);
        assert!((1..=logical).contains(&physical_cores()));
        if cfg!(target_os = "linux") {
            assert!(memory_peak().unwrap() > 100 << 10);
            assert!(memory_available().unwrap() > 1 << 20);
        }
    }
}
