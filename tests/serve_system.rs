//! The server as a part of the system: other commands, systemd, certificates, keys, readers.
#![allow(clippy::unwrap_used)] // this is a test

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::server::{Server, read_response, request, serve};
use common::{calf, command, fails, succeeds};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};

const QUESTION: &str = "How many r's are in strawberry?";
const SHARED: &str = "Answered by the server on";

/// `cachalot run`, with the server at `host`.
fn run_at(host: &str, args: &[&str]) -> common::Ran {
    let all = [&["run", "--threads=1"], args].concat();
    common::run(command(&all).env("CACHALOT_HOST", host), b"")
}

#[test]
fn run_asks_a_server_that_has_the_model() {
    let server = Server::start(&[]);
    let host = format!("127.0.0.1:{}", server.port);
    for args in [
        &[QUESTION, "--temp=0"][..],
        &[QUESTION, "--seed=7"],
        &[QUESTION, "--seed=7", "--think=off", "--system=Be brief.", "--stop=r"],
        &[QUESTION, "--seed=3", "--max-tokens=9", "--hide-thinking", "--min-p=0.1", "--top-k=50"],
    ] {
        let alone = succeeds(run_at(&host, &[args, &["--standalone"]].concat()));
        let shared = succeeds(run_at(&host, args));
        assert_eq!(shared.stdout, alone.stdout, "{args:?}");
        assert!(!alone.stderr.contains(SHARED), "{alone:?}");
        assert_eq!(shared.stderr.lines().filter(|line| line.contains(SHARED)).count(), 1);
    }
    let json = |ran: common::Ran| serde_json::from_str::<Value>(&succeeds(ran).stdout).unwrap();
    let args = [QUESTION, "--seed=7", "--json", "--stop=is"];
    let (shared, alone) =
        (json(run_at(&host, &args)), json(run_at(&host, &[&args[..], &["--standalone"]].concat())));
    for key in ["model", "thought", "answer", "finish_reason", "stop_text", "seed"] {
        assert_eq!(shared[key], alone[key], "{key}");
    }
    assert_eq!(shared["usage"]["generated_tokens"], alone["usage"]["generated_tokens"]);
    // what is too long is too long there, too
    let long = "1 + 1 ".repeat(20_000);
    let refused = run_at(&host, &[&long]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("error: the prompt has"), "{refused:?}");
}

#[test]
fn run_loads_another_model_itself() {
    let server = Server::start(&[]);
    let host = format!("127.0.0.1:{}", server.port);
    let folder = tempfile::tempdir().unwrap();
    let other = common::calf_with(folder.path(), "general.name", "another calf");
    let (other, same) = (other.to_str().unwrap().to_owned(), calf());
    let shares = |args: &[&str]| {
        succeeds(run_at(&host, &[args, &["--max-tokens=1"]].concat())).stderr.contains(SHARED)
    };
    assert!(shares(&[QUESTION]));
    assert!(shares(&[same.to_str().unwrap(), QUESTION]), "the same bytes in a file");
    assert!(!shares(&[&other, QUESTION]));
    for option in ["--exact", "--reproducible", "--kv-type=f32", "--ctx=64", "--stream=never"] {
        assert!(!shares(&[QUESTION, option]), "{option}");
    }
    // nobody, somebody else, and a server with rules of its own
    assert!(!succeeds(run_at("127.0.0.1:1", &[QUESTION])).stderr.contains(SHARED));
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = stranger.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in stranger.incoming() {
            let _ = stream.unwrap().write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"state\": \"ready\"}");
        }
    });
    assert!(!succeeds(run_at(&address, &[QUESTION])).stderr.contains(SHARED));
    let bounded = Server::start(&["--max-tokens", "3"]);
    let host = format!("127.0.0.1:{}", bounded.port);
    assert!(!succeeds(run_at(&host, &[QUESTION])).stderr.contains(SHARED));
}

#[test]
fn ps_shows_what_runs_and_stop_ends_it() {
    let mut server = Server::start(&[]);
    let port = format!("--port={}", server.port);
    let tool = |name: &str, more: &[&str]| {
        let args = [&[name, "--host=127.0.0.1", &port], more].concat();
        common::run(&mut command(&args), b"")
    };
    let idle = succeeds(tool("ps", &[])).stdout;
    assert!(idle.starts_with("calf") && idle.contains("no requests"), "{idle}");
    let body = json!({ "prompt": "1", "n_predict": 400, "ignore_eos": true, "stream": true });
    let mut client = server.connect();
    client.write_all(request("POST", "/completion", &[], &body.to_string()).as_bytes()).unwrap();
    let mut some = [0; 256];
    client.read_exact(&mut some).unwrap();
    let busy = succeeds(tool("ps", &[])).stdout;
    assert!(busy.contains("cmpl-") && busy.contains("prompt tokens"), "{busy}");
    let status: Value = serde_json::from_str(&succeeds(tool("ps", &["--json"])).stdout).unwrap();
    assert_eq!(status["sequences"].as_array().unwrap().len(), 1);
    let said = succeeds(tool("stop", &[])).stdout;
    assert!(said.contains("shutting down"), "{said}");
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\"tokens_predicted\":400"), "the answer in flight was finished");
    assert!(server.wait().success());
    assert!(fails(tool("ps", &[]), 1).stderr.contains("no server listens"));
}

#[test]
fn systemd_is_told_and_its_sockets_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let notify = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&notify).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let told = || {
        let mut buffer = [0; 64];
        let len = systemd.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let path = folder.path().join("socket");
    let unix = UnixListener::bind(&path).unwrap();
    // A shell gives the sockets the numbers that systemd gives them.
    let program = serve(&[]);
    let script = "exec 3<&0 4<&1 0</dev/null 1>/dev/null
        LISTEN_PID=$$ LISTEN_FDS=2 exec \"$0\" \"$@\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.env("NOTIFY_SOCKET", &notify);
    shell.stdin(std::os::fd::OwnedFd::from(listener)).stdout(std::os::fd::OwnedFd::from(unix));
    let mut server = Server::spawn(&mut shell);
    assert_eq!(told(), "READY=1");
    assert_eq!(server.port, port);
    assert_eq!(server.get("/health").status, 200);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(request("GET", "/health", &[], "").as_bytes()).unwrap();
    assert_eq!(read_response(&mut BufReader::new(stream), false).status, 200);
    server.signal("TERM");
    assert_eq!(told(), "STOPPING=1");
    assert!(server.wait().success());
    assert!(path.exists(), "the socket is systemd's");
}

#[test]
fn a_unix_socket_serves_and_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cachalot.sock");
    let hosts = format!("127.0.0.1,{}", path.display());
    let mut server = Server::start(&["--host", &hosts]);
    let ps = common::run(&mut command(&["ps", "--host", path.to_str().unwrap()]), b"");
    assert!(succeeds(ps).stdout.starts_with("calf"));
    let shared = succeeds(run_at(path.to_str().unwrap(), &[QUESTION, "--temp=0"]));
    assert!(shared.stderr.contains(SHARED) && shared.stdout.contains('3'), "{shared:?}");
    server.signal("INT");
    assert!(server.wait().success());
    assert!(!path.exists());
}

/// A status over TLS, if the server's certificate is this one.
fn over_tls(port: u16, cert: &Path) -> Result<u16, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut stream = rustls::Stream::new(&mut client, &mut socket);
    let sent = stream.write_all(request("GET", "/health", &[], "").as_bytes());
    sent.map_err(|error| error.to_string())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).map_err(|error| error.to_string())?;
    Ok(line.split(' ').nth(1).unwrap().parse().unwrap())
}

#[test]
fn a_certificate_is_read_again_at_sighup() {
    let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls"));
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let install = |name: &str| {
        fs::copy(fixtures.join(format!("{name}.pem")), &cert).unwrap();
        fs::copy(fixtures.join(format!("{name}.key")), &key).unwrap();
    };
    install("first");
    let (first, second) = (fixtures.join("first.pem"), fixtures.join("second.pem"));
    let files = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let server = Server::start(&files);
    assert_eq!(over_tls(server.port, &first), Ok(200));
    assert!(over_tls(server.port, &second).is_err());
    // A file that is none changes nothing.
    fs::write(&cert, "no certificate").unwrap();
    server.signal("HUP");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(over_tls(server.port, &first), Ok(200));
    install("second");
    server.signal("HUP");
    let begun = Instant::now();
    while over_tls(server.port, &second) != Ok(200) {
        assert!(begun.elapsed() < Duration::from_secs(30), "it was not read again");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(over_tls(server.port, &first).is_err());
    // Without TLS there is no answer, and no harm.
    let mut plain = server.connect();
    plain.write_all(request("GET", "/health", &[], "").as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert_eq!(over_tls(server.port, &second), Ok(200));
}

#[test]
fn keys_have_limits_of_requests_and_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    fs::write(&file, "# keys\nfew:one rpm=2\nshort:two tpm=20\nthree\n").unwrap();
    let server = Server::start(&["--api-key-file", file.to_str().unwrap()]);
    let ask = |key: &str| {
        let header = format!("authorization: Bearer {key}");
        let body = json!({ "prompt": "1", "n_predict": 30, "ignore_eos": true }).to_string();
        server.send("POST", "/completion", &[&header], &body)
    };
    assert_eq!((ask("one").status, ask("one").status), (200, 200));
    let refused = ask("one");
    assert_eq!(refused.status, 429, "{refused:?}");
    let wait: u32 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait));
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    // Tokens are counted afterwards.
    assert_eq!(ask("two").status, 200);
    let refused = ask("two");
    assert_eq!(refused.status, 429, "{refused:?}");
    assert!(refused.header("retry-after").is_some());
    // Others are not concerned.
    assert_eq!((ask("three").status, ask("three").status), (200, 200));
    let wrong = ask("s3cret");
    assert_eq!(wrong.status, 401);
    assert!(!wrong.body.contains("s3cret"), "{wrong:?}");
    assert_eq!(server.get("/v1/models").status, 401);
    assert_eq!(server.get("/health").status, 200);
}

/// The memory of a process, in KiB.
fn resident(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn readers_that_take_nothing_hold_neither_memory_nor_sequences() {
    let folder = tempfile::tempdir().unwrap();
    // A Unix socket, since its buffers do not grow.
    let path = folder.path().join("cachalot.sock");
    let hosts = format!("127.0.0.1,{}", path.display());
    let server = Server::start(&["--parallel", "4", "--ctx", "512", "--host", &hosts]);
    // Far more than the buffers of a connection hold.
    let body = json!({ "prompt": "1", "n_predict": -1, "ignore_eos": true, "stream": true,
                       "n_probs": 20, "temperature": 1, "n": 4 });
    // What such a request needs anyway.
    assert!(server.post("/completion", &body).body.len() > 2 << 20);
    let before = resident(server.id());
    let mut reader = UnixStream::connect(&path).unwrap();
    reader.write_all(request("POST", "/completion", &[], &body.to_string()).as_bytes()).unwrap();
    server.until("they run", |status| status["sequences"].as_array().unwrap().len() == 4);
    let begun = Instant::now();
    server.until("they have ended", |status| {
        status["sequences"].as_array().unwrap().is_empty() && status["kv"]["pages_used"] == 0
    });
    let after = resident(server.id());
    assert!(after < before + (16 << 10), "{before} KiB became {after}");
    // The connection ends as well, without the end of the stream.
    std::thread::sleep(Duration::from_secs(65).saturating_sub(begun.elapsed()));
    reader.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut some = Vec::new();
    let _ = reader.read_to_end(&mut some); // or it was reset
    let text = String::from_utf8_lossy(&some);
    assert!(
        text.starts_with("HTTP/1.1 200") && !text.ends_with("0\r\n\r\n"),
        "{} bytes",
        some.len()
    );
    let answer = server.post("/completion", &json!({ "prompt": "1", "n_predict": 2 }));
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn defaults_of_sampling_are_changed_if_that_is_allowed() {
    let closed = Server::start(&[]);
    assert_eq!(closed.post("/props", &json!({ "temperature": 0 })).status, 501);
    let server = Server::start(&["--props"]);
    let temperature = || {
        let props = server.get("/props").json();
        props["default_generation_settings"]["params"]["temperature"].clone()
    };
    for wrong in [json!({ "temperature": "hot" }), json!({ "top_p": 7 }), json!({ "model": 1 })] {
        assert_eq!(server.post("/props", &wrong).status, 400, "{wrong}");
    }
    let nested = json!({ "default_generation_settings": { "params": { "temperature": 0.25 } } });
    assert_eq!(server.post("/props", &nested).json()["success"], true);
    assert_eq!(temperature(), 0.25);
    assert_eq!(server.post("/props", &json!({ "temperature": 0 })).status, 200);
    let body = json!({ "prompt": "1", "n_predict": 20 });
    let text = || server.post("/completion", &body).json()["content"].clone();
    assert_eq!(text(), text(), "it is greedy now");
}
