//! The library: names, other programs' stores, and what verify and prune find.

#![allow(clippy::unwrap_used)] // as in tests

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use cachalot_hub::{Error, Hub, Library, Name, Place, Settings, Sha256, Verdict};

mod common;
use common::gguf;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn library(folder: &Path) -> Library {
    let mut settings = Settings::new(folder.join("library"));
    settings.ollama = Some(folder.join("ollama"));
    settings.hugging_face = Some(folder.join("hub"));
    Library::new(&settings)
}

/// A store as Ollama leaves it, with a model in two parts whose manifest has them in the wrong
/// order.
fn ollama(folder: &Path) -> [Vec<u8>; 2] {
    let parts = [0, 1].map(|no| gguf(no, 10_000, Some((no, 2))));
    let blobs = folder.join("ollama/blobs");
    let manifests = folder.join("ollama/manifests/registry.ollama.ai/library/deepseek-r1");
    fs::create_dir_all(&blobs).unwrap();
    fs::create_dir_all(&manifests).unwrap();
    let layers: Vec<String> = parts
        .iter()
        .rev()
        .map(|part| {
            let hash = Sha256::of(part);
            fs::write(blobs.join(format!("sha256-{hash}")), part).unwrap();
            format!(
                r#"{{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:{hash}","size":{}}}"#,
                part.len()
            )
        })
        .collect();
    let manifest = format!(r#"{{"schemaVersion":2,"layers":[{}]}}"#, layers.join(","));
    fs::write(manifests.join("671b"), manifest).unwrap();
    fs::write(manifests.join("broken"), "{}").unwrap();
    parts
}

#[test]
fn ollamas_models_are_used_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let parts = ollama(folder.path());
    let library = library(folder.path());
    let listing = library.list();
    assert_eq!(listing.models.len(), 1);
    assert!(listing.warnings[0].contains("broken"), "{:?}", listing.warnings);
    let model = library.find(&name("deepseek-r1:671b")).unwrap().unwrap();
    assert_eq!(model.place, Place::Ollama);
    let path = library.runnable(&model).unwrap();
    assert!(path.ends_with("deepseek-r1-671b-00001-of-00002.gguf"), "{}", path.display());
    assert_eq!(fs::read(&path).unwrap(), parts[0], "by split.no, not by the manifest");
    cachalot_gguf::split::Set::open(&path).unwrap();
    match library.remove(&name("deepseek-r1:671b")) {
        Err(Error::Foreign { owner, hint, .. }) => {
            assert_eq!(owner, "Ollama");
            assert!(hint.contains("ollama rm deepseek-r1:671b"));
        }
        other => panic!("{other:?}"),
    }
    let blobs = fs::read_dir(folder.path().join("ollama/blobs")).unwrap().count();
    assert_eq!(blobs, 2, "nothing of it was touched");
    library.copy(&name("deepseek-r1:671b"), &name("mine")).unwrap();
    let mine = library.find(&name("mine")).unwrap().unwrap();
    assert_eq!(fs::read(library.runnable(&mine).unwrap()).unwrap(), parts[0]);
    library.remove(&name("mine")).unwrap();
    assert_eq!(fs::read_dir(folder.path().join("ollama/blobs")).unwrap().count(), blobs);
}

#[test]
fn hugging_faces_cache_is_read_through_its_links() {
    let folder = tempfile::tempdir().unwrap();
    let hub = folder.path().join("hub");
    let repository = hub.join("models--unsloth--R1-GGUF");
    let snapshot = repository.join("snapshots/0123abc/Q4_K_M");
    for folder in
        [&snapshot, &repository.join("blobs"), &repository.join("refs"), &hub.join("blobs/ab")]
    {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(repository.join("refs/main"), "0123abc").unwrap();
    for no in 0..2 {
        let part = gguf(no, 5000, Some((no, 2)));
        let hash = Sha256::of(&part).to_string();
        // Two links deep, as newer caches are.
        fs::write(hub.join("blobs/ab").join(&hash), part).unwrap();
        symlink(hub.join("blobs/ab").join(&hash), repository.join("blobs").join(&hash)).unwrap();
        let link = snapshot.join(format!("R1-Q4_K_M-0000{}-of-00002.gguf", no + 1));
        symlink(Path::new("../../../blobs").join(&hash), link).unwrap();
    }
    let library = library(folder.path());
    let model = library.find(&name("unsloth/R1-GGUF:q4_k_m")).unwrap().unwrap();
    assert_eq!((model.place, model.files.len()), (Place::HuggingFace, 2));
    assert!(model.files.iter().all(|file| file.sha256.is_some()));
    let path = library.runnable(&model).unwrap();
    assert!(path.starts_with(&snapshot), "in place, not by links of ours");
    cachalot_gguf::split::Set::open(&path).unwrap();
    assert!(matches!(library.remove(&model.name), Err(Error::Foreign { .. })));
    let deep = library.verify(&model.name, true, &mut |_| true).unwrap();
    assert!(deep.iter().all(|(_, verdict)| *verdict == Verdict::Good));
}

#[test]
fn imported_files_stay_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("My R1-Q8_0.gguf");
    fs::write(&file, gguf(1, 5000, None)).unwrap();
    let library = library(folder.path());
    let found = Library::name_for(&file).unwrap();
    assert_eq!(found.to_string(), "My-R1-Q8_0:latest");
    let model = library.import(&file, &found).unwrap();
    assert_eq!(model.quant().as_deref(), Some("Q8_0"));
    assert!(matches!(library.import(&file, &found), Err(Error::Exists { .. })));
    let model = library.find(&name("my-r1-q8_0")).unwrap().expect("case does not matter");
    assert_eq!(library.runnable(&model).unwrap(), fs::canonicalize(&file).unwrap());
    library.remove(&found).unwrap();
    assert!(file.is_file());
    let text = folder.path().join("x.txt");
    fs::write(&text, "x").unwrap();
    assert!(matches!(library.import(&text, &name("x")), Err(Error::Gguf { .. })));
}

#[test]
fn verify_trusts_size_and_time_unless_it_looks_deeper() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.gguf");
    fs::write(&file, gguf(1, 5000, None)).unwrap();
    let library = library(folder.path());
    library.import(&file, &name("a")).unwrap();
    let verdict = |deep| {
        let mut found = library.verify(&name("a"), deep, &mut |_| true).unwrap();
        found.remove(0).1
    };
    assert_eq!(verdict(false), Verdict::Good);
    assert!(matches!(verdict(true), Verdict::Unknown(_)));
    let later =
        fs::metadata(&file).unwrap().modified().unwrap() + std::time::Duration::from_secs(5);
    fs::File::options().write(true).open(&file).unwrap().set_modified(later).unwrap();
    assert_eq!(verdict(false), Verdict::Touched);
    fs::write(&file, "short").unwrap();
    assert!(matches!(verdict(false), Verdict::Size { found: 5, .. }));
    let model = library.find(&name("a")).unwrap().unwrap();
    let error = library.runnable(&model).unwrap_err().to_string();
    assert!(error.contains("a.gguf") && error.contains("5 bytes"), "{error}");
    fs::remove_file(&file).unwrap();
    assert!(matches!(verdict(true), Verdict::Missing(_)));
    assert!(matches!(library.verify(&name("b"), false, &mut |_| true), Err(Error::NotHere { .. })));
}

#[test]
fn a_manifest_that_is_broken_is_a_warning_and_stops_prune() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(folder.path());
    let manifest = folder.path().join("library/manifests/h/o/m/t.json");
    fs::create_dir_all(manifest.parent().unwrap()).unwrap();
    fs::write(&manifest, "{\"version\":1").unwrap();
    assert!(library.list().warnings[0].contains("t.json"));
    assert!(library.prune(true, false).is_err(), "what it names must not go");
    fs::remove_file(&manifest).unwrap();
    let lost = folder.path().join("library/files/h/o/m/t@0");
    fs::create_dir_all(&lost).unwrap();
    fs::write(lost.join("x.gguf"), "x").unwrap();
    assert_eq!(library.prune(false, true).unwrap().paths, std::slice::from_ref(&lost));
    assert!(lost.exists(), "it was only looked at");
    library.prune(false, false).unwrap();
    assert!(!folder.path().join("library/files/h").exists());
}

#[test]
fn a_hub_needs_nothing_but_a_folder_that_need_not_exist() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::new(Settings::new(folder.path().join("none")));
    assert!(hub.library().list().models.is_empty());
    assert!(matches!(hub.library().remove(&name("a")), Err(Error::NotHere { .. })));
}

#[test]
fn names_are_found_whatever_the_case_of_their_letters() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.gguf");
    fs::write(&file, gguf(1, 5000, None)).unwrap();
    let library = library(folder.path());
    library.import(&file, &name("My-R1:Fast")).unwrap();
    match library.copy(&name("my-r1:fast"), &name("MY-R1:FAST")) {
        Err(Error::Exists { name }) => assert_eq!(name, "My-R1:Fast", "as `list` shows it"),
        other => panic!("{other:?}"),
    }
    library.copy(&name("my-r1:fast"), &name("b")).unwrap();
    let removed = library.remove_all(&[name("my-r1:fast"), name("B"), name("b")]).unwrap();
    let removed: Vec<String> = removed.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(removed, ["My-R1:Fast", "b:latest"]);
    assert!(library.list().models.is_empty());
}

#[test]
fn the_only_quantization_here_is_removed_by_the_name_of_its_repository() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.gguf");
    fs::write(&file, gguf(1, 5000, None)).unwrap();
    let library = library(folder.path());
    for quant in ["Q4_0", "Q8_0"] {
        library.import(&file, &name(&format!("u/r:{quant}"))).unwrap();
    }
    match library.remove(&name("u/r")) {
        Err(Error::Choose { choices, .. }) => assert_eq!(choices, ["Q4_0", "Q8_0"]),
        other => panic!("{other:?}"),
    }
    library.remove(&name("u/r:q4_0")).unwrap();
    let removed = library.remove_all(&[name("U/R")]).unwrap();
    assert_eq!(removed[0].0.to_string(), "u/r:Q8_0");
}

/// A snapshot's files are links to blobs whose names are hashes.
#[test]
fn parts_that_are_links_are_imported_under_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = folder.path().join("blobs");
    fs::create_dir(&blobs).unwrap();
    for no in 0..2 {
        fs::write(blobs.join(no.to_string()), gguf(no, 5000, Some((no, 2)))).unwrap();
        let link = folder.path().join(format!("m-0000{}-of-00002.gguf", no + 1));
        symlink(blobs.join(no.to_string()), link).unwrap();
    }
    let library = library(folder.path());
    let part = folder.path().join("m-00002-of-00002.gguf");
    let model = library.import(&part, &Library::name_for(&part).unwrap()).unwrap();
    assert_eq!((model.name.to_string().as_str(), model.files.len()), ("m:latest", 2));
    cachalot_gguf::split::Set::open(&library.runnable(&model).unwrap()).unwrap();
    // A link whose own name says nothing of parts.
    let link = folder.path().join("model.gguf");
    fs::write(blobs.join("n-00001-of-00001.gguf"), gguf(1, 5000, Some((0, 1)))).unwrap();
    symlink(blobs.join("n-00001-of-00001.gguf"), &link).unwrap();
    library.import(&link, &name("n")).unwrap();
}

#[test]
fn a_path_that_cannot_be_written_down_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(std::ffi::OsStr::from_bytes(b"\xff.gguf"));
    fs::write(&file, gguf(1, 5000, None)).unwrap();
    let error = library(folder.path()).import(&file, &name("a")).unwrap_err().to_string();
    assert!(error.contains("UTF-8"), "{error}");
    assert_eq!(Library::name_for(Path::new("A.GGUF")).unwrap().to_string(), "A:latest");
}

#[test]
fn a_library_that_is_not_a_folder_is_said_to_be_none() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(folder.path());
    fs::write(library.root(), "x").unwrap();
    assert_eq!(library.list().warnings.len(), 1);
    let error = library.prune(false, false).unwrap_err().to_string();
    assert!(error.contains("not a folder"), "{error}");
    fs::remove_file(library.root()).unwrap();
    symlink("nowhere", library.root()).unwrap();
    assert_eq!(library.list().warnings.len(), 1);
    assert!(library.prune(false, false).unwrap_err().to_string().contains("not a folder"));
}

#[test]
fn a_manifest_in_the_wrong_place_is_a_warning_that_names_the_right_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.gguf");
    fs::write(&file, gguf(1, 5000, None)).unwrap();
    let library = library(folder.path());
    library.import(&file, &name("a")).unwrap();
    let manifests = folder.path().join("library/manifests/registry.ollama.ai/library");
    fs::rename(manifests.join("a"), manifests.join("b")).unwrap();
    let listing = library.list();
    assert!(listing.models.is_empty());
    assert!(listing.warnings[0].contains("library/a/latest.json"), "{:?}", listing.warnings);
    assert!(matches!(library.find(&name("b")), Err(Error::Broken { .. })));
    let empty = r#"{"version":1,"name":"b:latest","imported":true,"added":0,"files":[]}"#;
    fs::write(manifests.join("b/latest.json"), empty).unwrap();
    assert!(library.list().warnings[0].contains("no file"), "{:?}", library.list().warnings);
}

#[test]
fn prune_keeps_the_links_of_models_that_are_here() {
    let folder = tempfile::tempdir().unwrap();
    ollama(folder.path());
    let library = library(folder.path());
    let model = library.find(&name("deepseek-r1:671b")).unwrap().unwrap();
    let path = library.runnable(&model).unwrap();
    let pruned = library.prune(true, false).unwrap();
    assert!(pruned.paths.is_empty() && path.exists(), "{pruned:?}");
    match library.copy(&model.name, &model.name) {
        Err(Error::Foreign { hint, .. }) => assert!(hint.contains("another name"), "{hint}"),
        other => panic!("{other:?}"),
    }
    fs::remove_dir_all(folder.path().join("ollama/manifests")).unwrap();
    let pruned = library.prune(true, false).unwrap();
    assert_eq!(pruned.paths, [path.parent().unwrap()]);
    assert!(pruned.bytes < 10_000, "the files that they led to stay: {pruned:?}");
    assert_eq!(fs::read_dir(folder.path().join("ollama/blobs")).unwrap().count(), 2);
}
