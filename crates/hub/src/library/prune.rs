//! Removing what no name needs: folders of files without manifest, links, temporary files.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::remove::{bytes_of, outside, remove_folder};
use super::{Library, entries_below, files_below, folders_below, try_lock};
use crate::Error;
use crate::error::at;
use crate::pulling::{PULL_FOLDER, Plan};

/// What `prune` removed, or would remove.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// Files and folders.
    pub paths: Vec<PathBuf>,
    /// Their bytes.
    pub bytes: u64,
}

impl Library {
    /// Removes folders of files that no manifest names, links for models that are not here any
    /// more, and temporary files; with `partials`, pulls that have not ended and that no process is
    /// at, as well. With `dry_run` it only says what would go.
    ///
    /// # Errors
    /// [`Error::Broken`] for a manifest that cannot be read: what it names must not be removed.
    pub fn prune(&self, partials: bool, dry_run: bool) -> Result<Pruned, Error> {
        let _lock = self.lock()?;
        let needed = self.needed()?;
        let mut pruned = Pruned::default();
        for folder in folders_below(&self.root.join("files"), 4) {
            if needed.has_below(&folder) {
                self.leftover_pull(&folder, dry_run, &mut pruned)?;
                continue;
            }
            let pull = folder.join(PULL_FOLDER);
            // Held until it is gone: no pull begins in it meanwhile.
            let held = match pull.is_dir() {
                true => try_lock(&pull.join("lock"))?,
                false => None,
            };
            if pull.is_dir() && (held.is_none() || (!partials && Plan::exists(&folder))) {
                continue;
            }
            if dry_run {
                let outside = outside(&folder).into_iter().filter(|path| !needed.has(path));
                let paths: Vec<PathBuf> = outside.chain([folder.clone()]).collect();
                pruned.bytes += bytes_of(paths.iter().map(PathBuf::as_path));
            } else {
                pruned.bytes += remove_folder(&self.root, &folder, &needed)?;
            }
            pruned.paths.push(folder);
        }
        let temporary = |path: &PathBuf| path.extension().is_some_and(|e| e == "tmp");
        let temporary = files_below(&self.manifests(), 4).into_iter().filter(temporary);
        for path in temporary.chain(self.stale_views()) {
            pruned.bytes += bytes_of([&*path]);
            if !dry_run {
                remove(&path)?;
            }
            pruned.paths.push(path);
        }
        Ok(pruned)
    }

    /// Links for models that are not here any more.
    fn stale_views(&self) -> Vec<PathBuf> {
        let views = entries_below(&self.root.join("views"), 1);
        if views.is_empty() {
            return views;
        }
        let models = self.list().models;
        let digests: HashSet<String> = models.iter().map(|m| m.digest.to_string()).collect();
        let is_stale = |view: &PathBuf| {
            view.file_name().and_then(|name| name.to_str()).is_none_or(|n| !digests.contains(n))
        };
        views.into_iter().filter(is_stale).collect()
    }

    /// What a pull left in the folder of a whole model, having ended between its last two steps.
    fn leftover_pull(
        &self,
        folder: &Path,
        dry_run: bool,
        pruned: &mut Pruned,
    ) -> Result<(), Error> {
        let pull = folder.join(PULL_FOLDER);
        if !pull.is_dir() {
            return Ok(());
        }
        let Some(_held) = try_lock(&pull.join("lock"))? else { return Ok(()) };
        pruned.bytes += bytes_of([&*pull]);
        if !dry_run {
            remove(&pull)?;
        }
        pruned.paths.push(pull);
        Ok(())
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(path).map_err(at(path))?;
    if metadata.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
        .map_err(at(path))
}
