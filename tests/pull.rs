//! Models by name, end to end: pulled from a registry in this process, listed, run, copied,
//! removed.
#![allow(clippy::unwrap_used)] // what fails here is a test

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use cachalot_hub::Sha256;
use common::{Ran, calf, command, fails, run, succeeds};

/// A plain registry that has calf as `library/calf:q8`, and a repository with two quantizations.
struct Registry {
    host: String,
}

impl Registry {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let model = Arc::new(fs::read(calf()).unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let model = model.clone();
                std::thread::spawn(move || while answer(&stream, &model).is_some() {});
            }
        });
        Self { host }
    }

    fn name(&self) -> String {
        format!("{}/library/calf:q8", self.host)
    }

    /// The program, with this registry for Hugging Face and a library in `folder`.
    fn cachalot(&self, folder: &Path, args: &[&str]) -> Ran {
        let mut command = command(args);
        command.env("CACHALOT_MODELS", folder.join("library"));
        command.env("HOME", folder).env("HF_ENDPOINT", format!("http://{}", self.host));
        for variable in ["OLLAMA_MODELS", "HF_HOME", "HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE"] {
            command.env_remove(variable);
        }
        for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
            command.env_remove(variable);
        }
        run(&mut command, b"")
    }
}

/// Answers one request; `None` once the connection ends.
fn answer(mut stream: &TcpStream, model: &[u8]) -> Option<()> {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let path = head.first()?.split(' ').nth(1)?.to_owned();
    let header = |name: &str| {
        head.iter().find_map(|line| line.to_lowercase().strip_prefix(name).map(str::to_owned))
    };
    let hash = Sha256::of(model);
    let file = |path: &str| {
        format!(
            r#"{{"type":"file","path":"{path}","size":{size},"oid":"0","lfs":{{"oid":"{hash}","size":{size}}}}}"#,
            size = model.len()
        )
    };
    let text = match path.as_str() {
        "/v2/library/calf/manifests/q8" => Some(format!(
            r#"{{"layers":[{{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:{hash}","size":{}}}]}}"#,
            model.len()
        )),
        "/api/models/o/r/revision/main" => Some(format!(r#"{{"sha":"{}"}}"#, "a".repeat(40))),
        path if path.starts_with("/api/models/o/r/tree/") => {
            Some(format!("[{},{}]", file("calf-Q8_0.gguf"), file("calf-Q4_0.gguf")))
        }
        _ => None,
    };
    let is_file = path.contains("/blobs/sha256:") || path.contains("/resolve/");
    let (status, extra, body) = match (&text, header("range: bytes=")) {
        (Some(text), _) => ("200 OK", String::new(), text.as_bytes()),
        (None, Some(range)) if is_file => {
            let (start, last) = range.split_once('-')?;
            let (start, last): (usize, usize) = (start.parse().ok()?, last.parse().ok()?);
            let range = format!("Content-Range: bytes {start}-{last}/{}\r\n", model.len());
            ("206 Partial Content", range, &model[start..=last])
        }
        _ => ("404 Not Found", String::new(), &b"{\"errors\":[]}"[..]),
    };
    write!(stream, "HTTP/1.1 {status}\r\n{extra}Content-Length: {}\r\n\r\n", body.len()).ok()?;
    stream.write_all(body).ok()
}

#[test]
fn a_model_is_pulled_listed_run_and_removed() {
    let (registry, folder) = (Registry::start(), tempfile::tempdir().unwrap());
    let folder = folder.path();
    let name = registry.name();
    let cachalot = |args: &[&str]| registry.cachalot(folder, args);

    let looked = succeeds(cachalot(&["pull", &name, "--dry-run"]));
    assert!(looked.stdout.contains("calf, cachalot's small test model"), "{looked:?}");
    assert!(looked.stdout.contains("calf-q8.gguf") && looked.stdout.contains("free"), "{looked:?}");
    assert!(!folder.join("library").exists(), "nothing was written");
    let json = succeeds(cachalot(&["pull", &name, "--dry-run", "--json"])).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["runs"], true);
    assert_eq!(json["files"][0]["size"], fs::metadata(calf()).unwrap().len());

    let pulled = succeeds(cachalot(&["pull", &name, "--yes", "--json"]));
    let last: serde_json::Value =
        serde_json::from_str(pulled.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(last["status"], "success");
    let file = last["files"][0].as_str().unwrap();
    assert_eq!(fs::read(file).unwrap(), fs::read(calf()).unwrap());

    let listed = succeeds(cachalot(&["ls"])).stdout;
    assert!(listed.contains(&name) && listed.contains("library"), "{listed}");
    let question = ["What is 2 + 2?", "--temp", "0", "--hide-thinking"];
    let by_name = succeeds(cachalot(&[&["run", &name][..], &question].concat())).stdout;
    let embedded = succeeds(cachalot(&[&["run"][..], &question].concat())).stdout;
    assert_eq!(by_name, embedded);
    assert!(succeeds(cachalot(&["show", &name])).stdout.contains("8.3M"));

    succeeds(cachalot(&["cp", &name, "mine"]));
    succeeds(cachalot(&["rm", &name]));
    succeeds(cachalot(&["verify", "mine", "--deep"]));
    let said = succeeds(cachalot(&[&["run", "mine"][..], &question].concat())).stdout;
    assert_eq!(said, embedded);
    fs::write(file, b"broken").unwrap();
    let broken = fails(cachalot(&["verify", "mine"]), 1);
    assert!(broken.stdout.contains("WRONG SIZE"), "{broken:?}");
    succeeds(cachalot(&["rm", "mine"]));
    assert!(succeeds(cachalot(&["list"])).stdout.starts_with("No models yet"));
    succeeds(cachalot(&["prune"]));
}

#[test]
fn a_file_is_imported_and_run_by_its_name() {
    let (registry, folder) = (Registry::start(), tempfile::tempdir().unwrap());
    let cachalot = |args: &[&str]| registry.cachalot(folder.path(), args);
    succeeds(cachalot(&["import", calf().to_str().unwrap(), "--name", "small"]));
    let run = succeeds(cachalot(&["run", "small", "What is 2 + 2?", "--temp", "0"]));
    assert!(run.stdout.contains('4'), "{run:?}");
    fails(cachalot(&["import", calf().to_str().unwrap(), "--name", "small"]), 1);
    succeeds(cachalot(&["rm", "small"]));
    assert!(calf().is_file());
}

#[test]
fn what_cannot_be_pulled_says_why() {
    let (registry, folder) = (Registry::start(), tempfile::tempdir().unwrap());
    let cachalot = |args: &[&str]| registry.cachalot(folder.path(), args);
    for (args, code, said) in [
        (&["pull", "deepseek-r1:70b", "--yes"][..], 1, "distill"),
        (&["pull", "deepseek-r1"], 1, "distill"),
        (&["run", "deepseek-r1:8b", "hi"], 1, "distill"),
        (&["pull", "deepseek-r1:672b"], 1, "Did you mean"),
        (&["pull", "deepseeek-r1:671b"], 1, "Did you mean"),
        (&["pull", "o/r"], 2, "--quant auto"),
        (&["pull", "o/r:Q9_9"], 1, "Q4_0"),
        (&["pull", "../x"], 1, "no name of a model"),
        (&["pull", "http://192.0.2.1/a/b"], 1, "--insecure"),
        (&["rm", "nothing"], 1, "cachalot list"),
        (&["cp", "nothing", "x"], 1, "cachalot list"),
        (&["verify", "nothing"], 1, "cachalot list"),
        (&["pull", "ollama.com/a/b", "--quant", "Q4_0"], 2, "--quant"),
        (&["run", "unsloth/DeepSeek-R1-GGUF", "hi"], 2, "cachalot pull"),
    ] {
        let ran = fails(cachalot(args), code);
        assert!(ran.stderr.contains(said), "{args:?}: {}", ran.stderr);
    }
    let choice = cachalot(&["pull", "o/r"]);
    assert!(choice.stdout.contains("Q8_0") && choice.stdout.contains("Q4_0"), "{choice:?}");
    let none = format!("{}/library/none:x", registry.host);
    assert!(fails(cachalot(&["pull", &none]), 1).stderr.contains("404"));
    assert!(!folder.path().join("library/manifests").exists(), "nothing was listed");
}
