//! A plain registry in this process, and a mirror of Hugging Face: calf under several names.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use cachalot_hub::Sha256;

use super::{Ran, calf, command, run};

/// A plain registry that has calf as `library/calf:q8`, and a repository with two quantizations.
pub(crate) struct Registry {
    pub(crate) host: String,
}

impl Registry {
    pub(crate) fn start() -> Self {
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

    pub(crate) fn name(&self) -> String {
        format!("{}/library/calf:q8", self.host)
    }

    /// This registry for Hugging Face, and a library in `folder`.
    pub(crate) fn environment(&self, command: &mut Command, folder: &Path) {
        command.env("CACHALOT_MODELS", folder.join("library"));
        command.env("HOME", folder).env("HF_ENDPOINT", format!("http://{}", self.host));
        for variable in ["OLLAMA_MODELS", "HF_HOME", "HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE"] {
            command.env_remove(variable);
        }
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
