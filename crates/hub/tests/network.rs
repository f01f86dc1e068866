//! The way to the services: proxies, redirects within a host, tokens of registries; and drives that
//! fill up meanwhile.

#![allow(clippy::unwrap_used)] // as in tests

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use cachalot_hub::{Error, Hub, Model, Sha256};
use common::{Fake, gguf, noise};

fn pull(hub: &Hub, name: &str) -> Result<Model, Error> {
    let offer = hub.resolve(&name.parse()?)?;
    hub.pull(&offer, &[], &mut |_| true)
}

fn content(model: &Model) -> Vec<u8> {
    fs::read(&model.files[0].path).unwrap()
}

#[test]
fn a_proxy_is_asked_but_for_the_hosts_it_is_not_for() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let bytes = gguf(1, 3_000_000, None);
    fake.ollama(std::slice::from_ref(&bytes));
    {
        let mut world = fake.world();
        let redirects = std::mem::take(&mut world.redirects);
        world.plain = redirects.into_iter().map(|(from, (to, _))| (from, to)).collect();
    }
    let mut settings = fake.settings(folder.path());
    settings.insecure = true; // or plain http, which the proxy can read, stays on this machine
    settings.proxies.http = Some(fake.origin.to_string());
    settings.proxies.none = Some("127.0.0.1,other.invalid".to_owned());
    settings.tries = 1;
    let hub = Hub::new(settings);
    // There are no such hosts: the proxy alone can answer.
    let model = pull(&hub, "http://models.invalid/library/m:q").unwrap();
    assert_eq!(content(&model), bytes);
    assert!(fake.world().seen.iter().all(|seen| seen.host == "models.invalid"));
    let error = pull(&hub, "http://other.invalid/library/m:q").unwrap_err();
    assert!(matches!(error, Error::GaveUp { .. }), "asked directly, it is not there: {error}");
    fake.world().seen.clear();
    pull(&hub, &format!("{}/library/m:q", fake.origin)).unwrap();
    assert!(fake.world().seen.iter().all(|seen| seen.host == fake.origin.to_string()));
}

#[test]
fn a_relative_redirect_stays_on_its_host_and_keeps_the_token() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let bytes = gguf(2, 200_000, None);
    let name = fake.hugging_face(&[("M-Q4_0.gguf", &bytes)]);
    {
        let mut world = fake.world();
        let redirects = std::mem::take(&mut world.redirects);
        for (number, (from, (blob, _))) in redirects.into_iter().enumerate() {
            let to = format!("/api/resolve-cache/{number}");
            world.answers.insert(from, (307, vec![("location".to_owned(), to.clone())], vec![]));
            world.plain.insert(to, blob);
        }
        world.token = Some("Bearer secret".to_owned());
    }
    let mut settings = fake.settings(folder.path());
    settings.token = Some("secret".to_owned());
    assert_eq!(content(&pull(&Hub::new(settings), &name).unwrap()), bytes);
    assert!(fake.world().seen.iter().any(|seen| seen.path.starts_with("/api/resolve-cache/")));
}

#[test]
fn a_registry_may_want_a_token_that_it_gives_to_anybody() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let bytes = gguf(3, 5_000_000, None);
    let name = fake.ollama(std::slice::from_ref(&bytes));
    {
        let mut world = fake.world();
        world.token = Some("Bearer for-anybody".to_owned());
        let scope = "repository:library/m:pull";
        let challenge = format!(
            "Bearer realm=\"http://{}/token\",service=\"r\",scope=\"{scope}\"",
            fake.origin
        );
        world.challenge = Some(challenge);
        let body = b"{\"token\":\"for-anybody\"}".to_vec();
        world.answers.insert("/token".to_owned(), (200, vec![], body));
    }
    let mut settings = fake.settings(folder.path());
    // The token of another service, which must not be shown to this registry.
    settings.endpoint = "http://127.0.0.1:9".to_owned();
    settings.token = Some("secret".to_owned());
    assert_eq!(content(&pull(&Hub::new(settings), &name).unwrap()), bytes);
    let world = fake.world();
    let asked = world.seen.iter().find(|seen| seen.path == "/token").unwrap();
    assert!(asked.query.contains("service=r") && asked.query.contains("scope="), "{asked:?}");
    assert!(world.seen.iter().filter(|seen| seen.cdn).all(|seen| seen.authorization.is_none()));
    let secret = |seen: &common::Seen| seen.authorization.as_deref() == Some("Bearer secret");
    assert!(!world.seen.iter().any(secret));
}

/// A small file system in memory, until dropped; `None` where that is not allowed.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(folder: &'a Path, bytes: u64) -> Option<Self> {
        let size = format!("size={bytes}");
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_drive_that_fills_up_meanwhile_is_named_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_small) = Small::mount(folder.path(), 40_000_000) else {
        println!("skipped: a tmpfs cannot be mounted");
        return;
    };
    let fake = Fake::start();
    let bytes = gguf(4, 24_000_000, None);
    let name = fake.ollama(std::slice::from_ref(&bytes));
    let hub = Hub::new(fake.settings(&folder.path().join("library")));
    let offer = hub.resolve(&name.parse().unwrap()).unwrap();
    fake.world().held = Some(12_000_000);
    let other = folder.path().join("other");
    let error = hub.pull(&offer, &[], &mut |progress| {
        if progress.done > 8_000_000 && fake.world().held.is_some() {
            let _ = fs::write(&other, noise(1, 40_000_000)); // as much as there is room for
            fake.world().held = None;
        }
        true
    });
    match error {
        Err(Error::NoSpace { folder: named, needed, free }) => {
            assert!(named.starts_with(folder.path()), "{}", named.display());
            assert!(needed > free, "{needed} {free}");
        }
        other => panic!("{other:?}"),
    }
    let listing = hub.library().list();
    assert!(listing.models.is_empty() && listing.partials[0].done > 0, "{listing:?}");
    fs::remove_file(other).unwrap();
    let model = hub.pull(&offer, &[], &mut |_| true).unwrap();
    assert_eq!(Sha256::of(&content(&model)), Sha256::of(&bytes));
}
