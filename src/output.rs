//! Files that the user asked for: never half written, and never in place of something else.
//!
//! An output is written to a temporary file in the same folder, which replaces the destination when
//! complete. A destination is refused if it is an input, if it is a link, a device or a pipe, and,
//! without `--force`, if it holds something of another kind.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail};
use cachalot_engine::layout::Options;
use tempfile::{Builder, NamedTempFile};

use crate::args::OutputArgs;

/// What an output file contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Conversation,
    Png,
    Safetensors,
    Svg,
    Trace,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Conversation => "a saved conversation",
            Self::Png => "a PNG picture",
            Self::Safetensors => "a safetensors file",
            Self::Svg => "an SVG picture",
            Self::Trace => "a routing trace",
        }
    }

    /// Whether a file that starts with these bytes is of this kind.
    fn matches(self, head: &[u8]) -> bool {
        match self {
            Self::Conversation => head.starts_with(br#"{"cachalot_conversation""#),
            Self::Png => head.starts_with(b"\x89PNG"),
            Self::Safetensors => head.get(8) == Some(&b'{'), // after the length of the header
            Self::Svg => head.starts_with(b"<svg") || head.starts_with(b"<?xml"),
            Self::Trace => head.starts_with(b"cachrout"),
        }
    }
}

/// What a destination is checked against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) kind: Kind,
    /// Files that are read, which must not be replaced.
    pub(crate) inputs: &'a [PathBuf],
    /// Whether a regular file of another kind may be replaced.
    pub(crate) force: bool,
}

/// An output file in progress. Dropping it leaves nothing behind and the destination unchanged.
#[derive(Debug)]
pub(crate) struct Output {
    path: PathBuf,
    file: NamedTempFile,
    _listed: Listed,
}

/// The temporary files that exist, for the end of the program by a signal.
static TEMPORARY: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes all temporary files; the program must end then.
pub(crate) fn remove_temporary() {
    for path in &*temporary_files() {
        let _ = fs::remove_file(path); // one that has just replaced its destination is gone
    }
}

fn temporary_files() -> MutexGuard<'static, Vec<PathBuf>> {
    TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An entry of the list of temporary files.
#[derive(Debug)]
struct Listed(PathBuf);

impl Drop for Listed {
    fn drop(&mut self) {
        temporary_files().retain(|path| *path != self.0);
    }
}

impl Output {
    /// Checks the destination and creates the temporary file.
    ///
    /// # Errors
    /// If the destination is refused, or its folder cannot be written.
    pub(crate) fn create(path: &Path, rules: Rules<'_>) -> anyhow::Result<Self> {
        let existing = check(path, rules)?;
        let mode = existing.map(|existing| existing.permissions().mode() & 0o777);
        let created = temporary(path, mode.unwrap_or(0o666));
        let (file, listed) = created.with_context(|| cannot_write(path))?;
        Ok(Self { path: path.to_owned(), file, _listed: listed })
    }

    /// The file to write to.
    pub(crate) fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// The temporary file, for writers that open it themselves.
    pub(crate) fn temporary(&self) -> &Path {
        self.file.path()
    }

    /// Replaces the destination.
    ///
    /// # Errors
    /// If the data cannot be written to the drive, or the destination cannot be replaced.
    pub(crate) fn commit(self) -> anyhow::Result<()> {
        let Self { path, file, _listed } = self;
        let commit = || -> io::Result<()> {
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        commit().with_context(|| cannot_write(&path))
    }
}

/// Creates the trace that `args` ask for, and has the engine write to its temporary file.
///
/// # Errors
/// As [`Output::create`].
pub(crate) fn trace(
    args: &OutputArgs,
    inputs: &[PathBuf],
    options: &mut Options,
) -> anyhow::Result<Option<Output>> {
    let Some(path) = &args.trace else { return Ok(None) };
    let output = Output::create(path, Rules { kind: Kind::Trace, inputs, force: args.force })?;
    options.trace = Some(output.temporary().to_owned());
    Ok(Some(output))
}

/// Context of errors about an output.
pub(crate) fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

/// Writes a file next to `path` and replaces it; `mode` of a new file is reduced by the umask.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let (mut file, _listed) = temporary(path, mode)?;
    io::Write::write_all(&mut file, bytes)?;
    file.persist(path)?;
    Ok(())
}

/// Metadata of the file to be replaced, if there is one.
fn check(path: &Path, rules: Rules<'_>) -> anyhow::Result<Option<Metadata>> {
    let existing = match fs::symlink_metadata(path) {
        Ok(existing) => existing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| cannot_write(path)),
    };
    let refuse = |why: &str| -> anyhow::Result<()> { bail!("{}: {why}", cannot_write(path)) };
    // Through links as well: a link to an input is refused by this name.
    if let Ok(target) = fs::metadata(path) {
        for input in rules.inputs {
            let same = fs::metadata(input)
                .is_ok_and(|input| (input.dev(), input.ino()) == (target.dev(), target.ino()));
            if same {
                refuse(&format!("it is the input {}", input.display()))?;
            }
        }
    }
    if !existing.is_file() {
        let what = match existing.file_type() {
            ty if ty.is_symlink() => "a symbolic link",
            ty if ty.is_dir() => "a folder",
            _ => "a device, a pipe or a socket",
        };
        refuse(&format!("it is {what}; only regular files are replaced"))?;
    }
    if existing.len() > 0 && !rules.force {
        let mut head = [0; 64];
        let read = File::open(path).and_then(|mut file| read_head(&mut file, &mut head));
        let read = read.with_context(|| cannot_write(path))?;
        if !rules.kind.matches(&head[..read]) {
            let kind = rules.kind.name();
            refuse(&format!("it exists and is not {kind}; --force replaces it"))?;
        }
    }
    Ok(Some(existing))
}

fn read_head(file: &mut File, head: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < head.len() {
        match file.read(&mut head[read..])? {
            0 => break,
            bytes => read += bytes,
        }
    }
    Ok(read)
}

/// A temporary file in the folder of `path`, and its entry in the list, which is to live as long.
fn temporary(path: &Path, mode: u32) -> io::Result<(NamedTempFile, Listed)> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    // Writers of pictures go by the extension.
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let mut files = temporary_files();
    let file = Builder::new()
        .prefix(".cachalot-tmp-")
        .suffix(&format!(".{extension}"))
        .permissions(fs::Permissions::from_mode(mode)) // minus the umask
        .tempfile_in(folder.unwrap_or(Path::new(".")))?;
    files.push(file.path().to_owned());
    let listed = Listed(file.path().to_owned());
    Ok((file, listed))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use super::*;

    fn create(path: &Path, inputs: &[PathBuf], force: bool) -> anyhow::Result<Output> {
        Output::create(path, Rules { kind: Kind::Trace, inputs, force })
    }

    #[track_caller]
    fn refused(path: &Path, inputs: &[PathBuf], force: bool, why: &str) {
        let error = create(path, inputs, force).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(path.to_str().unwrap()), "{error}");
    }

    fn write(path: &Path, force: bool) {
        let mut output = create(path, &[], force).unwrap();
        output.file().write_all(b"cachrout new").unwrap();
        output.commit().unwrap();
        assert_eq!(fs::read(path).unwrap(), b"cachrout new");
    }

    #[test]
    fn files_of_the_same_kind_are_replaced_and_others_with_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        write(&path, false);
        write(&path, false);
        fs::write(&path, "").unwrap();
        write(&path, false);
        fs::write(&path, "a letter").unwrap();
        refused(&path, &[], false, "not a routing trace; --force");
        assert_eq!(fs::read(&path).unwrap(), b"a letter");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        write(&path, true);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600, "as before");
    }

    #[test]
    fn inputs_are_refused_under_every_name() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("model.gguf");
        fs::write(&input, "cachrout as well").unwrap();
        let [hard, soft] = ["hard", "soft"].map(|name| folder.path().join(name));
        fs::hard_link(&input, &hard).unwrap();
        symlink(&input, &soft).unwrap();
        let dotted = folder.path().join("./../").join(folder.path().file_name().unwrap());
        for path in [&input, &hard, &soft, &dotted.join("model.gguf")] {
            refused(path, std::slice::from_ref(&input), true, "it is the input");
        }
        assert_eq!(fs::read(&input).unwrap(), b"cachrout as well");
    }

    #[test]
    fn links_devices_and_folders_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let [target, link, dangling] =
            ["target", "link", "dangling"].map(|name| folder.path().join(name));
        fs::write(&target, "cachrout").unwrap();
        symlink(&target, &link).unwrap();
        symlink("nowhere", &dangling).unwrap();
        refused(&link, &[], true, "a symbolic link");
        refused(&dangling, &[], true, "a symbolic link");
        refused(folder.path(), &[], true, "a folder");
        refused(Path::new("/dev/full"), &[], true, "a device");
        refused(Path::new("/dev/null"), &[], true, "a device");
        refused(&folder.path().join("no/such/folder"), &[], true, "cannot write");
        assert_eq!(fs::read(&target).unwrap(), b"cachrout");
    }

    #[test]
    fn nothing_is_left_of_an_output_that_is_not_committed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        let mut output = create(&path, &[], false).unwrap();
        output.file().write_all(b"cachrout").unwrap();
        assert!(output.temporary().exists());
        drop(output);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
