//! The server against clients that are slow, wrong, foreign or gone.
#![allow(clippy::unwrap_used)] // this is a test

mod common;

use std::io::{BufReader, Read, Write};
use std::time::{Duration, Instant};

use common::server::{Server, read_response, request};
use serde_json::{Value, json};

/// An answer that takes a while.
fn long(more: &Value) -> Value {
    let mut body = json!({ "prompt": "1", "n_predict": -1, "ignore_eos": true, "temperature": 1 });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

#[test]
fn wrong_input_has_the_status_and_shape_of_its_family() {
    let server = Server::start(&[]);
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(70), "]".repeat(70));
    for body in ["", "{", "[]", "nonsense", "{\"messages\": 5}", "\u{FFFD}", deep.as_str()] {
        for path in ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/completion"] {
            let response = server.send("POST", path, &[], body);
            assert_eq!(response.status, 400, "{path} {body}: {response:?}");
            assert_eq!(response.json()["error"]["type"], "invalid_request_error", "{path} {body}");
        }
        let response = server.send("POST", "/v1/messages", &[], body);
        assert_eq!((response.status, &response.json()["type"]), (400, &json!("error")), "{body}");
        let response = server.send("POST", "/api/chat", &[], body);
        assert_eq!(response.status, 400, "{body}");
        assert!(response.json()["error"].is_string(), "{body}");
    }
    assert_eq!(server.get("/nowhere").status, 404);
    assert_eq!(server.get("/v1/chat/completions").status, 405);
    assert_eq!(server.post("/v1/embeddings", &json!({ "input": "x" })).status, 400);
    assert_eq!(server.post("/api/push", &json!({ "model": "x" })).status, 400);
    let other = json!({ "model": "other", "messages": [] });
    assert_eq!(server.post("/api/chat", &other).status, 404);
    let bad = json!({ "prompt": "x", "grammar": "root ::= this is (not valid" });
    assert_eq!(server.post("/completion", &bad).status, 400);
}

#[test]
fn bodies_and_headers_are_bounded() {
    let server = Server::start(&["--max-body", "1000"]);
    let large = format!("{{\"prompt\": \"{}\"}}", "x".repeat(2000));
    assert_eq!(server.send("POST", "/completion", &[], &large).status, 413);
    let chunked = format!(
        "POST /completion HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n\
         {:x}\r\n{large}\r\n0\r\n\r\n",
        large.len()
    );
    assert_eq!(server.raw(chunked.as_bytes()).status, 413);
    assert_eq!(server.send("POST", "/completion", &[], &"x".repeat(10_000)).status, 413);
    let headers = format!("x-large: {}", "x".repeat(100_000));
    let text = request("GET", "/health", &[&headers], "");
    assert_eq!(server.raw(text.as_bytes()).status, 431);
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn foreign_pages_and_names_are_refused() {
    let server = Server::start(&[]);
    let evil = "origin: https://example.org";
    let response = server.send("POST", "/api/generate", &[evil, "content-type: text/plain"], "{}");
    assert_eq!(response.status, 403);
    assert!(response.header("access-control-allow-origin").is_none());
    assert_eq!(server.send("GET", "/api/tags", &["host: example.org"], "").status, 403);
    let local = "origin: http://localhost:3000";
    let response = server.send("GET", "/api/tags", &[local], "");
    assert_eq!(response.header("access-control-allow-origin"), Some("http://localhost:3000"));
    let response = server.send("OPTIONS", "/api/chat", &[local], "");
    assert_eq!(response.status, 200);
    assert!(response.header("access-control-allow-methods").unwrap().contains("POST"));
    assert!(
        server
            .send("OPTIONS", "/api/chat", &[evil], "")
            .header("access-control-allow-origin")
            .is_none()
    );
}

#[test]
fn keys_are_asked_for_and_never_repeated() {
    let server = Server::start(&["--api-key", "s3cret"]);
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.get("/").status, 200);
    for path in ["/v1/models", "/api/tags", "/slots", "/metrics", "/api/cachalot/status"] {
        assert_eq!(server.get(path).status, 401, "{path}");
        let wrong = server.send("GET", path, &["authorization: Bearer wrong-key"], "");
        assert_eq!(wrong.status, 401);
        assert!(!format!("{wrong:?}").contains("wrong-key"), "{wrong:?}");
        for right in ["authorization: bearer s3cret", "x-api-key: s3cret"] {
            assert_eq!(server.send("GET", path, &[right], "").status, 200, "{path}");
        }
    }
}

#[test]
fn only_loopback_needs_no_key() {
    let ran = common::cachalot(&["serve", "--host", "0.0.0.0", "--port", "0"]);
    let ran = common::fails(ran, 2);
    assert!(ran.stderr.contains("--api-key") && ran.stderr.contains("--insecure"), "{ran:?}");
}

#[test]
fn old_and_eager_clients_are_served() {
    let server = Server::start(&[]);
    let old = server.raw(b"GET /health HTTP/1.0\r\n\r\n");
    assert_eq!(old.status, 200);
    let head = server.send("HEAD", "/", &[], "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(server.send("HEAD", "/api/tags", &[], "").status, 200);
    let two = request("GET", "/health", &[], "").repeat(2);
    let mut stream = server.connect();
    stream.write_all(two.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    assert_eq!(read_response(&mut reader, false).status, 200);
    assert_eq!(read_response(&mut reader, false).status, 200);
    let page = server.get("/");
    assert!(page.body.starts_with("<!doctype html>") && page.body.contains("Ollama is running"));
}

#[test]
fn a_client_that_leaves_frees_its_sequence() {
    let server = Server::start(&[]);
    for stream in [true, false] {
        let body = long(&json!({ "stream": stream })).to_string();
        let mut client = server.connect();
        client.write_all(request("POST", "/completion", &[], &body).as_bytes()).unwrap();
        server.until("it runs", |status| status["sequences"].as_array().unwrap().len() == 1);
        let left = Instant::now();
        drop(client);
        server.until("it is free", |status| status["sequences"].as_array().unwrap().is_empty());
        assert!(left.elapsed() < Duration::from_secs(20), "not only because its context was full");
    }
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let server = Server::start(&["--queue", "0"]);
    let body = long(&json!({ "stream": true })).to_string();
    let mut first = server.connect();
    first.write_all(request("POST", "/completion", &[], &body).as_bytes()).unwrap();
    let mut some = [0; 64];
    first.read_exact(&mut some).unwrap();
    let refused = server.post("/completion", &long(&json!({})));
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some());
    assert!(refused.json()["error"]["position"].is_u64(), "{refused:?}");
    let refused = server.post("/api/generate", &json!({ "model": "calf", "prompt": "x" }));
    assert_eq!(refused.status, 503);
    assert!(refused.json()["error"].as_str().unwrap().contains("server busy"), "{refused:?}");
}

#[test]
fn answers_in_flight_finish_after_sigterm() {
    let mut server = Server::start(&[]);
    let body = json!({ "prompt": "1", "n_predict": 200, "ignore_eos": true, "stream": true });
    let mut client = server.connect();
    client.write_all(request("POST", "/completion", &[], &body.to_string()).as_bytes()).unwrap();
    let mut reader = BufReader::new(client);
    server.until("it runs", |status| status["sequences"].as_array().unwrap().len() == 1);
    server.signal("TERM");
    let response = read_response(&mut reader, false);
    let last = response.events().pop().unwrap();
    assert_eq!((&last["stop"], &last["tokens_predicted"]), (&json!(true), &json!(200)));
    assert!(server.wait().success());
}

#[test]
fn new_connections_are_told_503_after_sigterm() {
    let mut server = Server::start(&["--grace=1m"]);
    let body = json!({ "prompt": "1", "n_predict": 3500, "ignore_eos": true, "stream": true });
    let mut client = server.connect();
    client.write_all(request("POST", "/completion", &[], &body.to_string()).as_bytes()).unwrap();
    server.until("it runs", |status| status["sequences"].as_array().unwrap().len() == 1);
    server.signal("TERM");
    while server.get("/health").status == 200 {} // until the signal has been handled
    for _ in 0..8 {
        let refused = server.post("/completion", &json!({ "prompt": "x".repeat(100_000) }));
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(refused.json()["error"]["message"].as_str().unwrap().contains("shutting down"));
        assert_eq!(server.get("/health").status, 503);
    }
    drop(client); // its sequence ends, and with it the server
    assert!(server.wait().success());
}

#[test]
fn what_is_switched_off_is_not_there() {
    let server = Server::start(&["--no-slots", "--no-metrics", "--no-page"]);
    assert_eq!((server.get("/slots").status, server.get("/metrics").status), (501, 501));
    assert_eq!(server.get("/").status, 404);
}

#[test]
fn what_is_no_http_is_refused() {
    let server = Server::start(&[]);
    for wrong in [
        "GARBAGE\r\n\r\n",
        "GET /health HTTP/9.9\r\nhost: localhost\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: localhost\r\nno header\r\n\r\n",
        "POST /completion HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        "POST /completion HTTP/1.1\r\nhost: localhost\r\ncontent-length: two\r\n\r\n{}",
    ] {
        let response = server.raw(wrong.as_bytes());
        assert_eq!(response.status, 400, "{wrong}");
        assert!(response.json()["error"].is_string(), "{wrong}");
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn the_offsets_of_an_echo_are_those_in_the_text() {
    let server = Server::start(&[]);
    let body = json!({ "prompt": "1 + 1 =", "max_tokens": 3, "logprobs": 1, "echo": true });
    let choice = server.post("/v1/completions", &body).json()["choices"][0].clone();
    let text: Vec<char> = choice["text"].as_str().unwrap().chars().collect();
    let (tokens, offsets) = (&choice["logprobs"]["tokens"], &choice["logprobs"]["text_offset"]);
    for (token, offset) in tokens.as_array().unwrap().iter().zip(offsets.as_array().unwrap()) {
        let (token, at) = (token.as_str().unwrap(), offset.as_u64().unwrap() as usize);
        let found: String = text[at..].iter().take(token.chars().count()).collect();
        assert_eq!(found, token, "{choice}");
    }
}

#[test]
fn silent_connections_block_nobody() {
    let server = Server::start(&[]);
    let silent: Vec<_> = (0..80)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(b"POST /completion HTTP/1.1\r\nhost: x").unwrap();
            stream
        })
        .collect();
    assert_eq!(server.get("/health").status, 200);
    drop(silent);
}

#[test]
fn the_status_tells_what_is_known_and_invents_nothing() {
    let server = Server::start(&["--parallel", "2"]);
    // The engine says so itself, a moment after the server is ready.
    server.until("the cache has pages", |status| status["kv"]["pages"].as_u64().unwrap() > 0);
    let status = server.get("/api/cachalot/status").json();
    let counts = json!({ "total": 16, "used": 4 });
    assert_eq!(status["model"]["experts"], counts, "{status}");
    let layout = status["layout"].as_array().unwrap();
    let bytes = |what: &str| {
        layout.iter().find(|part| part["what"] == what).and_then(|part| part["bytes"].as_u64())
    };
    assert_eq!(bytes("all weights"), status["model"]["bytes"].as_u64());
    assert_eq!(bytes("KV cache"), status["kv"]["bytes"].as_u64());
    let memory = &status["memory"];
    let per_token = memory["bytes_per_token"].as_u64().unwrap();
    assert!(per_token > 0 && per_token < status["model"]["bytes"].as_u64().unwrap(), "{memory}");
    assert_eq!(memory["read_per_s"], 0.0, "nothing is decoded");
    // Nothing is streamed, no answer was given, and without a measurement there is no prediction.
    for unknown in ["experts", "drive"] {
        assert_eq!(status[unknown], Value::Null, "{status}");
    }
    let is_measured = !memory["limit_per_s"].is_null();
    assert_eq!(!status["prediction"].is_null(), is_measured, "{status}");
    assert!(is_measured || status["advice"] == json!([]), "{status}");
    assert_eq!(status["measured"]["tokens_per_s"], Value::Null);
    let body = json!({ "prompt": "1", "n_predict": 8, "ignore_eos": true });
    assert_eq!(server.post("/completion", &body).status, 200);
    let status = server.get("/api/cachalot/status").json();
    assert!(status["measured"]["tokens_per_s"].as_f64().unwrap() > 0.0, "{status}");
}

#[test]
fn a_client_that_reads_after_it_has_sent_all_learns_that_its_body_is_too_large() {
    let server = Server::start(&["--max-body", "2000000"]);
    let large = server.send("POST", "/completion", &[], &"x".repeat(8_000_000));
    assert_eq!(large.status, 413);
}

#[test]
fn the_page_of_a_llama_server_is_replaced() {
    let server = Server::start(&["--api-key", "secret"]);
    for (path, media) in [
        ("/sw.js", "text/javascript; charset=utf-8"),
        ("/manifest.webmanifest", "application/manifest+json"),
        ("/_app/version.json", "application/json"),
    ] {
        let file = server.get(path);
        assert_eq!((file.status, file.header("content-type")), (200, Some(media)), "{path}");
    }
    assert!(server.get("/sw.js").body.contains("unregister"));
    assert!(server.get("/_app/version.json").json()["version"].is_string());
}
