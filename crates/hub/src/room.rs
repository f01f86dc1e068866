//! Free space, by file system.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::pulling::Plan;

/// What the files of a pull need in one file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// The folder that files go to.
    pub folder: PathBuf,
    /// Bytes that are still to be written.
    pub needed: u64,
    /// Bytes that may be written.
    pub free: u64,
}

impl Room {
    /// An error if there is too little.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let Self { folder, needed, free } = self.clone();
        if needed <= free { Ok(()) } else { Err(Error::NoSpace { folder, needed, free }) }
    }
}

/// Bytes that may be written to the file system of `folder`, or of what is to become it.
pub(crate) fn free(folder: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(existing(folder))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// The folder, or the first above it that exists.
pub(crate) fn existing(folder: &Path) -> &Path {
    folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"))
}

/// What a plan needs, by file system.
pub(crate) fn of(plan: &Plan) -> io::Result<Vec<Room>> {
    let mut rooms: Vec<(u64, Room)> = Vec::new();
    for (index, folder) in plan.folders.iter().enumerate() {
        let device = fs::metadata(existing(folder))?.dev();
        let size = plan.set.files[index].size;
        let here = if plan.is_whole(index) {
            size
        } else {
            let partial = fs::metadata(plan.partial_path(index));
            partial.map_or(0, |partial| partial.blocks() * 512).min(size)
        };
        let needed = size - here;
        match rooms.iter_mut().find(|(other, _)| *other == device) {
            Some((_, room)) => room.needed = room.needed.saturating_add(needed),
            None => {
                let (folder, free) = (folder.clone(), free(folder)?);
                rooms.push((device, Room { folder, needed, free }));
            }
        }
    }
    Ok(rooms.into_iter().map(|(_, room)| room).collect())
}

/// Distributes files over folders: each to the one that has the most room left.
pub(crate) fn distribute(sizes: &[u64], folders: &[PathBuf]) -> Vec<PathBuf> {
    let free = |folder: &PathBuf| i128::from(free(folder).unwrap_or(0));
    let mut left: Vec<(i128, &PathBuf)> = folders.iter().map(|f| (free(f), f)).collect();
    let place = |size: &u64| {
        let most = left.iter_mut().max_by_key(|(free, _)| *free).expect("there is a folder");
        most.0 -= i128::from(*size);
        most.1.clone()
    };
    sizes.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_where_room_is() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        let placed = distribute(&[10, 10, 10, 10], &[a.clone(), b]);
        assert_eq!(placed.iter().filter(|path| **path == a).count(), 2, "{placed:?}");
        assert!(free(&a).unwrap() > 0, "of a folder that is yet to be made");
        assert_eq!(existing(&a.join("c")), folder.path());
    }
}
