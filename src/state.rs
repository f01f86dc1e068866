//! Small files that the program keeps between runs: history, past speeds, measured bandwidths.
//!
//! None of them is needed to work. A file that is missing, damaged, too large, not a regular file
//! or not writable costs one line on standard error per run of the program, never the run.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::output;
use crate::terminal::note;

/// Whether a failure was already reported.
static REPORTED: AtomicBool = AtomicBool::new(false);

/// The last `max` bytes of a file, from the start of a line; `None` if it does not exist or cannot
/// be read.
pub(crate) fn read(path: &Path, max: u64) -> Option<String> {
    match read_tail(path, max) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            report("read", path, &error);
            None
        }
    }
}

/// Replaces a file, creating its folder.
pub(crate) fn write(path: &Path, text: &str) {
    if let Err(error) = write_file(path, text) {
        report("write", path, &error);
    }
}

fn read_tail(path: &Path, max: u64) -> io::Result<String> {
    let metadata = regular(path)?;
    let mut file = File::open(path)?;
    let skipped = metadata.len().saturating_sub(max);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(max).read_to_end(&mut bytes)?;
    // Damaged bytes become characters that no format here accepts: only their lines are lost.
    let text = String::from_utf8_lossy(&bytes);
    let text = match text.split_once('\n') {
        Some((_, rest)) if skipped > 0 => rest,
        _ => &text,
    };
    Ok(text.to_owned())
}

fn write_file(path: &Path, text: &str) -> io::Result<()> {
    match regular(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        }
        Err(error) => return Err(error),
    }
    // A state file may be a link into another folder, where the user keeps it.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    output::replace(&path, text.as_bytes(), 0o600)
}

/// Opening a pipe would block, and a device may be endless.
fn regular(path: &Path) -> io::Result<fs::Metadata> {
    let metadata = fs::metadata(path)?;
    if metadata.is_file() { Ok(metadata) } else { Err(io::Error::other("not a regular file")) }
}

fn report(what: &str, path: &Path, error: &io::Error) {
    if !REPORTED.swap(true, Ordering::Relaxed) {
        note(&format!("cannot {what} {}: {error}; continuing without it", path.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_back_and_a_large_one_from_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/state");
        assert_eq!(read(&path, 100), None);
        write(&path, "one\ntwo\nthree\n");
        assert_eq!(read(&path, 100).as_deref(), Some("one\ntwo\nthree\n"));
        assert_eq!(read(&path, 9).as_deref(), Some("three\n"), "whole lines");
        fs::write(&path, b"one\n\xff\xfe\n").unwrap();
        assert_eq!(read(&path, 100).as_deref(), Some("one\n\u{fffd}\u{fffd}\n"));
    }

    #[test]
    fn pipes_and_folders_are_neither_read_nor_replaced() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path(), 100), None);
        write(folder.path(), "x");
        assert!(folder.path().is_dir());
        assert_eq!(read(Path::new("/dev/zero"), 100), None);
        let below_a_file = folder.path().join("file/state");
        fs::write(folder.path().join("file"), "").unwrap();
        write(&below_a_file, "x");
        assert_eq!(read(&below_a_file, 100), None);
    }
}
