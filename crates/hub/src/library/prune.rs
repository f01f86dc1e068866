//! Removing what no name needs: folders of files without manifest, links, temporary files.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Library, Record, entries_below, files_below, folders_below, try_lock};
use crate::Error;
use crate::error::at;
use crate::pulling::PULL_FOLDER;

/// What `prune` removed, or would remove.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// Files and folders.
    pub paths: Vec<PathBuf>,
    /// Their bytes.
    pub bytes: u64,
}

impl Library {
    /// Removes folders of files that no manifest names, links that lead nowhere, and temporary
    /// files; with `partials`, pulls that have not ended and that no process is at, as well.
    /// With `dry_run` it only says what would go.
    ///
    /// # Errors
    /// [`Error::Broken`] for a manifest that cannot be read: what it names must not be removed.
    pub fn prune(&self, partials: bool, dry_run: bool) -> Result<Pruned, Error> {
        let _lock = self.lock()?;
        let needed = self.needed()?;
        let mut pruned = Pruned::default();
        for folder in folders_below(&self.root.join("files"), 4) {
            if needed.iter().any(|path| path.starts_with(&folder)) {
                self.leftover_pull(&folder, dry_run, &mut pruned)?;
                continue;
            }
            let pull = folder.join(PULL_FOLDER);
            if pull.is_dir() && (!partials || try_lock(&pull.join("lock"))?.is_none()) {
                continue;
            }
            pruned.bytes += bytes_of(&folder);
            if !dry_run {
                remove_folder(&self.root, &folder)?;
            }
            pruned.paths.push(folder);
        }
        let temporary = |path: &PathBuf| path.extension().is_some_and(|e| e == "tmp");
        let temporary = files_below(&self.manifests(), 4).into_iter().filter(temporary);
        for path in temporary.chain(entries_below(&self.root.join("views"), 1)) {
            pruned.bytes += bytes_of(&path);
            if !dry_run {
                remove(&path)?;
            }
            pruned.paths.push(path);
        }
        Ok(pruned)
    }

    /// What a pull left in the folder of a whole model, having ended between its last two steps.
    fn leftover_pull(
        &self,
        folder: &Path,
        dry_run: bool,
        pruned: &mut Pruned,
    ) -> Result<(), Error> {
        let pull = folder.join(PULL_FOLDER);
        if !pull.is_dir() || try_lock(&pull.join("lock"))?.is_none() {
            return Ok(());
        }
        pruned.bytes += bytes_of(&pull);
        if !dry_run {
            remove(&pull)?;
        }
        pruned.paths.push(pull);
        Ok(())
    }

    /// All files that a manifest names.
    fn needed(&self) -> Result<HashSet<PathBuf>, Error> {
        let mut needed = HashSet::new();
        for path in files_below(&self.manifests(), 4) {
            if path.extension().is_some_and(|extension| extension == "json") {
                let record = Record::read(&path)?;
                needed.extend(record.files.iter().map(|file| self.root.join(&file.path)));
            }
        }
        Ok(needed)
    }

    /// Removes the files of a record that is gone, unless another one has them.
    pub(super) fn remove_unused(&self, record: &Record) -> Result<u64, Error> {
        let needed = self.needed()?;
        let mut freed = 0;
        let files = self.root.join("files");
        let own = record.files.iter().map(|file| self.root.join(&file.path));
        let folders: HashSet<PathBuf> = own
            .filter(|path| path.starts_with(&files))
            .filter_map(|path| path.parent().map(Path::to_owned))
            .collect();
        for folder in folders {
            if !needed.iter().any(|path| path.starts_with(&folder)) {
                freed += remove_folder(&self.root, &folder)?;
            }
        }
        Ok(freed)
    }
}

/// Removes a folder of a model's files: links with what they lead to, since that was pulled too.
pub(super) fn remove_folder(root: &Path, folder: &Path) -> Result<u64, Error> {
    let bytes = bytes_of(folder);
    for entry in fs::read_dir(folder).map_err(at(folder))?.flatten() {
        let path = entry.path();
        if path.is_symlink()
            && let Ok(target) = fs::read_link(&path)
        {
            match fs::remove_file(&target) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(at(&target)(error));
                }
                _ => {}
            }
        }
    }
    fs::remove_dir_all(folder).map_err(at(folder))?;
    remove_empty_parents(folder, &root.join("files"));
    Ok(bytes)
}

/// Removes folders above `path` that are empty, up to `top`, which stays.
pub(super) fn remove_empty_parents(path: &Path, top: &Path) {
    for folder in path.ancestors().skip(1).take_while(|folder| folder.starts_with(top)) {
        if folder == top || fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(path).map_err(at(path))?;
    if metadata.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
        .map_err(at(path))
}

/// Bytes that a file or folder takes on its drive, links with their targets.
fn bytes_of(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    if let Ok(entries) = fs::read_dir(path) {
        return entries.flatten().map(|entry| bytes_of(&entry.path())).sum();
    }
    fs::metadata(path).map_or(0, |metadata| metadata.blocks() * 512)
}
