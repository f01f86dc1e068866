//! Drives and network interfaces, by sysfs.

use std::fs;
use std::path::{Path, PathBuf};

use cachalot_plan::machine::{Drive, Link};

/// Devices in `/sys/block` that are no drives.
const VIRTUAL: [&str; 5] = ["loop", "ram", "zram", "sr", "fd"];

/// All drives; what they deliver is not known from here.
pub(crate) fn drives() -> Vec<Drive> {
    let devices = names("/sys/block");
    let real = devices.into_iter().filter(|name| {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        !VIRTUAL.contains(&stem) && !name.starts_with("dm-")
    });
    real.map(|name| Drive { name: model_of(&name), ..Drive::default() }).collect()
}

/// `nvme0n1 (Samsung SSD 990 PRO 2TB)`.
fn model_of(device: &str) -> String {
    let model = fs::read_to_string(format!("/sys/block/{device}/device/model")).unwrap_or_default();
    match model.trim() {
        "" => device.to_owned(),
        model => format!("{device} ({model})"),
    }
}

/// The drive that a file or folder is on.
#[cfg(target_os = "linux")]
pub fn device_of(path: &Path) -> Option<String> {
    use std::os::linux::fs::MetadataExt;
    let device = fs::metadata(path).ok()?.st_dev();
    // As the kernel packs them: glibc's gnu_dev_major and gnu_dev_minor.
    let major = (device >> 8) & 0xfff | (device >> 32) & !0xfff;
    let minor = device & 0xff | (device >> 12) & !0xff;
    let folder = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    // A partition is in the folder of its drive.
    let is_partition = folder.join("partition").exists();
    let drive: PathBuf = if is_partition { folder.parent()?.to_owned() } else { folder };
    Some(model_of(drive.file_name()?.to_str()?))
}

/// Elsewhere than on Linux it is not known.
#[cfg(not(target_os = "linux"))]
pub fn device_of(_path: &Path) -> Option<String> {
    None
}

/// Interfaces whose speed is known.
pub(crate) fn links() -> Vec<Link> {
    let names = names("/sys/class/net").into_iter();
    let links = names.filter_map(|name| {
        let speed = fs::read_to_string(format!("/sys/class/net/{name}/speed")).ok()?;
        let megabits: u64 = speed.trim().parse().ok()?; // -1 without a link
        Some(Link { name, bits_per_second: megabits * 1_000_000, latency_seconds: None })
    });
    links.collect()
}

fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}
