//! Pulls from both services as they should be, and how what was pulled is found again.

#![allow(clippy::unwrap_used)] // as in tests

mod common;

use std::fs;

use cachalot_hub::{Error, Hub, Model, Name, Place, Progress, Role, Sha256};
use common::{Fake, gguf};

fn pull(hub: &Hub, name: &str) -> Result<Model, Error> {
    let offer = hub.resolve(&name.parse()?)?;
    hub.pull(&offer, &[], &mut |_| true)
}

fn content(model: &Model) -> Vec<Vec<u8>> {
    model.parts().map(|part| fs::read(&part.path).unwrap()).collect()
}

#[test]
fn a_model_of_a_registry_arrives() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let bytes = gguf(1, 9_000_000, None);
    let name = fake.ollama(std::slice::from_ref(&bytes));
    let hub = Hub::new(fake.settings(folder.path()));
    let model = pull(&hub, &name).unwrap();
    assert_eq!(content(&model), [bytes]);
    assert_eq!(fs::read(&model.companion(Role::Params).unwrap().path).unwrap()[..5], *b"{\"tem");
    let listing = hub.library().list();
    assert_eq!((listing.models.len(), listing.partials.len()), (1, 0), "{:?}", listing.warnings);
    let found = hub.library().find(&name.parse().unwrap()).unwrap().unwrap();
    let path = hub.library().runnable(&found).unwrap();
    assert!(path.ends_with("m-q.gguf") && path.is_file());
    let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().flatten().collect();
    assert_eq!(left.len(), 3, "the model, params and config alone: {left:?}");
    // Nothing is fetched again.
    let sent = fake.world().sent;
    pull(&hub, &name).unwrap();
    let header = 600 << 10;
    assert!(fake.world().sent <= sent + header, "only the header");
}

#[test]
fn parts_are_ordered_by_their_number_not_by_the_manifest() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let part = |no| gguf(no, 3_000_000, Some((no, 3)));
    let name = fake.ollama(&[part(2), part(0), part(1)]);
    let hub = Hub::new(fake.settings(folder.path()));
    let model = pull(&hub, &name).unwrap();
    assert_eq!(content(&model), [part(0), part(1), part(2)]);
    let path = hub.library().runnable(&model).unwrap();
    assert!(path.ends_with("m-q-00001-of-00003.gguf"));
    assert_eq!(cachalot_gguf::split::Set::open(&path).unwrap().tensors.len(), 3);
}

#[test]
fn a_repository_offers_a_choice_and_its_split_model_arrives() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let part = |no| gguf(10 + no, 5_000_000, Some((no, 2)));
    let (one, two, small) = (part(0), part(1), gguf(9, 100_000, None));
    let name = fake.hugging_face(&[
        ("Q4_K_M/M-Q4_K_M-00002-of-00002.gguf", &two),
        ("Q4_K_M/M-Q4_K_M-00001-of-00002.gguf", &one),
        ("M-Q2_K.gguf", &small),
        ("README.md", b"x"),
    ]);
    fake.world().token = Some("Bearer secret".to_owned());
    let mut settings = fake.settings(folder.path());
    settings.token = Some("secret".to_owned());
    let hub = Hub::new(settings);
    match hub.resolve(&name.parse().unwrap()) {
        Err(Error::Choose { choices, .. }) => assert_eq!(choices, ["Q2_K", "Q4_K_M"]),
        other => panic!("{other:?}"),
    }
    match hub.resolve(&"o/r:Q8_0".parse().unwrap()) {
        Err(Error::NoQuant { choices, .. }) => assert_eq!(choices.len(), 2),
        other => panic!("{other:?}"),
    }
    let model = pull(&hub, "o/r:q4_k_m").unwrap();
    assert_eq!(model.name.to_string(), "o/r:Q4_K_M");
    assert_eq!(content(&model), [one, two]);
    assert!(hub.library().find(&"o/r".parse().unwrap()).unwrap().is_some(), "the only one here");
    let world = fake.world();
    assert!(world.seen.iter().filter(|seen| !seen.cdn).all(|seen| seen.authorization.is_some()));
    assert!(world.seen.iter().filter(|seen| seen.cdn).all(|seen| seen.authorization.is_none()));
    assert!(world.seen.iter().any(|seen| seen.cdn), "the token never went to the other host");
    drop(world);
    let stranger = Hub::new(fake.settings(folder.path()));
    let error = stranger.choices(&name.parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("HF_TOKEN") && error.contains("401"), "{error}");
}

#[test]
fn a_set_that_lacks_a_part_is_refused_before_the_first_byte() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let part = gguf(1, 100_000, Some((0, 3)));
    let name = fake.hugging_face(&[("M-Q4_K_M-00001-of-00003.gguf", &part)]);
    let hub = Hub::new(fake.settings(folder.path()));
    let error = hub.resolve(&name.parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("missing: 2, 3"), "{error}");
    assert_eq!(fake.world().sent, 0);
}

#[test]
fn a_file_at_an_address_arrives() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let bytes = gguf(3, 4_500_000, None);
    fake.world().blobs.insert("/files/a.gguf".to_owned(), bytes.clone().into());
    let hub = Hub::new(fake.settings(folder.path()));
    let name = format!("http://{}/files/a.gguf", fake.cdn);
    let model = pull(&hub, &name).unwrap();
    assert_eq!(content(&model), [bytes]);
    assert_eq!(hub.library().list().models[0].name, name.parse::<Name>().unwrap());
}

#[test]
fn several_folders_share_the_parts() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let part = |no| gguf(20 + no, 3_000_000, Some((no, 2)));
    let name = fake.ollama(&[part(0), part(1)]);
    let hub = Hub::new(fake.settings(&folder.path().join("library")));
    let drives = [folder.path().join("a"), folder.path().join("b")];
    let offer = hub.resolve(&name.parse().unwrap()).unwrap();
    let model = hub.pull(&offer, &drives, &mut |_| true).unwrap();
    for drive in &drives {
        assert_eq!(fs::read_dir(drive).unwrap().count(), 1);
    }
    let path = hub.library().runnable(&model).unwrap();
    assert!(path.is_symlink());
    cachalot_gguf::split::Set::open(&path).unwrap();
    let freed = hub.library().remove(&model.name).unwrap();
    assert!(freed >= 6_000_000, "{freed}");
    assert!(drives.iter().all(|drive| fs::read_dir(drive).unwrap().count() == 0));
}

#[test]
fn two_pulls_of_one_model_are_one() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let bytes = gguf(4, 24_000_000, None);
    let name = fake.ollama(std::slice::from_ref(&bytes));
    let settings = fake.settings(folder.path());
    let first = Hub::new(settings.clone());
    let offer = first.resolve(&name.parse().unwrap()).unwrap();
    let before = fake.world().sent;
    fake.world().held = Some(12_000_000); // until the second one follows
    let (begun, wait) = std::sync::mpsc::channel();
    let (following, follows) = std::sync::mpsc::channel();
    let follower = std::thread::spawn({
        let (hub, offer) = (Hub::new(settings), offer.clone());
        move || {
            wait.recv().unwrap();
            let mut followed: Vec<Progress> = Vec::new();
            let model = hub.pull(&offer, &[], &mut |progress| {
                followed.push(progress.clone());
                following.send(()).is_ok()
            });
            (model, followed)
        }
    });
    let mut told = false;
    let model = first.pull(&offer, &[], &mut |progress| {
        if progress.done > 0 && !std::mem::replace(&mut told, true) {
            begun.send(()).unwrap();
        }
        if follows.try_recv().is_ok() {
            fake.world().held = None;
        }
        true
    });
    let (second, followed) = follower.join().unwrap();
    assert_eq!(content(&model.unwrap()), std::slice::from_ref(&bytes));
    assert_eq!(content(&second.unwrap()), std::slice::from_ref(&bytes));
    assert!(followed.iter().any(|progress| progress.following), "{followed:?}");
    assert!(followed.windows(2).all(|pair| pair[0].done <= pair[1].done));
    assert_eq!(fake.world().sent - before, bytes.len() as u64 + 2 + 19, "each byte once");
}

#[test]
fn a_pull_that_was_stopped_is_listed_shown_and_continued() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let bytes = gguf(5, 40_000_000, None);
    let name: Name = fake.ollama(std::slice::from_ref(&bytes)).parse().unwrap();
    let hub = Hub::new(fake.settings(folder.path()));
    let offer = hub.resolve(&name).unwrap();
    fake.world().held = Some(25_000_000); // so that it cannot end before it is stopped
    let stop = |progress: &Progress| progress.done < 20_000_000;
    let error = hub.pull(&offer, &[], &mut |progress| stop(progress)).unwrap_err();
    assert!(matches!(error, Error::Cancelled));
    let listing = hub.library().list();
    assert!(listing.models.is_empty(), "nothing is listed that is not whole");
    let partial = &listing.partials[0];
    assert!(!partial.running && partial.name == name);
    assert!(partial.done > 10_000_000 && partial.done < partial.size, "{partial:?}");
    let header = hub.library().headers(&name).unwrap();
    assert_eq!(cachalot_gguf::split::Set::open(&header).unwrap().tensors.len(), 1);
    assert!(hub.library().find(&name).unwrap().is_none());
    let (sent, done) = (fake.world().sent, partial.done);
    fake.world().held = None;
    let model = hub.pull(&offer, &[], &mut |_| true).unwrap();
    assert_eq!(content(&model), std::slice::from_ref(&bytes));
    // What was on its way when the first pull stopped may count as sent after it.
    let on_its_way = 8 << 20;
    let limit = bytes.len() as u64 + 100 - done + on_its_way;
    assert!(fake.world().sent - sent <= limit, "what is safe stays");
}

#[test]
fn a_pull_that_was_stopped_can_be_removed() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let name: Name = fake.ollama(&[gguf(6, 20_000_000, None)]).parse().unwrap();
    let hub = Hub::new(fake.settings(folder.path()));
    let offer = hub.resolve(&name).unwrap();
    hub.pull(&offer, &[], &mut |progress| progress.done < 100_000).unwrap_err();
    assert!(hub.library().prune(false, false).unwrap().paths.is_empty(), "partials are kept");
    hub.library().remove(&name).unwrap();
    assert!(hub.library().list().partials.is_empty());
    assert!(matches!(hub.library().remove(&name), Err(Error::NotHere { .. })));
}

#[test]
fn a_newer_revision_replaces_the_model() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let (old, new) = (gguf(7, 3_000_000, None), gguf(8, 3_000_000, None));
    let hub = Hub::new(fake.settings(folder.path()));
    let name = fake.ollama(std::slice::from_ref(&old));
    pull(&hub, &name).unwrap();
    assert_eq!(fake.ollama(std::slice::from_ref(&new)), name);
    assert_eq!(content(&pull(&hub, &name).unwrap()), [new]);
    let pruned = hub.library().prune(false, false).unwrap();
    assert_eq!(pruned.paths.len(), 1, "the older files: {pruned:?}");
    assert_eq!(hub.library().list().models.len(), 1);
}

#[test]
fn offline_nothing_is_asked() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let name = fake.ollama(&[gguf(1, 1000, None)]);
    let mut settings = fake.settings(folder.path());
    settings.offline = true;
    let error = Hub::new(settings).resolve(&name.parse().unwrap()).unwrap_err();
    assert!(matches!(error, Error::Offline { .. }), "{error}");
    assert!(fake.world().seen.is_empty());
}

#[test]
fn the_same_content_is_fetched_once_for_two_names() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let bytes = gguf(30, 6_000_000, None);
    let name = fake.ollama(std::slice::from_ref(&bytes));
    let hub = Hub::new(fake.settings(folder.path()));
    pull(&hub, &name).unwrap();
    let manifest = fake.world().answers["/v2/library/m/manifests/q"].clone();
    fake.world().answers.insert("/v2/library/m/manifests/other".to_owned(), manifest);
    let sent = fake.world().sent;
    let model = pull(&hub, &name.replace(":q", ":other")).unwrap();
    assert_eq!(content(&model), [bytes]);
    assert!(fake.world().sent - sent < 1_000_000, "the header alone");
    hub.library().remove(&name.parse().unwrap()).unwrap();
    assert_eq!(Sha256::of(&content(&model)[0]), model.files[0].sha256.unwrap(), "still there");
    assert_eq!(model.place, Place::Library);
}
