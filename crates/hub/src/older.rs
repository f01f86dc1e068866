//! What a pull of an earlier revision left when it did not end: taken over where the content is the
//! same, and removed where it is not.
//!
//! A revision changes with every commit to a repository, though most files stay the same: what has
//! arrived of those is renamed, not fetched again. Bytes of different contents never mix, since
//! only files with equal hashes are taken over.

use std::fs;
use std::path::{Path, PathBuf};

use crate::library::{Library, Lock, remove_folder, try_lock};
use crate::pulling::{PULL_FOLDER, Plan, journal_path};
use crate::{Error, Name};

/// A pull that has not ended, of another revision, and that no process is at.
#[derive(Debug)]
pub(crate) struct Older {
    folder: PathBuf,
    plan: Plan,
    _lock: Lock,
}

impl Older {
    /// Those of this name, except the one in `folder`.
    ///
    /// # Errors
    /// [`Error::Broken`] for a manifest that cannot be read: what it needs is not known.
    pub(crate) fn find(library: &Library, name: &Name, folder: &Path) -> Result<Vec<Self>, Error> {
        let mut found = Vec::new();
        for other in library.partials_of(name) {
            if other == *folder {
                continue;
            }
            let Ok(plan) = Plan::read(&other) else { continue };
            if plan.set.name != *name {
                continue;
            }
            if let Some(lock) = try_lock(&other.join(PULL_FOLDER).join("lock"))? {
                found.push(Self { folder: other, plan, _lock: lock });
            }
        }
        if !found.is_empty() {
            let needed = library.needed()?;
            found.retain(|older| !needed.has_below(&older.folder)); // it did end
        }
        Ok(found)
    }

    /// Its files in folders outside the library.
    pub(crate) fn outside(&self) -> Vec<PathBuf> {
        self.plan.outside(&self.folder)
    }

    /// Renames files, and parts of files, whose content `plan` wants, too, and returns their new
    /// paths. What cannot be renamed, such as to another drive, is fetched.
    fn give(&self, plan: &Plan, folder: &Path) -> Vec<PathBuf> {
        let mut given = Vec::new();
        for (index, wanted) in plan.set.files.iter().enumerate() {
            let same = self.plan.set.files.iter().position(|file| {
                wanted.sha256.is_some() && (file.sha256, file.size) == (wanted.sha256, wanted.size)
            });
            let Some(same) = same else { continue };
            let journal = journal_path(&self.folder, &self.plan.set.files[same]);
            let is_own = self.plan.folders[same] == self.folder || journal.is_file();
            let is_whole = is_own && self.plan.is_whole(same);
            let path = |of: &Plan, index| match is_whole {
                true => of.path(index),
                false => of.partial_path(index),
            };
            let (from, to) = (path(&self.plan, same), path(plan, index));
            if from != to && (plan.is_whole(index) || plan.partial_path(index).exists()) {
                continue; // this pull has begun with it already
            }
            // The bytes first: a journal without them is not believed.
            let renamed = fs::create_dir_all(&plan.folders[index])
                .and_then(|()| fs::rename(&from, &to))
                .map(|()| fs::rename(&journal, journal_path(folder, wanted)));
            if renamed.is_ok() {
                given.push(to);
            }
        }
        given
    }

    /// Lets `plan`, whose folder is `folder`, take what it wants of these, and removes the rest.
    ///
    /// # Errors
    /// If files cannot be removed: the pull must not take them for its own.
    pub(crate) fn replace(
        these: Vec<Self>,
        library: &Library,
        plan: &Plan,
        folder: &Path,
    ) -> Result<(), Error> {
        let _lock = library.lock()?;
        let mut needed = library.needed()?;
        for older in these {
            older.give(plan, folder).into_iter().for_each(|path| needed.add(path));
            remove_folder(library.root(), &older.folder, &needed)?;
        }
        Ok(())
    }
}
