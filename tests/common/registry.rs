//! A plain registry in this process, and a mirror of Hugging Face: calf under several names.
//!
//! Requests are recorded with the token that they bear.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use cachalot_hub::Sha256;

use super::{Ran, calf, command, run};

/// A plain registry that has calf as `library/calf:q8`, and a repository with three quantizations:
/// Q8_0 is calf, Q4_0 is said to be half as large, and BF16 to be larger than any memory.
pub(crate) struct Registry {
    pub(crate) host: String,
    requests: Arc<Mutex<Vec<(String, Option<String>)>>>,
}

impl Registry {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let model = Arc::new(fs::read(calf()).unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let recorded = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (model, recorded) = (model.clone(), recorded.clone());
                std::thread::spawn(move || while answer(&stream, &model, &recorded).is_some() {});
            }
        });
        Self { host, requests }
    }

    /// The tokens of the requests since the last call whose paths begin so, each once.
    pub(crate) fn tokens(&self, path: &str) -> Vec<Option<String>> {
        let requests = std::mem::take(&mut *self.requests.lock().unwrap());
        let requests = requests.into_iter().filter(|(asked, _)| asked.starts_with(path));
        let mut tokens: Vec<_> = requests.map(|(_, token)| token).collect();
        tokens.sort();
        tokens.dedup();
        tokens
    }

    pub(crate) fn name(&self) -> String {
        format!("{}/library/calf:q8", self.host)
    }

    /// This registry for Hugging Face, and a library in `folder`.
    pub(crate) fn environment(&self, command: &mut Command, folder: &Path) {
        command.env("CACHALOT_MODELS", folder.join("library"));
        command.env("HOME", folder).env("HF_ENDPOINT", format!("http://{}", self.host));
        for variable in ["OLLAMA_MODELS", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE"] {
            command.env_remove(variable);
        }
        command.env_remove("HF_TOKEN").env_remove("HF_TOKEN_PATH");
        for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
            command.env_remove(variable);
        }
    }

    /// The program, with this registry for Hugging Face and a library in `folder`.
    pub(crate) fn cachalot(&self, folder: &Path, args: &[&str]) -> Ran {
        let mut command = command(args);
        self.environment(&mut command, folder);
        run(&mut command, b"")
    }
}

/// Answers one request; `None` once the connection ends.
fn answer(
    mut stream: &TcpStream,
    model: &[u8],
    requests: &Mutex<Vec<(String, Option<String>)>>,
) -> Option<()> {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let path = head.first()?.split(' ').nth(1)?.to_owned();
    let header = |name: &str| {
        head.iter().find_map(|line| line.to_lowercase().strip_prefix(name).map(str::to_owned))
    };
    requests.lock().unwrap().push((path.clone(), header("authorization: ")));
    let hash = Sha256::of(model);
    let file = |path: &str, size: usize| {
        format!(
            r#"{{"type":"file","path":"{path}","size":{size},"oid":"0","lfs":{{"oid":"{hash}","size":{size}}}}}"#
        )
    };
    let text = match path.as_str() {
        "/v2/library/calf/manifests/q8" => Some(format!(
            r#"{{"layers":[{{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:{hash}","size":{}}}]}}"#,
            model.len()
        )),
        "/api/models/o/r/revision/main" => Some(format!(r#"{{"sha":"{}"}}"#, "a".repeat(40))),
        path if path.starts_with("/api/models/o/r/tree/") => {
            let size = model.len();
            let files = [("Q8_0", size), ("Q4_0", size / 2), ("BF16", 1 << 50)];
            let files = files.map(|(quant, size)| file(&format!("calf-{quant}.gguf"), size));
            Some(format!("[{}]", files.join(",")))
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
