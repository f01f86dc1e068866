//! A plain registry in this process, and a mirror of Hugging Face: calf under several names.
//!
//! Requests are recorded with the token that they bear.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use cachalot_hub::Sha256;

use super::{Ran, calf, command, run};

/// Bytes that are sent at a time.
const PIECE: usize = 64 << 10;

/// A plain registry that has calf as `library/calf:q8`, and a repository with three quantizations:
/// Q8_0 is calf, Q4_0 is said to be half as large, and BF16 to be larger than any memory.
pub(crate) struct Registry {
    pub(crate) host: String,
    state: Arc<State>,
}

/// What a registry answers from.
#[derive(Default)]
struct State {
    model: Arc<Vec<u8>>,
    hash: Option<Sha256>,
    requests: Mutex<Vec<(String, Option<String>)>>,
    /// Bytes of the model that are not sent for now.
    held: Mutex<Vec<Range<u64>>>,
    released: Condvar,
    /// A byte that is sent wrong.
    spoilt: Mutex<Option<usize>>,
    /// The model is not found any more.
    is_gone: AtomicBool,
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::of(Arc::new(fs::read(calf()).unwrap()))
    }

    /// With another model for calf.
    pub(crate) fn of(model: Arc<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State { hash: Some(Sha256::of(&model)), model, ..State::default() });
        let answering = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = answering.clone();
                std::thread::spawn(move || while state.answer(&stream).is_some() {});
            }
        });
        Self { host, state }
    }

    /// Holds bytes of the model back.
    pub(crate) fn hold(&self, ranges: Vec<Range<u64>>) {
        *self.state.held.lock().unwrap() = ranges;
    }

    /// Sends what was held back.
    pub(crate) fn release(&self) {
        self.state.held.lock().unwrap().clear();
        self.state.released.notify_all();
    }

    /// Sends a byte of the model wrong.
    pub(crate) fn spoil(&self, at: usize) {
        *self.state.spoilt.lock().unwrap() = Some(at);
    }

    /// Sends all bytes right.
    pub(crate) fn mend(&self) {
        *self.state.spoilt.lock().unwrap() = None;
    }

    /// Has the model no more, even what was held back.
    pub(crate) fn vanish(&self) {
        self.state.is_gone.store(true, Ordering::SeqCst);
    }

    /// The tokens of the requests since the last call whose paths begin so, each once.
    pub(crate) fn tokens(&self, path: &str) -> Vec<Option<String>> {
        let requests = std::mem::take(&mut *self.state.requests.lock().unwrap());
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

impl State {
    /// Answers one request; `None` once the connection ends.
    fn answer(&self, mut stream: &TcpStream) -> Option<()> {
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let path = head.first()?.split(' ').nth(1)?.to_owned();
        let header = |name: &str| {
            head.iter().find_map(|line| line.to_lowercase().strip_prefix(name).map(str::to_owned))
        };
        self.requests.lock().unwrap().push((path.clone(), header("authorization: ")));
        let (model, hash) = (self.model.as_slice(), self.hash?);
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
        let mut at = 0;
        let (status, extra, body) = match (&text, header("range: bytes=")) {
            (Some(text), _) => ("200 OK", String::new(), text.as_bytes()),
            (None, Some(range)) if is_file && !self.is_gone.load(Ordering::SeqCst) => {
                let (start, last) = range.split_once('-')?;
                let (start, last): (usize, usize) = (start.parse().ok()?, last.parse().ok()?);
                at = start;
                let range = format!("Content-Range: bytes {start}-{last}/{}\r\n", model.len());
                ("206 Partial Content", range, &model[start..=last])
            }
            _ => ("404 Not Found", String::new(), &b"{\"errors\":[]}"[..]),
        };
        write!(stream, "HTTP/1.1 {status}\r\n{extra}Content-Length: {}\r\n\r\n", body.len())
            .ok()?;
        for piece in body.chunks(PIECE) {
            let is_sent = extra.is_empty() || self.wait_for(at..at + piece.len());
            let spoilt = self.spoilt.lock().unwrap().filter(|_| !extra.is_empty());
            match spoilt.filter(|spoilt| (at..at + piece.len()).contains(spoilt)) {
                _ if !is_sent => return None,
                Some(spoilt) => {
                    let mut wrong = piece.to_vec();
                    wrong[spoilt - at] ^= 1;
                    stream.write_all(&wrong).ok()?;
                }
                None => stream.write_all(piece).ok()?,
            }
            at += piece.len();
        }
        Some(())
    }

    /// Waits until none of these bytes is held back; false if they will not be sent at all.
    fn wait_for(&self, bytes: Range<usize>) -> bool {
        let is_held = |held: &mut Vec<Range<u64>>| {
            held.iter().any(|h| h.start < bytes.end as u64 && h.end > bytes.start as u64)
        };
        let held = self.held.lock().unwrap();
        let was_held = !held.is_empty();
        drop(self.released.wait_while(held, is_held).unwrap());
        !(was_held && self.is_gone.load(Ordering::SeqCst))
    }
}
