//! The man pages in the repository are those of this version of the command line.
#![allow(clippy::unwrap_used)] // what fails here is a test

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn pages(folder: &Path) -> BTreeMap<String, String> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files.map(|path| (named(&path), fs::read_to_string(&path).unwrap())).collect()
}

#[test]
fn the_man_pages_are_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    common::succeeds(common::cachalot(&["man", folder.path().to_str().unwrap()]));
    let (kept, made) = (pages(Path::new("packaging/man")), pages(folder.path()));
    assert!(made.contains_key("cachalot.1") && made.contains_key("cachalot-run.1"));
    let stale = made.iter().filter(|(name, page)| kept.get(*name) != Some(page));
    let stale: Vec<_> = stale.map(|(name, _)| name).collect();
    assert!(stale.is_empty(), "run `cargo xtask man`: {stale:?} changed");
    let extra: Vec<_> = kept.keys().filter(|name| !made.contains_key(*name)).collect();
    assert!(extra.is_empty(), "{extra:?} are pages of commands that do not exist");
}
