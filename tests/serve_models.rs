//! Ollama's requests about models, over real sockets: pull, list, copy, delete; and a server whose
//! model is named as in the library.
#![allow(clippy::unwrap_used)] // this is a test

mod common;

use common::registry::Registry;
use common::server::{Response, Server};
use common::{calf, fails, succeeds};
use serde_json::{Value, json};

fn delete(server: &Server, name: &str) -> Response {
    let body = json!({ "model": name }).to_string();
    server.send("DELETE", "/api/delete", &["content-type: application/json"], &body)
}

fn names(server: &Server) -> Vec<String> {
    let tags = server.get("/api/tags").json();
    let name = |model: &Value| model["name"].as_str().unwrap().to_owned();
    tags["models"].as_array().unwrap().iter().map(name).collect()
}

#[test]
fn a_model_is_pulled_listed_copied_and_deleted() {
    let (registry, folder) = (Registry::start(), tempfile::tempdir().unwrap());
    let server = Server::start_with(&[], |command| registry.environment(command, folder.path()));
    assert_eq!(names(&server), ["calf"]);
    let name = registry.name();
    let pulled = server.post("/api/pull", &json!({ "model": name }));
    assert_eq!((pulled.status, pulled.header("content-type")), (200, Some("application/x-ndjson")));
    let lines: Vec<Value> =
        pulled.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let status = |index: usize| lines[index]["status"].as_str().unwrap();
    assert_eq!(status(0), "pulling manifest");
    let size = std::fs::metadata(calf()).unwrap().len();
    let mut last = 0;
    for line in lines.iter().filter(|line| !line["digest"].is_null()) {
        let digest = line["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        assert_eq!(line["status"], format!("pulling {}", &digest[..12]));
        assert_eq!(line["total"], size);
        assert!(line["completed"].as_u64().unwrap() >= last);
        last = line["completed"].as_u64().unwrap();
    }
    assert_eq!(last, size);
    let ends: Vec<&str> = (lines.len() - 3..lines.len()).map(status).collect();
    assert_eq!(ends, ["verifying sha256 digest", "writing manifest", "success"]);

    assert_eq!(names(&server), ["calf".to_owned(), name.clone()]);
    let entry = server.get("/api/tags").json()["models"][1].clone();
    assert_eq!((&entry["size"], &entry["details"]["family"]), (&json!(size), &json!("deepseek2")));
    assert_eq!(entry["digest"].as_str().unwrap().len(), 64);

    let copy = |source: &str, target: &str| {
        server.post("/api/copy", &json!({ "source": source, "destination": target })).status
    };
    assert_eq!((copy(&name, "mine"), copy(&name, "mine"), copy("none", "x")), (200, 400, 404));
    assert_eq!(copy(&name, "../x"), 400);
    assert_eq!(delete(&server, &name).status, 200);
    assert_eq!(names(&server), ["calf", "mine:latest"]);
    assert_eq!(delete(&server, &name).json()["error"], format!("model '{name}' not found"));
    assert_eq!(delete(&server, "calf").status, 400, "it is being served");

    // The same content is here under another name: nothing but the end is left to do.
    let again = server.post("/api/pull", &json!({ "name": name, "stream": false }));
    assert_eq!(again.json(), json!({ "status": "success" }));

    drop(server);
    let server =
        Server::start_with(&["mine"], |command| registry.environment(command, folder.path()));
    assert_eq!(names(&server), ["mine".to_owned(), name]);
    let chat = json!({ "model": "mine:latest", "prompt": "hi", "stream": false });
    assert_eq!(server.post("/api/generate", &chat).status, 200);
    assert_eq!(delete(&server, "mine:latest").status, 400);
}

#[test]
fn what_cannot_be_pulled_says_why() {
    let (registry, folder) = (Registry::start(), tempfile::tempdir().unwrap());
    let server = Server::start_with(&[], |command| registry.environment(command, folder.path()));
    for (name, status, said) in [
        ("", 400, "model is required"),
        ("../x", 400, "not a model name"),
        ("deepseek-r1", 400, "distill"),
        ("deepseek-r1:672b", 400, "Did you mean"),
        ("o/r", 400, "Q4_0"),
        ("http://192.0.2.1/a/b", 400, "plain http"),
        (&format!("{}/library/none:x", registry.host), 404, "404"),
    ] {
        let refused = server.post("/api/pull", &json!({ "model": name, "stream": false }));
        assert_eq!(refused.status, status, "{name}: {refused:?}");
        let error = refused.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(said), "{name}: {error}");
        if !name.is_empty() {
            // The same as the last line of a stream, which has begun by then.
            let streamed = server.post("/api/pull", &json!({ "model": name }));
            assert_eq!(streamed.status, 200);
            let last: Value = serde_json::from_str(streamed.body.lines().last().unwrap()).unwrap();
            assert_eq!(last, json!({ "error": error }));
        }
    }
    let listed = succeeds(registry.cachalot(folder.path(), &["list"]));
    assert!(listed.stdout.starts_with("No models yet"), "{listed:?}");
    fails(registry.cachalot(folder.path(), &["serve", "no-such-model:1b"]), 2);
}
