//! The few facts about this machine that a default depends on, read from `/proc` and `/sys`. Where
//! those do not exist, there is no fact, and the caller goes on without it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

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
    Some(memory_in_group().map_or(free, |in_group| in_group.min(free)))
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

/// What the limit of the control group that this process runs in, either version of them, leaves. Pages
/// of files that were not used lately count as free: the group gives them up first.
fn memory_in_group() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let left = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let (folder, limit, usage, inactive) = match controllers {
            "" => ("", "memory.max", "memory.current", "inactive_file"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                let limit = "memory.limit_in_bytes";
                ("/memory", limit, "memory.usage_in_bytes", "total_inactive_file")
            }
            _ => return None,
        };
        let read = |file| fs::read_to_string(format!("/sys/fs/cgroup{folder}{path}/{file}")).ok();
        let number = |file| read(file)?.trim().parse::<u64>().ok(); // `max` is no number: no limit
        let unused = read("memory.stat").and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix(inactive))?;
            line.trim().parse::<u64>().ok()
        });
        let used = number(usage).unwrap_or(0).saturating_sub(unused.unwrap_or(0));
        Some(number(limit)?.saturating_sub(used))
    });
    left.min()
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
