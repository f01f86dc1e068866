//! What services and the way to them do wrong: a fault that passes costs time alone, one that stays
//! is an error that says so, and nothing is listed, lost, or written outside its place.

#![allow(clippy::unwrap_used)] // as in tests

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use cachalot_hub::{Error, Hub, Model, Name, Progress, Sha256};
use common::{Fake, Fault, gguf};

const SIZE: usize = 9_000_000;

fn pull(hub: &Hub, name: &str) -> Result<Model, Error> {
    let offer = hub.resolve(&name.parse()?)?;
    hub.pull(&offer, &[], &mut |_| true)
}

fn content(model: &Model) -> Vec<u8> {
    fs::read(&model.files[0].path).unwrap()
}

/// Apparent bytes of all files below.
fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let size = |path: &Path| {
        if path.is_dir() { bytes_below(path) } else { path.metadata().unwrap().len() }
    };
    entries.map(|entry| size(&entry.path())).sum()
}

fn all() -> Vec<Fault> {
    vec![
        Fault::Cut(0),
        Fault::Cut(100_000),
        Fault::Status(500, None),
        Fault::Status(503, Some(("retry-after", "0"))),
        Fault::Status(429, Some(("ratelimit", "\"resolvers\";r=0;t=0"))),
        Fault::Status(416, None),
        Fault::Status(403, None),
        Fault::IgnoreRange,
        Fault::Html,
        Fault::Compressed,
        Fault::OtherRange,
        Fault::OtherTotal,
        Fault::Endless,
        Fault::Stall(50_000),
        Fault::Trickle,
        Fault::WrongByte,
        Fault::OtherTag,
    ]
}

#[test]
fn a_fault_that_passes_does_no_harm() {
    for fault in all() {
        let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
        let bytes = gguf(1, SIZE, None);
        let name = fake.ollama(std::slice::from_ref(&bytes));
        let mut settings = fake.settings(folder.path());
        if matches!(fault, Fault::Stall(_) | Fault::Trickle) {
            // On a busy machine more connections than the two count as stalled.
            (settings.stall, settings.tries) = (Duration::from_millis(400), u32::MAX);
        }
        let hub = Hub::new(settings);
        let offer = hub.resolve(&name.parse().unwrap()).unwrap();
        {
            let mut world = fake.world();
            world.spare = 2;
            world.faults.extend([fault.clone(), fault.clone()]);
            if [Fault::WrongByte, Fault::OtherTag].contains(&fault) {
                world.faults.pop_back();
            }
        }
        let mut last = Progress::default();
        let model = hub.pull(&offer, &[], &mut |progress| {
            assert!(progress.done >= last.done && progress.verified >= last.verified);
            assert!(progress.total >= last.total && progress.done <= progress.total, "{fault:?}");
            last = progress.clone();
            true
        });
        let model = model.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(content(&model), bytes, "{fault:?}");
        assert_eq!(last.verified, model.size(), "{fault:?}");
        assert!(fake.world().faults.is_empty(), "{fault:?} happened");
    }
}

#[test]
fn a_fault_that_stays_is_an_error_and_nothing_grows() {
    for fault in all() {
        match fault {
            Fault::OtherTag => continue, // a tag that is another each time: below
            // Each attempt brings something: that is slow, but no end.
            Fault::Cut(100_000) | Fault::Stall(_) | Fault::Trickle => continue,
            _ => {}
        }
        let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
        let bytes = gguf(2, SIZE, None);
        let name: Name = fake.ollama(std::slice::from_ref(&bytes)).parse().unwrap();
        let mut settings = fake.settings(folder.path());
        settings.tries = 3;
        let hub = Hub::new(settings);
        let offer = hub.resolve(&name).unwrap();
        {
            let mut world = fake.world();
            (world.spare, world.always) = (1, Some(fault.clone()));
        }
        let error = hub.pull(&offer, &[], &mut |_| true).unwrap_err();
        let said = error.to_string();
        assert!(said.len() > 30 && said.len() < 500, "{fault:?}: {said}");
        if fault == Fault::WrongByte {
            assert!(matches!(error, Error::WrongHash { .. }), "{said}");
            assert!(said.contains("m-q.gguf"), "the file is named: {said}");
        }
        assert!(hub.library().list().models.is_empty(), "{fault:?}");
        assert!(bytes_below(folder.path()) < 2 * SIZE as u64 + 2_000_000, "{fault:?}");
        // Once the fault has gone, the same command continues.
        fake.world().always = None;
        let model = hub.pull(&offer, &[], &mut |_| true);
        assert_eq!(
            content(&model.unwrap_or_else(|e| panic!("{fault:?}: {e}"))),
            bytes,
            "{fault:?}"
        );
    }
}

#[test]
fn a_file_that_is_replaced_under_way_is_noticed() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let name = fake.ollama(&[gguf(3, SIZE, None)]);
    let hub = Hub::new(fake.settings(folder.path()));
    let offer = hub.resolve(&name.parse().unwrap()).unwrap();
    fake.world().always = Some(Fault::OtherTag);
    let error = hub.pull(&offer, &[], &mut |_| true).unwrap_err();
    assert!(matches!(error, Error::Changed { .. }), "{error}");
    assert!(error.to_string().contains("m-q.gguf"), "{error}");
}

#[test]
fn signed_addresses_are_renewed() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let bytes = gguf(4, 30_000_000, None);
    let name = fake.ollama(std::slice::from_ref(&bytes));
    fake.world().uses = Some(2);
    let hub = Hub::new(fake.settings(folder.path()));
    assert_eq!(content(&pull(&hub, &name).unwrap()), bytes);
    assert!(fake.world().signed.len() > 3, "{:?}", fake.world().signed);
}

#[test]
fn signed_addresses_may_be_good_for_one_use() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let bytes = gguf(14, 60_000_000, None);
    let name = fake.ollama(std::slice::from_ref(&bytes));
    fake.world().uses = Some(1);
    let mut settings = fake.settings(folder.path());
    (settings.connections, settings.tries) = (16, 3);
    assert_eq!(content(&pull(&Hub::new(settings), &name).unwrap()), bytes);
}

#[test]
fn a_wrong_range_is_fetched_again_alone_where_its_hash_is_known() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let bytes = gguf(5, 80_000_000, None);
    let name = fake.ollama(std::slice::from_ref(&bytes));
    let step = 10_000_000;
    let sums: String = bytes
        .chunks(step)
        .enumerate()
        .map(|(i, chunk)| {
            let start = i * step;
            format!("sha256:{} {start}-{}\n", Sha256::of(chunk), start + chunk.len() - 1)
        })
        .collect();
    let path = format!("/v2/library/m/chunksums/sha256:{}", Sha256::of(&bytes));
    fake.world().answers.insert(path, (200, vec![], sums.into_bytes()));
    let hub = Hub::new(fake.settings(folder.path()));
    let offer = hub.resolve(&name.parse().unwrap()).unwrap();
    {
        let mut world = fake.world();
        (world.spare, world.sent) = (3, 0);
        world.faults.push_back(Fault::WrongByte);
    }
    let mut again = false;
    let model = hub.pull(&offer, &[], &mut |progress| {
        again |= progress.files[0].again;
        true
    });
    assert_eq!(content(&model.unwrap()), bytes);
    assert!(again);
    let (sent, size) = (fake.world().sent, bytes.len() as u64);
    assert!(sent > size && sent < size + 20_000_000, "{sent} bytes were sent for {size}");
}

#[test]
fn plain_registries_and_those_with_tokens_for_anybody_work() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let bytes = gguf(6, 3_000_000, None);
    let name = fake.ollama(std::slice::from_ref(&bytes));
    {
        let mut world = fake.world();
        let redirects = std::mem::take(&mut world.redirects);
        world.plain = redirects.into_iter().map(|(from, (to, _))| (from, to)).collect();
    }
    let hub = Hub::new(fake.settings(folder.path()));
    assert_eq!(content(&pull(&hub, &name).unwrap()), bytes);
    assert!(fake.world().seen.iter().all(|seen| !seen.cdn));
}

#[test]
fn redirects_lead_nowhere_else() {
    for (to, reason) in [
        ("file:///etc/passwd", "file:"),
        ("ftp://127.0.0.1/x", "ftp:"),
        ("http://192.0.2.1/x", "plain http"),
        ("", "circle"),
    ] {
        let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
        let name = fake.ollama(&[gguf(7, 100_000, None)]);
        fake.world().always = Some(Fault::Redirect(to));
        let hub = Hub::new(fake.settings(folder.path()));
        let error = hub.resolve(&name.parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains(reason), "{to}: {error}");
    }
}

#[test]
fn plain_http_is_for_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::start();
    let mut settings = fake.settings(folder.path());
    settings.endpoint = "http://192.0.2.1".to_owned();
    let error = Hub::new(settings).resolve(&"a/b".parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("--insecure"), "{error}");
}

#[test]
fn manifests_and_listings_with_tricks_are_refused() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let name = fake.ollama(&[gguf(8, 1000, None)]);
    let hub = Hub::new(fake.settings(folder.path()));
    let layer = |digest: &str, size: &str| {
        format!(
            r#"{{"layers":[{{"mediaType":"application/vnd.ollama.image.model","digest":"{digest}","size":{size}}}]}}"#
        )
    };
    let hash = "a".repeat(64);
    for (body, reason) in [
        (layer("sha256:../../../../etc/passwd", "1"), "not a SHA-256"),
        (layer(&"z".repeat(64), "1"), "not a SHA-256"),
        (layer(&format!("sha256:{hash}"), "-1"), "not the manifest"),
        (layer(&format!("sha256:{hash}"), "18446744073709551615"), "404"),
        ("<html>".to_owned(), "not the manifest"),
        ("x".repeat(5 << 20), "longer"),
    ] {
        let path = "/v2/library/m/manifests/q".to_owned();
        fake.world().answers.insert(path, (200, vec![], body.clone().into_bytes()));
        let error = hub.resolve(&name.parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains(reason), "{}: {error}", &body[..body.len().min(200)]);
    }
    let repository = fake.hugging_face(&[("../../x.gguf", b"x")]);
    let error = hub.resolve(&repository.parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("path"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was written");
}

#[test]
fn without_room_nothing_is_fetched() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let claimed = 1_u64 << 49;
    let mut header = gguf(9, 1000, None);
    // A tensor that makes the file as long as it claims to be.
    let mut writer = cachalot_gguf::write::Writer::default();
    writer.metadata.insert("general.architecture", "deepseek2");
    let numbers = (claimed - 4096) / 4;
    writer.tensor("x", cachalot_gguf::TensorType::F32, &[numbers]).unwrap();
    let (bytes, _) = writer.header().unwrap();
    header[..bytes.len()].copy_from_slice(&bytes);
    let name = fake.ollama(std::slice::from_ref(&header));
    {
        let mut world = fake.world();
        world.claimed = Some(claimed);
        let (_, _, body) = world.answers.get_mut("/v2/library/m/manifests/q").unwrap();
        let text = String::from_utf8(body.clone()).unwrap();
        *body = text
            .replacen(&format!("\"size\":{}", header.len()), &format!("\"size\":{claimed}"), 1)
            .into_bytes();
    }
    let hub = Hub::new(fake.settings(folder.path()));
    let offer = hub.resolve(&name.parse().unwrap()).unwrap();
    let room = hub.room(&offer, &[]).unwrap();
    assert!(room[0].needed >= claimed && room[0].free < claimed, "{room:?}");
    let before = fake.world().sent;
    match hub.pull(&offer, &[], &mut |_| true) {
        Err(Error::NoSpace { needed, free, .. }) => assert!(needed >= claimed && free < claimed),
        other => panic!("{other:?}"),
    }
    assert_eq!(fake.world().sent, before);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let name = fake.ollama(&[gguf(10, 100_000, None)]);
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let hub = Hub::new(fake.settings(&folder.path().join("library")));
    let offer = hub.resolve(&name.parse().unwrap()).unwrap();
    let error = hub.pull(&offer, &[file.join("below")], &mut |_| true).unwrap_err().to_string();
    assert!(error.contains("file/below"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"x");
    let hub = Hub::new(fake.settings(&file));
    let error = hub.pull(&offer, &[], &mut |_| true).unwrap_err().to_string();
    assert!(error.contains("file"), "{error}");
}

#[test]
fn a_partial_state_that_makes_no_sense_is_begun_again() {
    for damage in 0..5 {
        let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
        let bytes = gguf(11, 20_000_000, None);
        let name: Name = fake.ollama(std::slice::from_ref(&bytes)).parse().unwrap();
        let mut settings = fake.settings(folder.path());
        settings.limit = Some(40_000_000);
        let hub = Hub::new(settings);
        let offer = hub.resolve(&name).unwrap();
        hub.pull(&offer, &[], &mut |progress| progress.done < 12_000_000).unwrap_err();
        let partial = hub.library().list().partials.remove(0).folder;
        let pull = partial.join(".pull");
        let journal = pull.join("m-q.gguf.journal");
        match damage {
            0 => fs::write(&journal, common::noise(1, 5000)).unwrap(),
            1 => {
                let mut bytes = fs::read(&journal).unwrap();
                let last = bytes.len() - 3;
                bytes[last] ^= 0x55;
                fs::write(&journal, bytes).unwrap();
            }
            2 => fs::write(pull.join("pull.json"), b"{\"version\":1}").unwrap(),
            3 => fs::File::options()
                .write(true)
                .open(partial.join("m-q.gguf.partial"))
                .unwrap()
                .set_len(1000)
                .unwrap(),
            _ => fs::remove_file(partial.join("m-q.gguf.partial")).unwrap(),
        }
        hub.library().list(); // no panic
        let model = hub.pull(&offer, &[], &mut |_| true).unwrap();
        assert_eq!(content(&model), bytes, "{damage}");
    }
}

#[test]
fn a_service_that_asks_for_an_hour_is_not_waited_for() {
    let (fake, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let name = fake.ollama(&[gguf(12, SIZE, None)]);
    let hub = Hub::new(fake.settings(folder.path()));
    let offer = hub.resolve(&name.parse().unwrap()).unwrap();
    fake.world().always = Some(Fault::Status(429, Some(("retry-after", "3600"))));
    let error = hub.pull(&offer, &[], &mut |_| true).unwrap_err();
    assert!(matches!(error, Error::Busy { seconds: 3600, .. }), "{error}");
}
