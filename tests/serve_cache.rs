//! Keys and values that outlive the server: the prefix cache, and slots that are saved.
#![allow(clippy::unwrap_used)] // this is a test

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::server::Server;
use serde_json::{Value, json};

/// A prompt of several pages.
fn prompt() -> String {
    "12 + 30 = 42. How many r's are in strawberry? ".repeat(12)
}

fn ask(server: &Server, more: &Value) -> Value {
    let mut body =
        json!({ "prompt": prompt(), "n_predict": 40, "temperature": 0, "ignore_eos": true });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    server.post("/completion", &body).json()
}

/// Ends a server in order, which writes all that is left.
fn end(mut server: Server) {
    server.signal("TERM");
    assert!(server.wait().success());
}

fn pages(folder: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = folders
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

#[test]
fn an_answer_is_the_same_after_a_restart_with_what_was_cached() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let args = ["--reproducible", "--prefix-cache", cache.to_str().unwrap()];
    let server = Server::start(&args);
    let first = ask(&server, &json!({}));
    let evaluated = first["tokens_evaluated"].as_u64().unwrap();
    assert!(evaluated > 130, "the prompt has several pages: {evaluated}");
    assert_eq!(first["timings"]["cache_n"], 0);
    end(server);
    let written = pages(&cache);
    assert!(written.len() as u64 >= evaluated / 64, "{written:?}");

    let server = Server::start(&args);
    let again = ask(&server, &json!({}));
    assert_eq!(again["content"], first["content"]);
    assert_eq!(again["tokens"], first["tokens"]);
    // all full pages before the last token
    let expected = (evaluated - 1) / 64 * 64;
    assert_eq!(again["timings"]["cache_n"], expected, "{again}");
    let chat = json!({ "messages": [{ "role": "user", "content": prompt() }], "max_tokens": 1 });
    let usage = |server: &Server| {
        let answer = server.post("/v1/chat/completions", &chat).json();
        answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
    };
    usage(&server);
    end(server);
    let server = Server::start(&args);
    assert!(usage(&server) >= 128, "it is reported in every dialect");
    end(server);

    // Another way of computing finds nothing there.
    let server = Server::start(&args[1..]);
    assert_eq!(ask(&server, &json!({}))["timings"]["cache_n"], 0);
    end(server);
    assert!(pages(&cache).len() > written.len(), "it has a folder of its own");
}

#[test]
fn damaged_pages_are_computed_again() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--reproducible", "--prefix-cache", folder.path().to_str().unwrap()];
    let server = Server::start(&args);
    let first = ask(&server, &json!({}));
    end(server);
    let damage: [&dyn Fn(&Path); 5] = [
        &|file| fs::write(file, "").unwrap(),
        &|file| fs::write(file, "cachalot kv v1\r\n nothing else").unwrap(),
        &|file| {
            let mut bytes = fs::read(file).unwrap();
            // some were damaged before, and not asked for since
            let last = bytes.len().saturating_sub(100);
            if let Some(byte) = bytes.get_mut(last) {
                *byte ^= 4;
            }
            fs::write(file, bytes).unwrap();
        },
        &|file| {
            let bytes = fs::read(file).unwrap();
            fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
        },
        &|file| {
            fs::remove_file(file).unwrap();
            fs::create_dir(file).unwrap();
        },
    ];
    for (i, damage) in damage.iter().enumerate() {
        let files = pages(folder.path());
        assert!(files.len() > 2, "damage {i}: {files:?}");
        files.iter().for_each(|file| damage(file));
        let server = Server::start(&args);
        let again = ask(&server, &json!({}));
        assert_eq!(
            (&again["content"], &again["timings"]["cache_n"]),
            (&first["content"], &json!(0)),
            "damage {i}"
        );
        end(server);
        if i == 4 {
            break; // folders are not ours to remove
        }
        // what was computed again is there again
        let server = Server::start(&args);
        let cached = ask(&server, &json!({}))["timings"]["cache_n"].as_u64().unwrap();
        assert!(cached >= 128, "damage {i}: {cached}");
        end(server);
    }
}

#[test]
fn the_folder_does_not_become_larger_than_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let server = Server::start(&["--prefix-cache", path]);
    ask(&server, &json!({}));
    end(server);
    let size: u64 = pages(folder.path()).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    let half = (size / 2).to_string();
    let server = Server::start(&["--prefix-cache", path, "--prefix-cache-size", &half]);
    ask(&server, &json!({ "prompt": format!("Another text. {}", prompt()) }));
    end(server);
    let size: u64 = pages(folder.path()).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(0 < size && size <= half.parse().unwrap(), "{size} of {half}");
}

#[test]
fn slots_are_saved_restored_and_erased() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--parallel", "2", "--slot-save-path", folder.path().to_str().unwrap()];
    let server = Server::start(&args);
    let act = |server: &Server, id: usize, action: &str, name: &str| {
        server.post(&format!("/slots/{id}?action={action}"), &json!({ "filename": name }))
    };
    let first = ask(&server, &json!({ "id_slot": 1 }));
    let saved = act(&server, 1, "save", "a.bin").json();
    // the last token that was generated has no keys and values yet
    let all = first["tokens_evaluated"].as_u64().unwrap() + 39;
    assert_eq!((&saved["id_slot"], &saved["n_saved"]), (&json!(1), &json!(all)), "{saved}");
    let size = fs::metadata(folder.path().join("a.bin")).unwrap().len();
    assert_eq!(saved["n_written"], size);

    let erased = act(&server, 1, "erase", "").json();
    assert!(erased["n_erased"].as_u64().unwrap() >= all, "{erased}");
    assert_eq!(ask(&server, &json!({ "id_slot": 1 }))["timings"]["cache_n"], 0);
    end(server);

    let server = Server::start(&args);
    let restored = act(&server, 0, "restore", "a.bin").json();
    assert_eq!((&restored["n_restored"], &restored["n_read"]), (&json!(all), &json!(size)));
    let again = ask(&server, &json!({ "id_slot": 0 }));
    assert_eq!(again["content"], first["content"]);
    let evaluated = first["tokens_evaluated"].as_u64().unwrap();
    assert_eq!(again["timings"]["cache_n"], evaluated - 1, "{again}");

    for (id, action, name, status) in [
        (0, "restore", "none.bin", 400),
        (0, "restore", "../a.bin", 400),
        (0, "save", "", 400),
        (0, "dance", "a.bin", 400),
        (7, "save", "a.bin", 400),
    ] {
        assert_eq!(act(&server, id, action, name).status, status, "{id} {action} {name}");
    }
    fs::write(folder.path().join("bad.bin"), "not pages").unwrap();
    assert_eq!(act(&server, 0, "restore", "bad.bin").status, 400);
    let without = Server::start(&[]);
    assert_eq!(act(&without, 0, "save", "a.bin").status, 501);
}
