//! What a pull keeps on the drive until it has ended: `.pull/` in the folder of a model's files.
//!
//! ```text
//! .pull/pull.json          the files wanted, and the folder that each goes to
//! .pull/lock               held by the process that pulls
//! .pull/NAME.journal       which chunks of NAME.partial are on the drive: see `transfer::journal`
//! .pull/headers/NAME       the header of a part, in a sparse file as long as the part
//! .pull/error              why the last attempt ended
//! ```
//!
//! The bytes themselves are in `NAME.partial`, beside the place that they will have.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::at;
use crate::fileset::{FileSet, RemoteFile};
use crate::library::{Partial, Role, is_file_name, read_bounded, try_lock, write_atomically};
use crate::transfer::journal;
use crate::{Error, Name};

/// The folder, within that of a model's files.
pub(crate) const PULL_FOLDER: &str = ".pull";
const PLAN: &str = "pull.json";
const PLAN_MAX: u64 = 16 << 20;
const ERROR: &str = "error";
const ERROR_MAX: u64 = 64 << 10;
const VERSION: u32 = 1;

/// The files of a pull and where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) set: FileSet,
    /// The folder of each file, absolute.
    pub(crate) folders: Vec<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    version: u32,
    name: String,
    revision: String,
    files: Vec<RemoteFile>,
    folders: Vec<String>,
}

impl Plan {
    /// Reads a plan; any bytes give one that names files of one folder each, or a reason.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let raw: Raw = serde_json::from_slice(bytes)
            .map_err(|error| format!("it is not the plan of a pull ({error})"))?;
        if raw.version != VERSION {
            return Err(format!("it has version {}, which another program wrote", raw.version));
        }
        let name: Name = raw.name.parse().map_err(|error: Error| error.to_string())?;
        if raw.files.len() != raw.folders.len() || raw.files.is_empty() {
            return Err("its numbers of files and folders differ".to_owned());
        }
        if let Some(file) = raw.files.iter().find(|file| !is_file_name(&file.name)) {
            return Err(format!("`{}` is not a valid file name", file.name.escape_debug()));
        }
        let folders: Vec<PathBuf> = raw.folders.into_iter().map(PathBuf::from).collect();
        if folders.iter().any(|folder| !folder.is_absolute()) {
            return Err("its folders are not absolute".to_owned());
        }
        Ok(Self { set: FileSet { name, revision: raw.revision, files: raw.files }, folders })
    }

    /// Whether there is a plan in this folder.
    pub(crate) fn exists(folder: &Path) -> bool {
        folder.join(PULL_FOLDER).join(PLAN).is_file()
    }

    pub(crate) fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(PULL_FOLDER).join(PLAN);
        let bytes = read_bounded(&path, PLAN_MAX)?;
        Self::parse(&bytes).map_err(|reason| Error::Broken { path, reason })
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), Error> {
        let not_utf8 = self.folders.iter().find(|folder| folder.to_str().is_none());
        if let Some(path) = not_utf8 {
            let reason = "models cannot be kept here: the path is not UTF-8".to_owned();
            return Err(Error::Broken { path: path.clone(), reason });
        }
        let raw = Raw {
            version: VERSION,
            name: self.set.name.to_string(),
            revision: self.set.revision.clone(),
            files: self.set.files.clone(),
            folders: self.folders.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
        };
        let json = serde_json::to_vec_pretty(&raw).expect("a plan is plain data");
        write_atomically(&folder.join(PULL_FOLDER).join(PLAN), &json)
    }

    /// Where file `index` will be.
    pub(crate) fn path(&self, index: usize) -> PathBuf {
        self.folders[index].join(&self.set.files[index].name)
    }

    /// Where its bytes are until then.
    pub(crate) fn partial_path(&self, index: usize) -> PathBuf {
        self.folders[index].join(format!("{}.partial", self.set.files[index].name))
    }

    /// Files that this pull, whose own folder is `folder`, has written in other folders.
    pub(crate) fn outside(&self, folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for (index, file) in self.set.files.iter().enumerate() {
            if self.folders[index] == *folder {
                continue;
            }
            found.push(self.partial_path(index));
            // Under its final name only once it has arrived: before, it is another file.
            if self.is_whole(index) && journal_path(folder, file).is_file() {
                found.push(self.path(index));
            }
        }
        found
    }

    /// An error if a folder outside the library has a file that this pull would take for its own,
    /// or write over. `older` are files of pulls that this one replaces.
    pub(crate) fn check_free(&self, folder: &Path, older: &[PathBuf]) -> Result<(), Error> {
        if Self::read(folder).is_ok_and(|known| known.folders == self.folders) {
            return Ok(()); // it has begun, and the files there are its own
        }
        for (index, file) in self.set.files.iter().enumerate() {
            let path = self.path(index);
            let is_own = self.folders[index] == *folder
                || fs::read_link(folder.join(&file.name)).is_ok_and(|target| target == path);
            if is_own {
                continue;
            }
            for path in [path, self.partial_path(index)] {
                if fs::symlink_metadata(&path).is_ok() && !older.contains(&path) {
                    let reason = "there is such a file already: move it, or choose another \
                                  folder. If it is of an earlier version of this model, \
                                  `cachalot rm` or `cachalot prune` removes it";
                    return Err(Error::Broken { path, reason: reason.to_owned() });
                }
            }
        }
        Ok(())
    }

    /// Whether file `index` has arrived and been verified: only then it has its name.
    pub(crate) fn is_whole(&self, index: usize) -> bool {
        fs::metadata(self.path(index)).is_ok_and(|found| found.len() == self.set.files[index].size)
    }
}

/// The journal of a file.
pub(crate) fn journal_path(folder: &Path, file: &RemoteFile) -> PathBuf {
    folder.join(PULL_FOLDER).join(format!("{}.journal", file.name))
}

/// How far the pull into `folder` is. `None` if it never came to a plan.
pub(crate) fn partial(folder: &Path) -> Result<Option<Partial>, Error> {
    if !Plan::exists(folder) {
        return Ok(None);
    }
    let plan = Plan::read(folder)?;
    let lock = folder.join(PULL_FOLDER).join("lock");
    Ok(Some(Partial {
        name: plan.set.name.clone(),
        size: plan.set.size(),
        done: done(folder, &plan),
        running: lock.is_file() && try_lock(&lock)?.is_none(),
        folder: folder.to_owned(),
    }))
}

/// Bytes that are safe on the drive.
pub(crate) fn done(folder: &Path, plan: &Plan) -> u64 {
    let files = plan.set.files.iter().enumerate();
    files
        .map(|(index, file)| match plan.is_whole(index) {
            true => file.size,
            false => journal::done(&journal_path(folder, file), file),
        })
        .fold(0, u64::saturating_add)
}

/// The first part's header, if all headers are there.
pub(crate) fn headers(folder: &Path) -> Option<PathBuf> {
    let plan = Plan::read(folder).ok()?;
    let headers = folder.join(PULL_FOLDER).join("headers");
    let paths: Vec<PathBuf> = plan.set.parts().map(|part| headers.join(&part.name)).collect();
    paths.iter().all(|path| path.is_file()).then(|| paths.into_iter().next())?
}

/// Keeps the header of a part: its bytes, in a sparse file of the part's length, so that whatever
/// describes GGUF files describes this one.
pub(crate) fn keep_header(folder: &Path, file: &RemoteFile, header: &[u8]) -> Result<(), Error> {
    debug_assert_eq!(file.role, Role::Model);
    let headers = folder.join(PULL_FOLDER).join("headers");
    fs::create_dir_all(&headers).map_err(at(&headers))?;
    let path = headers.join(&file.name);
    let written = || {
        let mut out = File::create(&path)?;
        out.write_all(header)?;
        out.set_len(file.size)
    };
    written().map_err(at(&path))
}

/// Says why a pull ended, for processes that wait for it.
pub(crate) fn keep_error(folder: &Path, error: Option<&Error>) {
    let path = folder.join(PULL_FOLDER).join(ERROR);
    let _ = match error {
        Some(error) => fs::write(&path, error.to_string()),
        None => fs::remove_file(&path),
    };
}

/// Why the last attempt ended.
pub(crate) fn last_error(folder: &Path) -> Option<String> {
    let bytes = read_bounded(&folder.join(PULL_FOLDER).join(ERROR), ERROR_MAX).ok()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_plan_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Plan::parse(&bytes);
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let plan = |name: &str, folder: &str| {
            Plan::parse(
                format!(
                    r#"{{"version":1,"name":"a/b","revision":"x","folders":["{folder}"],"files":
                    [{{"name":"{name}","size":1,"sha256":null,"role":"model","url":"x","chunksums":null}}]}}"#
                )
                .as_bytes(),
            )
        };
        assert!(plan("x.gguf", "/a").is_ok());
        for (name, folder) in [("../x", "/a"), ("a/b", "/a"), ("", "/a"), ("x", "a")] {
            assert!(plan(name, folder).is_err(), "{name} {folder}");
        }
    }
}
