//! A real registry server, Debian's package `docker-registry`, with a model in Ollama's way.

#![allow(clippy::unwrap_used)] // as in tests

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cachalot_hub::{Hub, Settings, Sha256};
use common::gguf;

const SERVER: &str = "docker-registry";

/// The server, until dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the server on a free port; `None` if it is not installed.
fn start(folder: &Path) -> Option<(Server, u16)> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let configuration = folder.join("config.yml");
    let text = format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  \
         addr: 127.0.0.1:{port}\n",
        folder.join("registry").display()
    );
    fs::write(&configuration, text).unwrap();
    let server = Command::new(SERVER)
        .arg("serve")
        .arg(&configuration)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let server = Server(server.ok()?);
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(300), "the registry does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Some((server, port))
}

/// One request; returns status and headers.
fn request(port: u16, method: &str, target: &str, kind: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Uploads a blob as the distribution specification says; returns its digest.
fn upload(port: u16, bytes: &[u8]) -> String {
    let begun = request(port, "POST", "/v2/library/m/blobs/uploads/", "text/plain", b"");
    let location = begun.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
    });
    let location = location.unwrap_or_else(|| panic!("no place to upload to: {begun}"));
    let target = location.split_once("/v2/").map(|(_, rest)| format!("/v2/{rest}")).unwrap();
    let digest = format!("sha256:{}", Sha256::of(bytes));
    let separator = if target.contains('?') { '&' } else { '?' };
    let target = format!("{target}{separator}digest={digest}");
    let done = request(port, "PUT", &target, "application/octet-stream", bytes);
    assert!(done.starts_with("HTTP/1.1 201"), "{done}");
    digest
}

/// Uploads parts, in this order, with a manifest in Ollama's way.
fn publish(port: u16, parts: &[Vec<u8>]) {
    let layers: Vec<String> = parts
        .iter()
        .map(|part| {
            let (digest, size) = (upload(port, part), part.len());
            let kind = "application/vnd.ollama.image.model";
            format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{size}}}"#)
        })
        .collect();
    let config = b"{\"model_format\":\"gguf\"}";
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",
        "config":{{"mediaType":"application/vnd.docker.container.image.v1+json","digest":"{}","size":{}}},
        "layers":[{}]}}"#,
        upload(port, config),
        config.len(),
        layers.join(",")
    );
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let put = request(port, "PUT", "/v2/library/m/manifests/q", kind, manifest.as_bytes());
    assert!(put.starts_with("HTTP/1.1 201"), "{put}");
}

#[test]
fn a_real_registry_gives_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let Some((_server, port)) = start(folder.path()) else {
        eprintln!("SKIPPED: {SERVER} is not installed (Debian: apt-get install {SERVER})");
        return;
    };
    let parts = [1, 0].map(|no| gguf(no, 12_000_000, Some((no, 2))));
    publish(port, &parts);

    let hub = Hub::new(Settings::new(folder.path().join("library")));
    let name = format!("127.0.0.1:{port}/library/m:q").parse().unwrap();
    let offer = hub.resolve(&name).unwrap();
    let model = hub.pull(&offer, &[], &mut |_| true).unwrap();
    let [last, first] = parts;
    let found: Vec<_> = model.parts().map(|part| fs::read(&part.path).unwrap()).collect();
    assert_eq!(found, [first, last]);
    cachalot_gguf::split::Set::open(&hub.library().runnable(&model).unwrap()).unwrap();
    let unknown = format!("127.0.0.1:{port}/library/m:none").parse().unwrap();
    let error = hub.resolve(&unknown).unwrap_err().to_string();
    assert!(error.contains("404") && error.contains("manifest unknown"), "{error}");
}

/// Seconds of processor time, of this process and of its children that have ended.
fn cpu() -> [f64; 2] {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: Vec<f64> = fields.split(' ').filter_map(|field| field.parse().ok()).collect();
    // The letter of the state is not a number: utime, the 14th field in proc(5), is the 11th here.
    let [user, system, children_user, children_system] = ticks[10..14] else { unreachable!() };
    [user + system, children_user + children_system].map(|ticks| ticks / 100.0)
}

/// How fast a download is beside `curl`, hash included, as `bench/README.md` records it:
/// `cargo test --release -p cachalot-hub --test registry -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a test"]
fn beside_curl() {
    const BYTES: usize = 1_000_000_000;
    const ROUNDS: usize = 5;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (_server, port) = start(folder.path()).expect("docker-registry is installed");
    let model = gguf(1, BYTES, None);
    publish(port, std::slice::from_ref(&model));
    let blob = format!("http://127.0.0.1:{port}/v2/library/m/blobs/sha256:{}", Sha256::of(&model));
    let (out, library) = (folder.path().join("curl.gguf"), folder.path().join("library"));
    let rate = |begun: Instant| BYTES as f64 / begun.elapsed().as_secs_f64() / 1e6;
    let mut rates: [Vec<f64>; 4] = Default::default();
    let mut seconds = [0.0; 3]; // of processor time: curl, with sha256sum, pull
    for _ in 0..ROUNDS {
        let (begun, before) = (Instant::now(), cpu());
        let done = Command::new("curl").args(["-sf", "-o"]).arg(&out).arg(&blob).status().unwrap();
        assert!(done.success());
        rates[0].push(rate(begun));
        seconds[0] += cpu()[1] - before[1];
        fs::File::open(&out).unwrap().sync_all().unwrap();
        rates[1].push(rate(begun));
        assert!(Command::new("sha256sum").arg(&out).output().unwrap().status.success());
        rates[2].push(rate(begun));
        seconds[1] += cpu()[1] - before[1];
        fs::remove_file(&out).unwrap();

        let hub = Hub::new(Settings::new(library.clone()));
        let name = format!("127.0.0.1:{port}/library/m:q").parse().unwrap();
        let (begun, before) = (Instant::now(), cpu());
        let offer = hub.resolve(&name).unwrap();
        hub.pull(&offer, &[], &mut |_| true).unwrap();
        rates[3].push(rate(begun));
        seconds[2] += cpu()[0] - before[0];
        fs::remove_dir_all(&library).unwrap();
    }
    let names = ["curl", "curl, sync", "curl, sync, sha256sum", "pull"];
    for (name, rates) in names.iter().zip(&mut rates) {
        rates.sort_by(f64::total_cmp);
        let all: Vec<String> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
        println!("{name}: median {:.0} MB/s of {}", rates[ROUNDS / 2], all.join(", "));
    }
    let per_gigabyte = seconds.map(|seconds| seconds / (ROUNDS * BYTES) as f64 * 1e9);
    let [curl, hashed, pull] = per_gigabyte;
    println!("CPU seconds per GB: curl {curl:.2}, with sha256sum {hashed:.2}, pull {pull:.2}");
}
