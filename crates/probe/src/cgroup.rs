//! Memory limits of the control groups that this process runs in, of both versions.
//!
//! A group's usage counts all processes in it and below it, so a limit leaves what the whole
//! container leaves, not what this process leaves. Any ancestor may set a limit, too. The folders
//! of groups are found by `/proc/self/mountinfo`: a container often sees only its own group,
//! mounted as the root.

use std::fs;
use std::path::{Path, PathBuf};

/// A control group that accounts for memory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    folder: PathBuf,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Group {
    /// Its limit in bytes, if it has one.
    pub(crate) fn limit(&self) -> Option<u64> {
        let file = match self.version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        // Version 2 says `max` for no limit, version 1 a number beyond all memory.
        self.number(file)
    }

    /// Bytes that its limit leaves: reclaimable page cache does not count as used.
    pub(crate) fn left(&self) -> Option<u64> {
        let (usage, reclaimable): (_, &[&str]) = match self.version {
            Version::One => {
                ("memory.usage_in_bytes", &["total_active_file", "total_inactive_file"])
            }
            Version::Two => {
                ("memory.current", &["active_file", "inactive_file", "slab_reclaimable"])
            }
        };
        let limit = self.limit()?;
        let stat = fs::read_to_string(self.folder.join("memory.stat")).unwrap_or_default();
        let numbers = stat.lines().filter_map(|line| line.split_once(' '));
        let reclaimable = numbers.filter(|(name, _)| reclaimable.contains(name));
        let reclaimable = reclaimable.filter_map(|(_, bytes)| bytes.trim().parse::<u64>().ok());
        let reclaimable = reclaimable.fold(0, u64::saturating_add);
        let used = self.number(usage).unwrap_or(0).saturating_sub(reclaimable);
        Some(limit.saturating_sub(used))
    }

    fn number(&self, file: &str) -> Option<u64> {
        fs::read_to_string(self.folder.join(file)).ok()?.trim().parse().ok()
    }
}

/// The groups of this process, each with its ancestors.
pub(crate) fn groups() -> Vec<Group> {
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    found(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"))
}

/// A mounted hierarchy that accounts for memory.
struct Mount<'a> {
    version: Version,
    /// The group that is mounted.
    root: &'a Path,
    point: PathBuf,
}

fn found(cgroup: &str, mountinfo: &str) -> Vec<Group> {
    let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(mount).collect();
    let mut groups = Vec::new();
    // `5:memory:/user.slice`; version 2 has no names: `0::/user.slice`
    let memberships = cgroup.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    for (controllers, path) in memberships {
        let version = match controllers {
            "" => Version::Two,
            _ if controllers.split(',').any(|name| name == "memory") => Version::One,
            _ => continue,
        };
        for mount in mounts.iter().filter(|mount| mount.version == version) {
            let path = Path::new(path);
            // Outside of the mounted root, as in a container that kept the host's names, only the
            // root itself can be seen.
            let inside = path.strip_prefix(mount.root).or_else(|_| path.strip_prefix("/"));
            let own = mount.point.join(inside.unwrap_or(Path::new("")));
            let above = own.ancestors().take_while(|folder| folder.starts_with(&mount.point));
            let seen = above.filter(|folder| folder.is_dir());
            groups.extend(seen.map(|folder| Group { folder: folder.to_owned(), version }));
        }
    }
    groups
}

/// `36 25 0:31 /docker/4f2 /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory`, as in
/// `proc(5)`.
fn mount(line: &str) -> Option<Mount<'_>> {
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split(' ');
    let (kind, _, options) = (after.next()?, after.next()?, after.next()?);
    let version = match kind {
        "cgroup2" => Version::Two,
        "cgroup" if options.split(',').any(|option| option == "memory") => Version::One,
        _ => return None,
    };
    let mut fields = before.split(' ').skip(3);
    let (root, point) = (Path::new(fields.next()?), fields.next()?);
    Some(Mount { version, root, point: point.replace("\\040", " ").into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes files of a group.
    fn write(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    fn least(groups: &[Group]) -> Option<u64> {
        groups.iter().filter_map(Group::left).min()
    }

    #[test]
    fn version_2_counts_all_processes_and_ancestors() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let stat = "anon 500\nactive_file 100\ninactive_file 200\nslab_reclaimable 50\n";
        let above = [("memory.max", "1000\n"), ("memory.current", "900\n"), ("memory.stat", stat)];
        write(&root.join("pod"), &above);
        let own = [("memory.max", "max\n"), ("memory.current", "10\n"), ("memory.stat", "anon 10")];
        write(&root.join("pod/own"), &own);
        let mounts = format!("30 20 0:27 / {} rw - cgroup2 cgroup2 rw", root.display());
        let groups = found("0::/pod/own\n", &mounts);
        assert_eq!(groups.len(), 3, "{groups:?}");
        assert_eq!(groups[0].limit(), None);
        assert_eq!(least(&groups), Some(1000 - (900 - 350)), "others of the pod count, too");
    }

    #[test]
    fn version_1_counts_the_hierarchy_not_only_its_own_processes() {
        let folder = tempfile::tempdir().unwrap();
        let stat = "rss 5\ntotal_rss 700\ntotal_active_file 40\ntotal_inactive_file 60\n";
        let files = [
            ("memory.limit_in_bytes", "2000"),
            ("memory.usage_in_bytes", "800"),
            ("memory.stat", stat),
        ];
        write(&folder.path().join("job"), &files);
        let mounts = format!(
            "36 25 0:31 / {} rw shared:9 - cgroup cgroup rw,memory\n\
             37 25 0:32 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu",
            folder.path().display()
        );
        let groups = found("9:cpu:/job\n5:cpuset,memory:/job\n", &mounts);
        assert_eq!(least(&groups), Some(2000 - 700));
    }

    #[test]
    fn a_container_that_sees_only_its_own_group_finds_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let files = [("memory.limit_in_bytes", "4096"), ("memory.usage_in_bytes", "96")];
        write(folder.path(), &files);
        let at = |root: &str| {
            format!("36 25 0:31 {root} {} ro - cgroup cgroup rw,memory", folder.path().display())
        };
        let host = "5:memory:/docker/4f2\n";
        assert_eq!(least(&found(host, &at("/docker/4f2"))), Some(4000), "the mounted root is it");
        assert_eq!(least(&found(host, &at("/"))), Some(4000), "names of the host, its own root");
        assert_eq!(least(&found("5:memory:/../other\n", &at("/"))), Some(4000));
        assert_eq!(found("", "nonsense"), []);
    }
}
