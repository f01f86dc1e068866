//! Files in other folders than the library, and what newer revisions make of what is there: nothing
//! that is needed is removed, nothing is left behind, and contents never mix.

#![allow(clippy::unwrap_used)] // as in tests

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use cachalot_hub::{Error, Hub, Model, Name, Offer, Progress, Settings, Sha256, Verdict};
use common::{Fake, gguf};

struct Setup {
    fake: Fake,
    hub: Hub,
    folder: tempfile::TempDir,
}

impl Setup {
    fn new() -> Self {
        let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
        let settings: Settings = fake.settings(&folder.path().join("library"));
        Self { hub: Hub::new(settings), fake, folder }
    }

    fn drive(&self) -> PathBuf {
        self.folder.path().join("drive")
    }

    fn offer(&self, name: &str) -> Offer {
        self.hub.resolve(&name.parse().unwrap()).unwrap()
    }

    /// A pull to the drive.
    fn pull(&self, name: &str) -> Result<Model, Error> {
        self.hub.pull(&self.offer(name), &[self.drive()], &mut |_| true)
    }

    /// A pull that is stopped once this number of bytes has arrived.
    fn stop(&self, name: &str, targets: &[PathBuf], after: u64) {
        self.fake.world().held = Some(after + 4_000_000);
        let stop = |progress: &Progress| progress.done < after;
        let error = self.hub.pull(&self.offer(name), targets, &mut |progress| stop(progress));
        assert!(matches!(error, Err(Error::Cancelled)), "{error:?}");
        self.fake.world().held = None;
    }

    fn is_good(&self, name: &str) -> bool {
        let files = self.hub.library().verify(&name.parse().unwrap(), true, &mut |_| true);
        files.unwrap().iter().all(|(_, verdict)| *verdict == Verdict::Good)
    }

    fn names(&self, folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn content(model: &Model) -> Vec<Vec<u8>> {
    model.parts().map(|part| fs::read(&part.path).unwrap()).collect()
}

#[test]
fn removing_one_of_two_models_leaves_the_files_of_the_other() {
    let setup = Setup::new();
    let parts = [0, 1].map(|no| gguf(no, 3_000_000, Some((no, 2))));
    let first = setup.fake.ollama(&parts);
    let manifest = setup.fake.world().answers["/v2/library/m/manifests/q"].clone();
    setup.fake.world().answers.insert("/v2/library/m/manifests/other".to_owned(), manifest);
    let second = first.replace(":q", ":other");
    setup.pull(&first).unwrap();
    let model = setup.hub.pull(&setup.offer(&second), &[], &mut |_| true).unwrap();
    assert_eq!(setup.hub.library().remove(&name(&first)).unwrap() / 100_000, 0, "nothing is freed");
    assert!(setup.is_good(&second));
    assert_eq!(content(&model), parts);
    assert!(setup.names(&setup.drive()).is_empty());
    assert!(setup.hub.library().remove(&name(&second)).unwrap() >= 6_000_000);
}

#[test]
fn removing_a_model_leaves_files_that_were_imported() {
    let setup = Setup::new();
    let first = setup.fake.ollama(&[gguf(1, 3_000_000, None)]);
    setup.pull(&first).unwrap();
    let library = setup.hub.library();
    library.import(&setup.drive().join("m-q.gguf"), &name("mine")).unwrap();
    library.remove(&name(&first)).unwrap();
    library.prune(true, false).unwrap();
    let mine = library.find(&name("mine")).unwrap().unwrap();
    library.runnable(&mine).unwrap();
    library.remove(&name("mine")).unwrap();
    assert_eq!(setup.names(&setup.drive()), ["m-q.gguf"], "it is the user's by now");
}

#[test]
fn links_to_other_programs_files_are_removed_without_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("ollama/blobs");
    let lost = folder.path().join("library/files/h/o/m/t@0");
    fs::create_dir_all(&store).unwrap();
    fs::create_dir_all(&lost).unwrap();
    fs::write(store.join("sha256-x"), "x").unwrap();
    for link in ["sha256-x", "m.gguf"] {
        std::os::unix::fs::symlink(store.join("sha256-x"), lost.join(link)).unwrap();
    }
    let mut settings = Settings::new(folder.path().join("library"));
    settings.ollama = Some(folder.path().join("ollama"));
    let library = Hub::new(settings).library().clone();
    assert_eq!(library.prune(false, false).unwrap().paths, std::slice::from_ref(&lost));
    assert!(!lost.exists() && store.join("sha256-x").is_file());
}

#[test]
fn what_an_unfinished_pull_wrote_to_another_folder_goes_with_it() {
    for way in ["rm", "prune"] {
        let setup = Setup::new();
        let first = setup.fake.ollama(&[gguf(1, 20_000_000, None)]);
        setup.stop(&first, &[setup.drive()], 8_000_000);
        assert_eq!(setup.names(&setup.drive()), ["m-q.gguf.partial"]);
        let library = setup.hub.library();
        assert!(library.prune(false, false).unwrap().paths.is_empty(), "it may be continued");
        let freed = match way {
            "rm" => library.remove(&name(&first)).unwrap(),
            _ => {
                let bytes = library.prune(true, true).unwrap().bytes;
                assert_eq!(library.prune(true, false).unwrap().bytes, bytes, "as it said");
                bytes
            }
        };
        assert!(freed >= 8_000_000, "{way}: {freed}");
        assert!(setup.names(&setup.drive()).is_empty(), "{way}");
        setup.pull(&first).unwrap();
        assert!(setup.is_good(&first));
    }
}

#[test]
fn a_new_revision_replaces_what_an_unfinished_pull_left() {
    for to_drive in [true, false] {
        let setup = Setup::new();
        let [old, new] = [1, 2].map(|seed| gguf(seed, 20_000_000, None));
        let first = setup.fake.ollama(std::slice::from_ref(&old));
        setup.stop(&first, &[setup.drive()], 8_000_000);
        assert_eq!(setup.fake.ollama(std::slice::from_ref(&new)), first);
        let targets = if to_drive { vec![setup.drive()] } else { Vec::new() };
        let model = setup.hub.pull(&setup.offer(&first), &targets, &mut |_| true).unwrap();
        assert_eq!(content(&model), [new]);
        let left: &[&str] = if to_drive { &["m-q.gguf"] } else { &[] };
        assert_eq!(setup.names(&setup.drive()), left);
        assert!(setup.hub.library().list().partials.is_empty());
        assert!(setup.hub.library().prune(true, false).unwrap().paths.is_empty());
    }
}

/// The first part has arrived, of one revision; in the next, it has another content and the same
/// length.
#[test]
fn whole_parts_of_an_earlier_revision_are_not_taken_for_new_ones() {
    let setup = Setup::new();
    let part = |seed, no, size| gguf(seed, size, Some((no, 2)));
    let [old, new] = [1, 2].map(|seed| [part(seed, 0, 100_000), part(seed, 1, 20_000_000)]);
    let first = setup.fake.ollama(&old);
    setup.stop(&first, &[setup.drive()], 8_000_000);
    let whole = setup.drive().join("m-q-00001-of-00002.gguf");
    assert!(whole.is_file(), "{:?}", setup.names(&setup.drive()));
    setup.fake.ollama(&new);
    assert_eq!(content(&setup.pull(&first).unwrap()), new);
    assert!(setup.is_good(&first));
}

#[test]
fn what_a_new_revision_has_in_common_with_an_unfinished_pull_is_not_fetched_again() {
    for targets in [vec![], vec!["drive"]] {
        let setup = Setup::new();
        let targets: Vec<_> = targets.iter().map(|name| setup.folder.path().join(name)).collect();
        let part = |seed, no| gguf(seed, 12_000_000, Some((no, 3)));
        let old = [part(1, 0), part(1, 1), part(1, 2)];
        let new = [part(1, 0), part(1, 1), part(2, 2)];
        let first = setup.fake.ollama(&old);
        setup.stop(&first, &targets, 24_000_000);
        assert_eq!(setup.hub.library().list().partials.len(), 1);
        setup.fake.ollama(&new);
        let offer = setup.offer(&first);
        let mut resumed = 0;
        let model = setup.hub.pull(&offer, &targets, &mut |progress| {
            resumed = resumed.max(progress.resumed);
            true
        });
        assert_eq!(content(&model.unwrap()), new);
        assert!(resumed > 8_000_000, "{resumed}");
        assert!(setup.is_good(&first));
        assert!(setup.hub.library().list().partials.is_empty());
    }
}

#[test]
fn a_file_without_a_hash_that_changed_is_begun_again() {
    let setup = Setup::new();
    let [old, new] = [1, 2].map(|seed| gguf(seed, 20_000_000, None));
    let first = format!("http://{}/files/a.gguf", setup.fake.cdn);
    for (bytes, stopped) in [(&old, true), (&new, false)] {
        setup.fake.world().blobs.insert("/files/a.gguf".to_owned(), bytes.clone().into());
        if stopped {
            setup.stop(&first, &[], 8_000_000);
        }
    }
    let model = setup.hub.pull(&setup.offer(&first), &[], &mut |_| true).unwrap();
    assert_eq!(content(&model), std::slice::from_ref(&new));
    assert_eq!(model.files[0].sha256, Some(Sha256::of(&new)), "it is known from here on");
    assert!(setup.is_good(&first));
    assert_eq!(setup.hub.library().list().partials.len(), 0);
}

#[test]
fn unfinished_pulls_of_a_pinned_revision_are_another_models() {
    let setup = Setup::new();
    let bytes = gguf(1, 20_000_000, None);
    setup.fake.hugging_face(&[("m-Q4_0.gguf", &bytes)]);
    {
        let mut world = setup.fake.world();
        let info = world.answers["/api/models/o/r/revision/main"].clone();
        world.answers.insert("/api/models/o/r/revision/v1".to_owned(), info);
    }
    setup.stop("o/r@v1:Q4_0", &[], 8_000_000);
    let library = setup.hub.library();
    assert!(library.headers(&name("o/r:Q4_0")).is_none());
    assert!(matches!(library.remove(&name("o/r:Q4_0")), Err(Error::NotHere { .. })));
    assert_eq!(library.list().partials.len(), 1);
    library.remove(&name("o/r@v1:q4_0")).unwrap();
    assert!(library.list().partials.is_empty());
}

/// Pulling again repairs a model: a file that was written to is hashed before it is trusted.
#[test]
fn a_file_that_was_damaged_later_is_fetched_again() {
    for to_drive in [true, false] {
        let setup = Setup::new();
        let parts = [0, 1].map(|no| gguf(no, 3_000_000, Some((no, 2))));
        let first = setup.fake.ollama(&parts);
        let targets = if to_drive { vec![setup.drive()] } else { Vec::new() };
        let pull = || setup.hub.pull(&setup.offer(&first), &targets, &mut |_| true).unwrap();
        let model = pull();
        let file = fs::canonicalize(&model.files[1].path).unwrap();
        let mut bytes = parts[1].clone();
        bytes[5000] ^= 1;
        fs::write(&file, bytes).unwrap();
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
        fs::File::options().write(true).open(&file).unwrap().set_modified(later).unwrap();
        assert!(setup.hub.installed(&setup.offer(&first)).is_none());
        assert_eq!(content(&pull()), parts);
        assert!(setup.is_good(&first));
        // One that was only touched is hashed, and not fetched.
        let later = later + std::time::Duration::from_secs(5);
        fs::File::options().write(true).open(&file).unwrap().set_modified(later).unwrap();
        let sent = setup.fake.world().sent;
        assert_eq!(content(&pull()), parts);
        assert!(setup.is_good(&first) && setup.hub.installed(&setup.offer(&first)).is_some());
        let headers = 3 * 2 * (600 << 10);
        assert!(setup.fake.world().sent - sent <= headers, "headers alone");
    }
}

#[test]
fn a_file_without_a_hash_is_fetched_again_once_it_has_changed() {
    let setup = Setup::new();
    let first = format!("http://{}/files/a.gguf", setup.fake.cdn);
    for seed in [1, 2] {
        let bytes = gguf(seed, 2_000_000, None);
        setup.fake.world().blobs.insert("/files/a.gguf".to_owned(), bytes.clone().into());
        let model = setup.hub.pull(&setup.offer(&first), &[], &mut |_| true).unwrap();
        assert_eq!(content(&model), [bytes]);
        assert!(setup.hub.installed(&setup.offer(&first)).is_some());
    }
}
