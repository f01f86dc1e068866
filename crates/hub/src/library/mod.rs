//! The models of this machine: those pulled or imported here, and those that Ollama and Hugging
//! Face's tools have downloaded, which are used where they are and never altered.
//!
//! ```text
//! manifests/HOST/OWNER/MODEL/TAG.json      a model: its files with sizes, times and hashes
//! files/HOST/OWNER/MODEL/TAG@REVISION/     its GGUF files under their usual names, for anyone;
//!                                          links, where they are in other folders
//! files/.../.pull/                         what a pull under way needs: see `transfer`
//! views/                                   links that give Ollama's blobs the names of GGUF files
//! lock                                     held while manifests or folders of files change
//! ```
//!
//! A manifest is written after its files, and renamed into place: a model that is listed is whole.
//! Folders and manifests may be moved or deleted by hand; `verify` and `prune` put that right.

mod foreign;
mod lock;
mod prune;
mod record;
mod remove;
mod verify;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cachalot_gguf::split::{PartName, part_paths};

pub use prune::Pruned;
pub use record::Role;
pub use verify::{Verdict, VerifyProgress};

pub(crate) use foreign::{part_name, stem};
pub(crate) use lock::{Lock, try_lock};
pub(crate) use record::{Record, is_file_name, modified_ns, read_bounded, write_atomically};
pub(crate) use remove::remove_folder;

use crate::error::at;
use crate::pulling::{self, PULL_FOLDER};
use crate::{Error, Name, Settings, Sha256};

/// Whose a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The library's own: pulled, or another name for such a model.
    Library,
    /// A file of the user's, entered by `import`.
    Imported,
    /// In Ollama's store.
    Ollama,
    /// In Hugging Face's cache.
    HuggingFace,
}

impl Place {
    /// Whether the library has an entry for it.
    fn is_own(self) -> bool {
        matches!(self, Self::Library | Self::Imported)
    }
}

/// A whole model.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its name.
    pub name: Name,
    /// Whose it is.
    pub place: Place,
    /// Its files: the parts of the model in order, then what came with them.
    pub files: Vec<ModelFile>,
    /// When it was pulled.
    pub modified: SystemTime,
    /// A hash that changes with its files.
    pub digest: Sha256,
}

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it is called, if that is not the last part of the path.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// Its hash as the service states it, or as it was when it arrived.
    pub sha256: Option<Sha256>,
    /// What it is for.
    pub role: Role,
    /// When it was last changed, in nanoseconds since 1970, if that was recorded.
    pub(crate) modified_ns: Option<u64>,
}

/// A pull that has not ended yet.
#[derive(Clone, Debug)]
pub struct Partial {
    /// The model's name.
    pub name: Name,
    /// Bytes of all its files.
    pub size: u64,
    /// Bytes that have arrived and are safe.
    pub done: u64,
    /// Whether a process is at it.
    pub running: bool,
    /// The folder of its files.
    pub folder: PathBuf,
}

/// What `list` shows.
#[derive(Debug, Default)]
pub struct Listing {
    /// Whole models, the latest first.
    pub models: Vec<Model>,
    /// Pulls that have not ended.
    pub partials: Vec<Partial>,
    /// What could not be read, and why.
    pub warnings: Vec<String>,
}

impl Model {
    /// The parts of the model, in order.
    pub fn parts(&self) -> impl Iterator<Item = &ModelFile> {
        self.files.iter().filter(|file| file.role == Role::Model)
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// What came with it: Ollama's `params`, `template` and so on, by role.
    pub fn companion(&self, role: Role) -> Option<&ModelFile> {
        self.files.iter().find(|file| file.role == role)
    }

    /// The quantization, as far as names tell.
    pub fn quant(&self) -> Option<String> {
        let first = self.parts().next()?;
        crate::quant::label(&first.name).or_else(|| crate::quant::label(&self.name.to_string()))
    }
}

/// The models of this machine.
#[derive(Clone, Debug)]
pub struct Library {
    root: PathBuf,
    ollama: Option<PathBuf>,
    hugging_face: Option<PathBuf>,
}

impl Library {
    /// The library that `settings` name. Nothing is read or written before it is needed.
    pub fn new(settings: &Settings) -> Self {
        Self {
            root: settings.library.clone(),
            ollama: settings.ollama.clone(),
            hugging_face: settings.hugging_face.clone(),
        }
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All models, and pulls under way. What cannot be read is a warning, not an error.
    pub fn list(&self) -> Listing {
        let mut listing = Listing::default();
        self.own(&mut listing);
        if let Some(store) = &self.ollama {
            foreign::ollama(store, &mut listing);
        }
        if let Some(cache) = &self.hugging_face {
            foreign::hugging_face(cache, &mut listing);
        }
        listing.models.sort_by(|a, b| b.modified.cmp(&a.modified).then(a.name.cmp(&b.name)));
        self.partials(&mut listing);
        listing
    }

    fn own(&self, listing: &mut Listing) {
        match fs::read_dir(&self.root) {
            Err(error) if fs::symlink_metadata(&self.root).is_ok() => {
                listing.warnings.push(at(&self.root)(error).to_string());
            }
            _ => {} // one that does not exist is made when it is needed
        }
        for path in files_below(&self.manifests(), 4) {
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match self.read(&path) {
                Ok(model) => listing.models.push(model),
                Err(_) if !path.exists() => {} // another process has just removed it
                Err(error) => listing.warnings.push(error.to_string()),
            }
        }
    }

    /// The model of a manifest, which must be where its name says.
    fn read(&self, path: &Path) -> Result<Model, Error> {
        let model = Record::read(path)?.model(&self.root)?;
        let expected = self.manifest(&model.name);
        if !same_but_for_case(path, &expected) {
            let (name, expected) = (&model.name, expected.display());
            let reason = format!("it is the manifest of {name}: move it to {expected}");
            return Err(Error::Broken { path: path.to_owned(), reason });
        }
        Ok(model)
    }

    /// The manifest of a name, whose letters may have another case.
    fn entry(&self, name: &Name) -> Option<PathBuf> {
        let manifest = self.manifest(name);
        if manifest.is_file() {
            return Some(manifest);
        }
        let manifests = files_below(&self.manifests(), 4);
        manifests.into_iter().find(|found| same_but_for_case(found, &manifest))
    }

    fn partials(&self, listing: &mut Listing) {
        for folder in folders_below(&self.root.join("files"), 4) {
            if !folder.join(PULL_FOLDER).is_dir() {
                continue;
            }
            match pulling::partial(&folder) {
                Ok(Some(partial)) => listing.partials.push(partial),
                Ok(None) => {}
                Err(error) => listing.warnings.push(error.to_string()),
            }
        }
    }

    /// The model of this name, if it is here and whole: the library's own, else Ollama's, else
    /// Hugging Face's. A repository without quantization is found if one of it is here.
    ///
    /// # Errors
    /// [`Error::Choose`] if several quantizations are here; [`Error::Io`] or [`Error::Answer`] for
    /// a manifest that cannot be read.
    pub fn find(&self, name: &Name) -> Result<Option<Model>, Error> {
        if let Some(manifest) = self.entry(name) {
            return self.read(&manifest).map(Some);
        }
        let key = name.key().map(|part| part.to_lowercase());
        let any_quant = matches!(name, Name::HuggingFace(name) if name.quant.is_none());
        let matches = |model: &Model| {
            let found = model.name.key().map(|part| part.to_lowercase());
            if any_quant { found[..3] == key[..3] } else { found == key }
        };
        let mut found: Vec<Model> = self.list().models.into_iter().filter(matches).collect();
        found.sort_by_key(|model| match model.place {
            Place::Library | Place::Imported => 0,
            Place::Ollama => 1,
            Place::HuggingFace => 2,
        });
        if found.len() > 1 && any_quant {
            let mut choices: Vec<_> =
                found.iter().filter_map(|model| model.name.quant().map(str::to_owned)).collect();
            choices.sort();
            choices.dedup();
            if choices.len() > 1 {
                return Err(Error::Choose { name: name.to_string(), choices });
            }
        }
        Ok((!found.is_empty()).then(|| found.swap_remove(0)))
    }

    /// Where the headers of a model are whose pull is under way: the path of its first part, a file
    /// of the right length that has a header and nothing else.
    pub fn headers(&self, name: &Name) -> Option<PathBuf> {
        let key = name.key();
        let folder = self.files_of(&key[..3]);
        let any_quant = matches!(name, Name::HuggingFace(name) if name.quant.is_none());
        let entries = fs::read_dir(folder).ok()?.flatten();
        let tags = entries.filter(|entry| {
            let tag = entry.file_name().to_string_lossy().into_owned();
            let tag = tag.rsplit_once('@').map_or(&*tag, |(tag, _)| tag);
            any_quant || tag.eq_ignore_ascii_case(&key[3])
        });
        tags.into_iter().find_map(|entry| pulling::headers(&entry.path()))
    }

    /// The path to load a model from: that of its first part, whose siblings have the names that
    /// belong to it. Ollama's blobs get such names by links in the library.
    ///
    /// # Errors
    /// [`Error::Broken`] if a file is gone or has another size; [`Error::Io`] where links cannot be
    /// made.
    pub fn runnable(&self, model: &Model) -> Result<PathBuf, Error> {
        for file in model.parts() {
            let found = fs::metadata(&file.path).map_err(|error| Error::Broken {
                path: file.path.clone(),
                reason: format!(
                    "{error}, but {} needs it: `cachalot verify` looks at all files, \
                                 `cachalot pull` fetches what is missing",
                    model.name
                ),
            })?;
            if found.len() != file.size {
                let (is, was) = (found.len(), file.size);
                let reason = format!("it has {is} bytes instead of {was}: was it changed?");
                return Err(Error::Broken { path: file.path.clone(), reason });
            }
        }
        let parts: Vec<&ModelFile> = model.parts().collect();
        let Some(first) = parts.first() else {
            let reason = format!("{} has no model among its files", model.name);
            return Err(Error::Broken { path: self.manifest(&model.name), reason });
        };
        let named = |part: &&ModelFile| part.path.file_name().is_some_and(|n| *n == *part.name);
        let siblings = part_paths(&first.path);
        let together = siblings.iter().eq(parts.iter().map(|part| &part.path));
        if together && parts.iter().all(named) {
            return Ok(first.path.clone());
        }
        self.view(model, &parts)
    }

    /// A folder of links that have the names of the parts.
    fn view(&self, model: &Model, parts: &[&ModelFile]) -> Result<PathBuf, Error> {
        let folder = self.root.join("views").join(model.digest.to_string());
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        for part in parts {
            let link = folder.join(&part.name);
            if fs::read_link(&link).ok().as_deref() == Some(part.path.as_path()) {
                continue;
            }
            let _ = fs::remove_file(&link);
            match std::os::unix::fs::symlink(&part.path, &link) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(at(&link)(error));
                }
                _ => {}
            }
        }
        Ok(folder.join(&parts[0].name))
    }

    /// Gives a model another name. Nothing is copied: both names have the same files.
    ///
    /// # Errors
    /// [`Error::NotHere`], [`Error::Exists`], [`Error::Foreign`] for the name of another program's
    /// model, or those of writing.
    pub fn copy(&self, source: &Name, target: &Name) -> Result<(), Error> {
        let _lock = self.lock()?;
        let model = self.find(source)?;
        let model = model.ok_or_else(|| Error::NotHere { name: source.to_string() })?;
        self.check_vacant(target)?;
        let record = Record::of(target, &model, &self.root);
        record.write(&self.manifest(target))
    }

    /// An error if there is a model of this name.
    fn check_vacant(&self, name: &Name) -> Result<(), Error> {
        let Some(found) = self.find(name)? else { return Ok(()) };
        let name = found.name.to_string();
        Err(match remove::owner(found.place) {
            None => Error::Exists { name },
            Some(owner) => {
                let hint = "choose another name".to_owned();
                Error::Foreign { name, owner, hint }
            }
        })
    }

    /// Enters a GGUF file, or all parts of a split one, by reference: the files stay where they
    /// are.
    ///
    /// # Errors
    /// [`Error::Gguf`] for what is not a GGUF file, [`Error::Exists`], [`Error::Broken`] for a path
    /// that is not UTF-8, or those of reading and writing.
    pub fn import(&self, file: &Path, name: &Name) -> Result<Model, Error> {
        let file = named_file(file)?;
        cachalot_gguf::split::Set::open(&file)
            .map_err(|source| Error::Gguf { file: file.display().to_string(), source })?;
        let mut files = Vec::new();
        for path in part_paths(&file) {
            if path.to_str().is_none() {
                let reason = "its path is not UTF-8: rename it".to_owned();
                return Err(Error::Broken { path, reason });
            }
            let metadata = fs::metadata(&path).map_err(at(&path))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !is_file_name(&name) {
                let reason = "its name begins with a dot or has control characters: rename it";
                return Err(Error::Broken { path, reason: reason.to_owned() });
            }
            let modified_ns = modified_ns(&metadata);
            let (size, role) = (metadata.len(), Role::Model);
            files.push(ModelFile { path, name, size, sha256: None, role, modified_ns });
        }
        let _lock = self.lock()?;
        self.check_vacant(name)?;
        let digest = digest_of(&files);
        let modified = SystemTime::now();
        let model = Model { name: name.clone(), place: Place::Imported, files, modified, digest };
        Record::of(name, &model, &self.root).write(&self.manifest(name))?;
        Ok(model)
    }

    /// The name that `import` gives a file unless another is wanted: that of the file.
    pub fn name_for(file: &Path) -> Option<Name> {
        let file_name = file.file_name()?.to_str()?;
        let stem = match PartName::parse(file_name) {
            Some(part) => part.stem,
            None => {
                let dot = file_name.len().saturating_sub(".gguf".len());
                let extension = file_name.get(dot..).filter(|e| e.eq_ignore_ascii_case(".gguf"));
                if extension.is_some() { &file_name[..dot] } else { file_name }.to_owned()
            }
        };
        let keep = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
        stem.chars().map(keep).collect::<String>().parse().ok()
    }

    /// Waits until no other process changes the library.
    pub(crate) fn lock(&self) -> Result<Lock, Error> {
        if fs::symlink_metadata(&self.root).is_ok() && !self.root.is_dir() {
            let reason = "it is not a folder: CACHALOT_MODELS names the folder of models";
            return Err(Error::Broken { path: self.root.clone(), reason: reason.to_owned() });
        }
        fs::create_dir_all(&self.root).map_err(at(&self.root))?;
        Lock::wait(&self.root.join("lock"))
    }

    fn manifests(&self) -> PathBuf {
        self.root.join("manifests")
    }

    /// The manifest of a model.
    pub(crate) fn manifest(&self, name: &Name) -> PathBuf {
        let [host, owner, model, tag] = name.key();
        let folder = self.manifests().join(host).join(owner).join(model);
        folder.join(format!("{tag}.json"))
    }

    fn files_of(&self, key: &[String]) -> PathBuf {
        key.iter().fold(self.root.join("files"), |folder, part| folder.join(part))
    }

    /// The folder of a model's files, by its name and the beginning of its revision.
    pub(crate) fn folder(&self, name: &Name, revision: &str) -> PathBuf {
        let key = name.key();
        let revision: String = revision.chars().take(12).collect();
        self.files_of(&key[..3]).join(format!("{}@{revision}", key[3]))
    }
}

/// The path of a file under its own name, in a folder without links. Links to parts of a split
/// model are kept, since the names of what they lead to may be hashes.
fn named_file(file: &Path) -> Result<PathBuf, Error> {
    let real = fs::canonicalize(file).map_err(at(file))?;
    let folder = std::path::absolute(file).map_err(at(file))?;
    let folder = folder.parent().and_then(|folder| fs::canonicalize(folder).ok());
    let named = folder.zip(file.file_name()).map(|(folder, name)| folder.join(name));
    let is_model = |path: &PathBuf| cachalot_gguf::split::Set::open(path).is_ok();
    Ok(named.filter(|named| *named == real || is_model(named)).unwrap_or(real))
}

fn same_but_for_case(a: &Path, b: &Path) -> bool {
    a == b || a.to_str().zip(b.to_str()).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
}

/// A hash over names, sizes and hashes of files.
pub(crate) fn digest_of(files: &[ModelFile]) -> Sha256 {
    let mut text = String::new();
    for file in files {
        let hash = file.sha256.map_or_else(|| file.path.display().to_string(), |h| h.to_string());
        text.push_str(&format!("{} {} {hash}\n", file.name, file.size));
    }
    Sha256::of(text.as_bytes())
}

/// Files exactly `depth` folders below, as far as they can be read.
fn files_below(folder: &Path, depth: usize) -> Vec<PathBuf> {
    entries_below(folder, depth).into_iter().filter(|path| path.is_file()).collect()
}

fn folders_below(folder: &Path, depth: usize) -> Vec<PathBuf> {
    entries_below(folder, depth).into_iter().filter(|path| path.is_dir()).collect()
}

fn entries_below(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let mut level = vec![folder.to_owned()];
    for _ in 0..depth {
        let entries = level.iter().filter_map(|folder| fs::read_dir(folder).ok());
        level = entries.flat_map(|entries| entries.flatten().map(|e| e.path())).collect();
    }
    level.sort();
    level
}
