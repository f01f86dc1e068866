//! Where the files of a model go: the library, folders that are named, or memory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::bail;
use cachalot_plan::{Constraints, MemoryBudget, Stream, fit, units};

use super::preview::Preview;
use crate::failure::usage;
use crate::hardware::{self, DriveProbe, Measure};
use crate::settings::Environment;

/// A file system in memory that every Linux has.
const SHARED_MEMORY: &str = "/dev/shm";
/// Below it, or below another one.
const FOLDER: &str = "cachalot";

/// The folders; none stands for the library.
///
/// # Errors
/// For `ram` beside a folder, or if model and working memory do not fit into memory together.
pub(super) fn folders(
    to: &[PathBuf],
    preview: &Preview,
    environment: &Environment,
) -> anyhow::Result<Vec<PathBuf>> {
    let is_ram = |path: &PathBuf| path == Path::new("ram");
    if !to.iter().any(is_ram) {
        return Ok(to.to_vec());
    }
    if to.len() > 1 {
        return Err(usage("--to ram takes the whole model: it cannot be combined with a folder"));
    }
    check_memory(preview, environment)?;
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let folder = memory_file_system(&mounts).unwrap_or_else(|| PathBuf::from(SHARED_MEMORY));
    if !folder.is_dir() {
        bail!("{} is not there: --to ram needs a tmpfs; mount one, and name it", folder.display());
    }
    Ok(vec![folder.join(FOLDER)])
}

/// A mounted tmpfs that uses huge pages, which is a few percent faster; else the usual one.
fn memory_file_system(mounts: &str) -> Option<PathBuf> {
    let tmpfs = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (path, kind, options) = (words.nth(1)?, words.next()?, words.next()?);
        let writable = options.split(',').any(|option| option == "rw");
        (kind == "tmpfs" && writable && !path.contains('\\')).then_some((path, options))
    });
    let huge = |options: &str| {
        options.split(',').any(|option| option == "huge=always" || option == "huge=within_size")
    };
    let mut tmpfs = tmpfs.filter(|(path, options)| huge(options) || *path == SHARED_MEMORY);
    let first = tmpfs.next()?;
    let best = std::iter::once(first).chain(tmpfs).max_by_key(|(_, options)| huge(options))?;
    Some(PathBuf::from(best.0))
}

/// The model stays in memory, and KV cache and buffers need theirs beside it.
fn check_memory(preview: &Preview, environment: &Environment) -> anyhow::Result<()> {
    let Some(facts) = &preview.facts else {
        bail!("--to ram is for models that cachalot runs: {}", preview.why_not());
    };
    let options = environment.options(None);
    let machine =
        hardware::this_machine(environment, &options, DriveProbe::Nowhere, Measure::Never);
    let budget = MemoryBudget::of(&machine.without_gpus(), None);
    let constraints = Constraints { stream: Stream::Never, ..Constraints::default() };
    if let Err(error) = fit::fit(facts, budget, constraints) {
        bail!(
            "--to ram: the model ({}) and its working memory do not fit into memory together: {error}",
            units::bytes(facts.size)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_preferred() {
        let found = |mounts| memory_file_system(mounts).map(|path| path.display().to_string());
        let plain = "tmpfs /run tmpfs rw,nosuid 0 0\ntmpfs /dev/shm tmpfs rw,nosuid 0 0\n";
        assert_eq!(found(plain).as_deref(), Some("/dev/shm"));
        let huge = format!("{plain}tmpfs /mnt/huge tmpfs rw,huge=always 0 0\n");
        assert_eq!(found(&huge).as_deref(), Some("/mnt/huge"));
        assert_eq!(found("tmpfs /mnt/x tmpfs ro,huge=always 0 0"), None);
        assert_eq!(found("garbage"), None);
    }
}
