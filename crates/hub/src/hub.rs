//! From an offer to a verified model in the library.

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::error::at;
use crate::fileset::{FileSet, RemoteFile};
use crate::http::Web;
use crate::library::{Model, ModelFile, Place, Record, Role, digest_of, modified_ns, try_lock};
use crate::older::Older;
use crate::pulling::{self, PULL_FOLDER, Plan};
use crate::quant::Choice;
use crate::resolve::{Offer, resolve};
use crate::transfer::{self, FileProgress, Meter, Progress, journal};
use crate::{Arrival, Error, Library, Name, Room, Settings, Sha256, hugging_face, registry};

/// Both services and the library.
#[derive(Clone, Debug)]
pub struct Hub {
    settings: Settings,
    library: Library,
}

impl Hub {
    /// Nothing is asked or written before it is needed.
    pub fn new(settings: Settings) -> Self {
        let library = Library::new(&settings);
        Self { settings, library }
    }

    /// The models of this machine.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The quantizations of a repository at Hugging Face, the smallest first; none for other names.
    ///
    /// # Errors
    /// Those of asking for it.
    pub fn choices(&self, name: &Name) -> Result<Vec<Choice>, Error> {
        let Name::HuggingFace(repository) = name else { return Ok(Vec::new()) };
        let repository = self.ask(&name.to_string(), |web| async move {
            hugging_face::repository(&web, repository).await
        })?;
        Ok(repository.choices)
    }

    /// Asks what a name stands for: exact files, sizes and hashes, and the headers of its parts.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Choose`], [`Error::NoQuant`], [`Error::Answer`] for what makes
    /// no sense, [`Error::Offline`], or why the service could not be asked.
    pub fn resolve(&self, name: &Name) -> Result<Offer, Error> {
        self.ask(&name.to_string(), |web| async move { resolve(&web, name).await })
    }

    /// Runs requests to their end.
    fn ask<T, F: Future<Output = Result<T, Error>>>(
        &self,
        what: &str,
        asked: impl FnOnce(Web) -> F,
    ) -> Result<T, Error> {
        if self.settings.offline {
            return Err(Error::Offline { what: what.to_owned() });
        }
        let web = Web::new(&self.settings)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(at(Path::new(what)))?.block_on(asked(web))
    }

    /// Where the files of an offer would go, and what room there is.
    ///
    /// # Errors
    /// [`Error::Io`] for folders that cannot be looked at.
    pub fn room(&self, offer: &Offer, targets: &[PathBuf]) -> Result<Vec<Room>, Error> {
        let folder = self.library.folder(&offer.set.name, &offer.set.revision);
        crate::room::of(&self.plan(offer, targets, &folder)?).map_err(at(&folder))
    }

    /// The plan of the pull that is under way, or a new one.
    fn plan(&self, offer: &Offer, targets: &[PathBuf], folder: &Path) -> Result<Plan, Error> {
        let targets: Vec<PathBuf> = targets
            .iter()
            .map(|target| std::path::absolute(target).map_err(at(target)))
            .collect::<Result<_, _>>()?;
        // Parts stay in the folder that they have begun in, whatever room there is by now.
        if let Ok(plan) = Plan::read(folder)
            && plan.set.files.len() == offer.set.files.len()
            && plan.set.files.iter().zip(&offer.set.files).all(|(a, b)| same_content(a, b))
            && (targets.is_empty()
                || plan.folders.iter().all(|f| targets.contains(f) || f == folder))
        {
            return Ok(Plan { set: offer.set.clone(), folders: plan.folders });
        }
        let mut folders = vec![folder.to_owned(); offer.set.files.len()];
        if !targets.is_empty() {
            let parts: Vec<usize> = (0..folders.len())
                .filter(|index| offer.set.files[*index].role == Role::Model)
                .collect();
            let sizes: Vec<u64> = parts.iter().map(|index| offer.set.files[*index].size).collect();
            for (index, target) in parts.into_iter().zip(crate::room::distribute(&sizes, &targets))
            {
                folders[index] = target;
            }
        }
        Ok(Plan { set: offer.set.clone(), folders })
    }

    /// Fetches an offer into the library, and returns once every file is verified and the model is
    /// listed. If another process pulls the same model, its progress is reported, and the end is
    /// the same. `report` is called about ten times a second and returns whether to go on; what has
    /// arrived is kept in any case.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::WrongHash`], [`Error::Changed`], [`Error::GaveUp`],
    /// [`Error::Io`], [`Error::Cancelled`].
    pub fn pull(
        &self,
        offer: &Offer,
        targets: &[PathBuf],
        report: &mut dyn FnMut(&Progress) -> bool,
    ) -> Result<Model, Error> {
        self.pull_read(offer, targets, None, report)
    }

    /// As [`Hub::pull`], for one who reads the model while it arrives.
    ///
    /// # Errors
    /// Those of [`Hub::pull`].
    pub fn pull_arriving(
        &self,
        offer: &Offer,
        arrival: &Arrival,
        report: &mut dyn FnMut(&Progress) -> bool,
    ) -> Result<Model, Error> {
        let result = self.pull_read(offer, &[], Some(arrival), report);
        arrival.end();
        result
    }

    fn pull_read(
        &self,
        offer: &Offer,
        targets: &[PathBuf],
        arrival: Option<&Arrival>,
        report: &mut dyn FnMut(&Progress) -> bool,
    ) -> Result<Model, Error> {
        let name = &offer.set.name;
        let folder = self.library.folder(name, &offer.set.revision);
        let lock_path = folder.join(PULL_FOLDER).join("lock");
        let lock = match try_lock(&lock_path)? {
            Some(lock) => lock,
            None => match self.follow(&folder, offer, report)? {
                None => return self.here(name),
                Some(lock) => lock,
            },
        };
        if let Ok(model) = self.here(name)
            && self.is_this(&model, &offer.set)
        {
            let _ = fs::remove_dir_all(folder.join(PULL_FOLDER));
            return Ok(model);
        }
        pulling::keep_error(&folder, None);
        let result = self.pull_locked(offer, targets, &folder, arrival, report);
        match &result {
            // A waiting pull takes over from one that was stopped, and fails with one that failed.
            Err(Error::Cancelled) => {}
            Err(error) => pulling::keep_error(&folder, Some(error)),
            // The lock's file goes last, while it is still locked.
            Ok(_) => drop(fs::remove_dir_all(folder.join(PULL_FOLDER))),
        }
        drop(lock);
        result
    }

    fn pull_locked(
        &self,
        offer: &Offer,
        targets: &[PathBuf],
        folder: &Path,
        arrival: Option<&Arrival>,
        report: &mut dyn FnMut(&Progress) -> bool,
    ) -> Result<Model, Error> {
        let plan = self.plan(offer, targets, folder)?;
        let older = Older::find(&self.library, &offer.set.name, folder)?;
        let theirs: Vec<PathBuf> = older.iter().flat_map(Older::outside).collect();
        plan.check_free(folder, &theirs)?;
        let is_file = |folder: &&PathBuf| folder.exists() && !folder.is_dir();
        if let Some(path) = plan.folders.iter().find(is_file) {
            let reason = "it is not a folder".to_owned();
            return Err(Error::Broken { path: path.clone(), reason });
        }
        if !older.is_empty() {
            plan.write(folder)?; // so that what is taken over has an owner whatever happens
            Older::replace(older, &self.library, &plan, folder)?;
        }
        self.remove_changed(&plan, folder, report)?;
        self.reuse(&plan)?;
        crate::room::of(&plan).map_err(at(folder))?.iter().try_for_each(Room::check)?;
        plan.write(folder)?;
        let parts = plan.set.parts().zip(&offer.headers);
        for (part, header) in parts {
            pulling::keep_header(folder, part, &header.bytes)?;
        }
        let sums = self.ask(&plan.set.name.to_string(), |web| {
            let plan = &plan;
            async move {
                let mut sums = Vec::new();
                for (index, file) in plan.set.files.iter().enumerate() {
                    let wanted = !plan.is_whole(index);
                    sums.push(if wanted {
                        registry::chunksums(&web, file).await
                    } else {
                        Vec::new()
                    });
                }
                Ok(sums)
            }
        })?;
        let web = Web::new(&self.settings)?;
        let hashes = transfer::fetch(&web, &plan, folder, sums, arrival, report)?;
        self.enter(&plan, folder, &hashes)
    }

    /// Files of the library with the same hash are linked rather than fetched.
    fn reuse(&self, plan: &Plan) -> Result<(), Error> {
        let missing = |index: &usize| !plan.is_whole(*index);
        let missing: Vec<usize> = (0..plan.set.files.len()).filter(missing).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let own = self.library.list().models;
        let own = own.iter().filter(|model| model.place == Place::Library);
        let files: Vec<&ModelFile> = own.flat_map(|model| &model.files).collect();
        for index in missing {
            let wanted = &plan.set.files[index];
            let same = files.iter().find(|file| {
                wanted.sha256.is_some()
                    && file.sha256 == wanted.sha256
                    && file.size == wanted.size
                    && fs::metadata(&file.path).is_ok_and(|found| {
                        found.len() == file.size && modified_ns(&found) == file.modified_ns
                    })
            });
            if let Some(same) = same {
                let folder = &plan.folders[index];
                fs::create_dir_all(folder).map_err(at(folder))?;
                // The file itself, not a link that leads to it: that may go with its model. On
                // another file system it is fetched.
                let _ = fs::canonicalize(&same.path)
                    .and_then(|real| fs::hard_link(real, plan.path(index)));
            }
        }
        Ok(())
    }

    /// Waits for the process that pulls the same files. `None` if it has finished; its lock, if it
    /// has gone without finishing.
    fn follow(
        &self,
        folder: &Path,
        offer: &Offer,
        report: &mut dyn FnMut(&Progress) -> bool,
    ) -> Result<Option<crate::library::Lock>, Error> {
        let mut meter = Meter::new();
        let mut most = vec![0; offer.set.files.len()];
        loop {
            if let Ok(plan) = Plan::read(folder) {
                let progress = followed(folder, &plan, &mut most, &mut meter);
                if !report(&progress) {
                    return Err(Error::Cancelled);
                }
            }
            thread::sleep(Duration::from_millis(250));
            if let Some(lock) = try_lock(&folder.join(PULL_FOLDER).join("lock"))? {
                if let Ok(model) = self.here(&offer.set.name)
                    && self.is_this(&model, &offer.set)
                {
                    let _ = fs::remove_dir_all(folder.join(PULL_FOLDER));
                    return Ok(None);
                }
                return match pulling::last_error(folder) {
                    // It failed, and so would this one: both end with the same words.
                    Some(reason) => Err(Error::Answer { url: offer.set.name.to_string(), reason }),
                    None => Ok(Some(lock)),
                };
            }
        }
    }

    fn here(&self, name: &Name) -> Result<Model, Error> {
        let model = self.library.find(name)?;
        model.ok_or_else(|| Error::NotHere { name: name.to_string() })
    }

    /// Whether a model has the files of this set, as far as hashes and sizes tell, and all are
    /// there and unchanged. Without a hash, only files of the same revision are the same.
    fn is_this(&self, model: &Model, set: &FileSet) -> bool {
        let folder = self.library.folder(&set.name, &set.revision);
        let is_foreign = matches!(model.place, Place::Ollama | Place::HuggingFace);
        let same = |(here, there): (&ModelFile, &RemoteFile)| {
            let is_same = match there.sha256 {
                Some(hash) => here.sha256 == Some(hash),
                None => is_foreign || here.path.starts_with(&folder),
            };
            is_same && here.size == there.size && !is_touched(here)
        };
        model.files.len() == set.files.len()
            && model.files.iter().zip(&set.files).all(same)
            && self.library.runnable(model).is_ok()
    }

    /// Removes files of the model that were written to since they were verified and are not what
    /// they were, so that they are fetched again.
    fn remove_changed(
        &self,
        plan: &Plan,
        folder: &Path,
        report: &mut dyn FnMut(&Progress) -> bool,
    ) -> Result<(), Error> {
        let Ok(model) = self.here(&plan.set.name) else { return Ok(()) };
        for (index, file) in plan.set.files.iter().enumerate() {
            let path = folder.join(&file.name);
            let known = model.files.iter().find(|known| known.path == path && is_touched(known));
            let expected = known.and_then(|known| file.sha256.or(known.sha256));
            let Some(expected) = expected.filter(|_| plan.is_whole(index)) else { continue };
            let progress = Progress { total: plan.set.size(), ..Progress::default() };
            let bytes = fs::File::open(&path).map_err(at(&path))?;
            match Sha256::of_reader(bytes, |_| report(&progress)) {
                Ok(found) if found == expected => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    return Err(Error::Cancelled);
                }
                _ => fs::remove_file(plan.path(index)).map_err(at(&path))?,
            }
        }
        Ok(())
    }

    /// The model that this offer is, if it is here already, whole.
    pub fn installed(&self, offer: &Offer) -> Option<Model> {
        self.here(&offer.set.name).ok().filter(|model| self.is_this(model, &offer.set))
    }

    /// Links files that went to other folders, and writes the manifest: from here on it is listed.
    /// `hashes` are those of the files that arrived now.
    fn enter(&self, plan: &Plan, folder: &Path, hashes: &[Option<Sha256>]) -> Result<Model, Error> {
        let before = self.here(&plan.set.name).map(|model| model.files).unwrap_or_default();
        let mut files = Vec::new();
        for (index, file) in plan.set.files.iter().enumerate() {
            let path = folder.join(&file.name);
            let known = before.iter().find(|known| known.path == path && known.size == file.size);
            if plan.folders[index] != *folder {
                let target = plan.path(index);
                if fs::read_link(&path).ok().as_deref() != Some(target.as_path()) {
                    let _ = fs::remove_file(&path);
                    symlink(&target, &path).map_err(at(&path))?;
                }
            }
            let metadata = fs::metadata(&path).map_err(at(&path))?;
            files.push(ModelFile {
                path,
                name: file.name.clone(),
                size: file.size,
                sha256: file.sha256.or(hashes[index]).or(known.and_then(|known| known.sha256)),
                role: file.role,
                modified_ns: modified_ns(&metadata),
            });
        }
        let modified = SystemTime::now();
        let digest = digest_of(&files);
        let (name, place) = (plan.set.name.clone(), Place::Library);
        let model = Model { name, place, files, modified, digest };
        let _lock = self.library.lock()?;
        let manifest = self.library.manifest(&model.name);
        Record::of(&model.name, &model, self.library.root()).write(&manifest)?;
        Ok(model)
    }
}

/// Whether a file was written to since it was verified.
fn is_touched(file: &ModelFile) -> bool {
    let now = fs::metadata(&file.path).ok().and_then(|metadata| modified_ns(&metadata));
    file.modified_ns.zip(now).is_some_and(|(then, now)| then != now)
}

fn same_content(a: &RemoteFile, b: &RemoteFile) -> bool {
    (&a.name, a.size, a.sha256, a.role) == (&b.name, b.size, b.sha256, b.role)
}

/// The progress of another process, from what it has made safe.
fn followed(folder: &Path, plan: &Plan, most: &mut [u64], meter: &mut Meter) -> Progress {
    let mut progress = Progress { following: true, ..Progress::default() };
    for (index, file) in plan.set.files.iter().enumerate() {
        let verified = plan.is_whole(index);
        let done = match verified {
            true => file.size,
            false => journal::done(&pulling::journal_path(folder, file), file),
        };
        let most = most.get_mut(index).map_or(done, |most| {
            *most = done.max(*most);
            *most
        });
        progress.done += most;
        progress.total += file.size;
        progress.verified += if verified { file.size } else { 0 };
        progress.files.push(FileProgress {
            name: file.name.clone(),
            sha256: file.sha256,
            size: file.size,
            done: most,
            total: file.size,
            verified,
            again: false,
        });
    }
    progress.rate = meter.rate(progress.done);
    progress
}
