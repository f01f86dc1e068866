//! The files of the repository, in memory.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use super::source::Source;

/// Larger files are not read: they are weights or fixtures, not text that people write.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// What the rules look at.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Rust source.
    pub(super) sources: Vec<Source>,
    /// Other text: path and content.
    pub(super) texts: Vec<(String, String)>,
    /// Bytes of every file that is part of the repository.
    pub(super) sizes: Vec<(String, u64)>,
}

impl Tree {
    /// Reads what git knows or would add; without git, all but build outputs.
    ///
    /// # Errors
    /// If a folder or file cannot be read.
    pub(super) fn read(root: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        for Listed { path, tracked } in listed(root)? {
            let file = root.join(&path);
            let Ok(metadata) = fs::metadata(&file) else { continue }; // deleted, not yet committed
            if tracked {
                tree.sizes.push((path.clone(), metadata.len()));
            }
            if metadata.is_file() && metadata.len() <= TEXT_BYTES_MAX {
                match String::from_utf8(fs::read(&file)?) {
                    Ok(text) => tree.add(path, text),
                    Err(_) => continue, // no text
                }
            }
        }
        tree.mark_tests();
        Ok(tree)
    }

    /// A tree of these files.
    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            tree.add((*path).to_owned(), (*text).to_owned());
        }
        tree.mark_tests();
        tree
    }

    fn add(&mut self, path: String, text: String) {
        if path.ends_with(".rs") {
            self.sources.push(Source::new(path, text));
        } else {
            self.texts.push((path, text));
        }
    }

    /// Files in `tests` folders are tests, and so are modules declared under `#[cfg(test)]`.
    fn mark_tests(&mut self) {
        let declared = |source: &Source| {
            self.sources.iter().any(|parent| {
                source.may_be_child_of(&parent.path)
                    && parent.modules().any(|module| module.test && module.name == source.name())
            })
        };
        let tests: Vec<bool> = self.sources.iter().map(declared).collect();
        for (source, declared) in self.sources.iter_mut().zip(tests) {
            source.is_test |= declared || source.path.split('/').any(|part| part == "tests");
        }
    }

    /// The text of the file at `path`, if there is one and it is not Rust.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        let found = self.texts.iter().find(|(other, _)| other == path);
        found.map(|(_, text)| text.as_str())
    }

    /// The Rust source at `path`.
    pub(super) fn source(&self, path: &str) -> Option<&Source> {
        self.sources.iter().find(|source| source.path == path)
    }
}

struct Listed {
    /// From the root, with `/` between folders.
    path: String,
    tracked: bool,
}

fn listed(root: &Path) -> io::Result<Vec<Listed>> {
    let files = by_git(root).unwrap_or_default();
    if files.iter().any(|file| file.path == "Cargo.toml") {
        return Ok(files);
    }
    let mut files = Vec::new();
    walk(root, "", &mut files)?;
    Ok(files)
}

/// `None` if this is not a git repository, or there is no git.
fn by_git(root: &Path) -> Option<Vec<Listed>> {
    let args = ["ls-files", "-z", "-t", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").args(args).current_dir(root).output().ok()?;
    let names = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    // `? path` is a file that git does not know yet.
    let file = |entry: &str| {
        let (tag, path) = entry.split_once(' ')?;
        Some(Listed { path: path.to_owned(), tracked: tag != "?" })
    };
    Some(names.split('\0').filter_map(file).collect())
}

fn walk(root: &Path, folder: &str, files: &mut Vec<Listed>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if !entry.file_type()?.is_dir() {
            files.push(Listed { path, tracked: true });
        } else if name != ".git" && name != "target" {
            walk(root, &path, files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_with_and_without_git() {
        let root = crate::root();
        let mut walked = Vec::new();
        walk(&root, "", &mut walked).unwrap();
        for found in [listed(&root).unwrap(), walked] {
            for path in ["Cargo.toml", "xtask/src/tidy/tree.rs"] {
                assert!(found.iter().any(|file| file.path == path), "{path}");
            }
            assert!(!found.iter().any(|file| file.path.starts_with("target/")));
        }
    }

    #[test]
    fn tests_are_told_from_the_rest() {
        let tree = Tree::of(&[
            ("crates/a/src/lib.rs", "mod b;\n#[cfg(test)]\nmod battery;\n"),
            ("crates/a/src/b.rs", ""),
            ("crates/a/src/battery.rs", ""),
            ("crates/a/tests/all.rs", ""),
        ]);
        let is_test: Vec<bool> = tree.sources.iter().map(|source| source.is_test).collect();
        assert_eq!(is_test, [false, false, true, true]);
    }
}
