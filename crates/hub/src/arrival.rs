//! A model that is read while it arrives.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::Error;
use crate::error::at;
use crate::library::Role;
use crate::pulling::{PULL_FOLDER, Plan};
use crate::transfer::Shared;

/// The files of a pull under way, for one who reads them before they are verified.
///
/// A pull that has one fetches in small pieces, those that are waited for first; and it ends if a
/// file turns out to be wrong or changes, rather than to fetch it again under its reader.
#[derive(Clone, Debug, Default)]
pub struct Arrival(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Expected,
    Begun(Arc<Begun>),
    Ended,
}

#[derive(Debug)]
struct Begun {
    shared: Arc<Shared>,
    /// By name: which file of `shared` it is, or `None` if it was complete before.
    index: HashMap<String, Option<usize>>,
    first: PathBuf,
}

impl Arrival {
    /// Waits until the pull has begun, and returns the path of the first part, whose siblings are
    /// beside it; `None` if the pull has ended without that.
    pub fn first(&self) -> Option<PathBuf> {
        let mut state = self.state();
        loop {
            match &*state {
                State::Begun(begun) => return Some(begun.first.clone()),
                State::Ended => return None,
                State::Expected => {
                    state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Waits until all of these bytes are written. They are fetched before any others.
    ///
    /// # Errors
    /// If the pull ends before.
    pub fn wait(&self, ranges: &[(&Path, Range<u64>)]) -> io::Result<()> {
        let begun = self.begun()?;
        let ranges = begun.ranges(ranges)?;
        ranges.iter().for_each(|(file, bytes)| begun.shared.want(*file, bytes.clone()));
        let ended = || io::Error::other("the download has ended");
        let mut ranges = ranges.into_iter();
        ranges.try_for_each(|(file, bytes)| begun.shared.wait(file, bytes).ok_or_else(ended))
    }

    /// Whether all of these bytes are written.
    pub fn has(&self, ranges: &[(&Path, Range<u64>)]) -> bool {
        let Ok(begun) = self.begun() else { return false };
        let here = |(file, bytes)| begun.shared.has(file, bytes);
        begun.ranges(ranges).is_ok_and(|ranges| ranges.into_iter().all(here))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begun(&self) -> io::Result<Arc<Begun>> {
        match &*self.state() {
            State::Begun(begun) => Ok(Arc::clone(begun)),
            _ => Err(io::Error::other("it is not being downloaded")),
        }
    }

    /// The pull begins: links to its parts, with the names that they will have, are made in a
    /// folder of its own. They stay valid when the parts get their names.
    pub(crate) fn begin(
        &self,
        shared: &Arc<Shared>,
        plan: &Plan,
        folder: &Path,
        index: &[Option<usize>],
    ) -> Result<(), Error> {
        let links = folder.join(PULL_FOLDER).join("arriving");
        let _ = fs::remove_dir_all(&links);
        fs::create_dir_all(&links).map_err(at(&links))?;
        let mut first = None;
        let mut by_name = HashMap::new();
        for (number, file) in plan.set.files.iter().enumerate() {
            by_name.insert(file.name.clone(), index[number]);
            if file.role != Role::Model {
                continue;
            }
            let link = links.join(&file.name);
            let path = match index[number] {
                Some(_) => plan.partial_path(number),
                None => plan.path(number),
            };
            fs::hard_link(&path, &link).map_err(|error| Error::Broken {
                reason: format!(
                    "it cannot be run while it arrives, because it cannot be linked from the \
                     library ({error}): pull it first"
                ),
                path,
            })?;
            first.get_or_insert(link);
        }
        let Some(first) = first else { return Ok(()) };
        let begun = Begun { shared: shared.clone(), index: by_name, first };
        *self.state() = State::Begun(Arc::new(begun));
        self.0.changed.notify_all();
        Ok(())
    }

    /// The pull has ended, one way or the other.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        if matches!(*state, State::Expected) {
            *state = State::Ended;
        }
        self.0.changed.notify_all();
    }
}

impl Begun {
    /// Those of files that were not complete before, as `shared` numbers them.
    fn ranges(&self, ranges: &[(&Path, Range<u64>)]) -> io::Result<Vec<(usize, Range<u64>)>> {
        let mut found = Vec::with_capacity(ranges.len());
        for (path, bytes) in ranges {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match self.index.get(name) {
                Some(Some(file)) => found.push((*file, bytes.clone())),
                Some(None) => {}
                None => return Err(io::Error::other("the download has no such file")),
            }
        }
        Ok(found)
    }
}
