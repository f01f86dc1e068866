//! Removing models, and which files go with them: never one that another model needs, or that
//! belongs to another program.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Library, Lock, Place, Record, files_below, folders_below, try_lock};
use crate::error::at;
use crate::pulling::{PULL_FOLDER, Plan};
use crate::{Error, Name};

/// Files that must stay.
#[derive(Debug, Default)]
pub(crate) struct Needed {
    /// As manifests name them, and where links lead in the end.
    paths: HashSet<PathBuf>,
    /// Folders of other programs.
    foreign: Vec<PathBuf>,
}

impl Needed {
    /// Keeps this file.
    pub(crate) fn add(&mut self, path: PathBuf) {
        self.paths.extend(fs::canonicalize(&path));
        self.paths.insert(path);
    }

    /// Whether a file in this folder must stay.
    pub(crate) fn has_below(&self, folder: &Path) -> bool {
        let real = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        self.paths.iter().any(|path| path.starts_with(folder) || path.starts_with(&real))
    }

    pub(super) fn has(&self, path: &Path) -> bool {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        self.paths.contains(path)
            || self.paths.contains(&real)
            || self.foreign.iter().any(|folder| real.starts_with(folder))
    }
}

impl Library {
    /// Removes a name, and the files that no other name needs. Returns the bytes that this freed.
    /// What is left of a pull that did not end is removed as well.
    ///
    /// # Errors
    /// [`Error::NotHere`]; [`Error::Foreign`] for models of other programs; [`Error::Locked`] for a
    /// model that is being pulled.
    pub fn remove(&self, name: &Name) -> Result<u64, Error> {
        Ok(self.remove_all(std::slice::from_ref(name))?[0].1)
    }

    /// Removes several names, as [`Library::remove`] does; none of them if one cannot be removed.
    /// Returns each as the library has it, and the bytes that it freed.
    ///
    /// # Errors
    /// Those of [`Library::remove`].
    pub fn remove_all(&self, names: &[Name]) -> Result<Vec<(Name, u64)>, Error> {
        let _lock = self.lock()?;
        let mut going: Vec<Going> = Vec::new();
        for name in names {
            let known = self.known(name)?;
            if going.iter().all(|other| other.name != known) {
                going.push(self.going(known)?);
            }
        }
        let removed = |going: &Going| Ok((going.name.clone(), self.remove_locked(going)?));
        going.iter().map(removed).collect()
    }

    /// The name that the library has for what `name` means: its own spelling, with the quantization
    /// if there is but one.
    fn known(&self, name: &Name) -> Result<Name, Error> {
        if self.entry(name).is_some() || !self.partials_of(name).is_empty() {
            return Ok(name.clone());
        }
        let Name::HuggingFace(wanted) = name else { return Ok(name.clone()) };
        if wanted.quant.is_some() {
            return Ok(name.clone());
        }
        let listing = self.list();
        let own = listing.models.into_iter().filter(|model| model.place.is_own());
        let partials = listing.partials.into_iter().map(|partial| partial.name);
        let of_repository = |found: &Name| {
            matches!(found, Name::HuggingFace(found)
                if found.owner.eq_ignore_ascii_case(&wanted.owner)
                    && found.repository.eq_ignore_ascii_case(&wanted.repository)
                    && found.revision == wanted.revision)
        };
        let found = own.map(|model| model.name).chain(partials).filter(of_repository);
        let found: HashSet<Name> = found.collect();
        let mut found: Vec<Name> = found.into_iter().collect();
        if found.len() > 1 {
            let choices = found.iter().filter_map(|name| name.quant().map(str::to_owned));
            let mut choices: Vec<String> = choices.collect();
            choices.sort();
            return Err(Error::Choose { name: name.to_string(), choices });
        }
        Ok(found.pop().unwrap_or_else(|| name.clone()))
    }

    /// What goes with a name; an error if it cannot be removed.
    fn going(&self, name: Name) -> Result<Going, Error> {
        let (manifest, partials) = (self.entry(&name), self.partials_of(&name));
        if partials.is_empty() && manifest.is_none() {
            return Err(self.not_removable(&name)?);
        }
        let lock = |folder: PathBuf| {
            let lock = try_lock(&folder.join(PULL_FOLDER).join("lock"))?;
            let lock = lock.ok_or_else(|| Error::Locked {
                what: folder.display().to_string(),
                hint: "a pull is under way; stop it first".to_owned(),
            })?;
            Ok((folder, lock))
        };
        let partials = partials.into_iter().map(lock).collect::<Result<_, Error>>()?;
        // Under another spelling of the name, perhaps.
        let record = manifest.as_deref().and_then(|manifest| Record::read(manifest).ok());
        let own = record.as_ref().and_then(|record| record.name.parse().ok());
        Ok(Going { name: own.unwrap_or(name), manifest, record, partials })
    }

    fn remove_locked(&self, going: &Going) -> Result<u64, Error> {
        if let Some(manifest) = &going.manifest {
            fs::remove_file(manifest).map_err(at(manifest))?;
            remove_empty_parents(manifest, &self.manifests());
        }
        let needed = match self.needed() {
            Ok(needed) => needed,
            // Another manifest cannot be read: what it needs is not known, so all files stay.
            Err(_) if going.partials.is_empty() => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut folders: Vec<&Path> = going.partials.iter().map(|(path, _)| &**path).collect();
        let paths = going.record.iter().flat_map(|record| &record.files);
        let paths: Vec<PathBuf> = paths.map(|file| self.root.join(&file.path)).collect();
        let files = self.root.join("files");
        for folder in paths.iter().filter_map(|path| path.parent()) {
            if folder.starts_with(&files) && !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        let mut freed = 0;
        for folder in folders {
            if !needed.has_below(folder) && folder.is_dir() {
                freed += remove_folder(&self.root, folder, &needed)?;
            }
        }
        Ok(freed)
    }

    /// Why a name without manifest cannot be removed.
    fn not_removable(&self, name: &Name) -> Result<Error, Error> {
        let found = self.find(name)?;
        let owner = found.as_ref().and_then(|model| Some((model, owner(model.place)?)));
        let Some((model, owner)) = owner else {
            return Ok(Error::NotHere { name: name.to_string() });
        };
        let name = model.name.to_string();
        let hint = match model.place {
            Place::Ollama => format!("`ollama rm {name}` removes it"),
            _ => "`hf cache rm` removes it".to_owned(),
        };
        Ok(Error::Foreign { name, owner, hint })
    }

    /// Folders of pulls of this name that have not ended.
    pub(crate) fn partials_of(&self, name: &Name) -> Vec<PathBuf> {
        let key = name.key();
        let folders = folders_below(&self.root.join("files"), 4).into_iter();
        folders
            .filter(|folder| folder.join(PULL_FOLDER).is_dir())
            .filter(|folder| {
                let parts = folder.iter().rev().take(4).map(|part| part.to_string_lossy());
                let mut parts: Vec<_> = parts.collect();
                let tag = parts[0].rsplit_once('@').map_or(&*parts[0], |(tag, _)| tag).to_owned();
                parts[0] = tag.into();
                parts.iter().rev().zip(&key).all(|(found, key)| found.eq_ignore_ascii_case(key))
            })
            .collect()
    }

    /// All files that a manifest names. Other programs' stores count as needed.
    ///
    /// # Errors
    /// [`Error::Broken`] for a manifest that cannot be read.
    pub(crate) fn needed(&self) -> Result<Needed, Error> {
        let mut needed = Needed::default();
        for path in files_below(&self.manifests(), 4) {
            if path.extension().is_some_and(|extension| extension == "json") {
                let record = Record::read(&path)?;
                record.files.iter().for_each(|file| needed.add(self.root.join(&file.path)));
            }
        }
        let stores = self.ollama.iter().chain(&self.hugging_face);
        needed.foreign = stores.filter_map(|store| fs::canonicalize(store).ok()).collect();
        Ok(needed)
    }
}

/// What is about to be removed.
struct Going {
    name: Name,
    manifest: Option<PathBuf>,
    record: Option<Record>,
    /// Locked, so that no pull continues in them meanwhile.
    partials: Vec<(PathBuf, Lock)>,
}

/// The other program that a model belongs to.
pub(super) fn owner(place: Place) -> Option<&'static str> {
    match place {
        Place::Ollama => Some("Ollama"),
        Place::HuggingFace => Some("Hugging Face's cache"),
        Place::Library | Place::Imported => None,
    }
}

/// Removes a folder of a model's files, with those that it has in other folders, except what is
/// needed. Returns the bytes that this freed.
pub(crate) fn remove_folder(root: &Path, folder: &Path, needed: &Needed) -> Result<u64, Error> {
    let outside: Vec<PathBuf> =
        outside(folder).into_iter().filter(|path| !needed.has(path)).collect();
    let bytes = bytes_of(outside.iter().map(PathBuf::as_path).chain([folder]));
    // Those outside go first: after a crash, the folder still says which they are.
    for path in &outside {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(path)(error)),
            _ => {}
        }
    }
    fs::remove_dir_all(folder).map_err(at(folder))?;
    remove_empty_parents(folder, &root.join("files"));
    Ok(bytes)
}

/// Files in other folders that belong to this one: what its links lead to under the same name, as
/// a pull leaves them, and what a pull that has not ended has written.
pub(super) fn outside(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let link = entry.path();
        if let Ok(target) = fs::read_link(&link)
            && target.is_absolute()
            && target.file_name() == link.file_name()
        {
            found.push(target);
        }
    }
    if let Ok(plan) = Plan::read(folder) {
        found.extend(plan.outside(folder));
    }
    found.sort();
    found.dedup();
    found.retain(|path| fs::symlink_metadata(path).is_ok_and(|found| found.is_file()));
    found
}

/// Removes folders above `path` that are empty, up to `top`, which stays.
pub(super) fn remove_empty_parents(path: &Path, top: &Path) {
    for folder in path.ancestors().skip(1).take_while(|folder| folder.starts_with(top)) {
        if folder == top || fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

/// Bytes that the drive gets back once these are removed. A file that has a name elsewhere stays.
pub(super) fn bytes_of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> u64 {
    let mut files: HashMap<(u64, u64), (u64, u64)> = HashMap::new();
    paths.into_iter().for_each(|path| count(path, &mut files));
    files.values().filter(|(names, _)| *names == 0).map(|(_, bytes)| bytes).sum()
}

/// Notes by file how many names it has elsewhere, and its bytes.
fn count(path: &Path, files: &mut HashMap<(u64, u64), (u64, u64)>) {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    if metadata.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        return entries.for_each(|entry| count(&entry.path(), files));
    }
    let file = files.entry((metadata.dev(), metadata.ino()));
    let (names, _) = file.or_insert((metadata.nlink(), metadata.blocks() * 512));
    *names = names.saturating_sub(1);
}
