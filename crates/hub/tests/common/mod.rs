//! Both services in this process, with every fault that they or the way to them have had.
//!
//! Two addresses stand for two hosts: `origin` knows manifests, listings and commits, and redirects
//! to `cdn`, which has the bytes under signed addresses. Each request is recorded.

#![allow(dead_code)] // each test uses a part of it
#![allow(clippy::unwrap_used)] // as in tests

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, StatusCode};
use cachalot_gguf::TensorType;
use cachalot_gguf::write::Writer;
use cachalot_hub::{Settings, Sha256};
use futures_util::stream;
use serde_json::json;

/// What is wrong with one answer that has bytes of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    /// The connection ends after this number of bytes.
    Cut(usize),
    /// This status, with this header.
    Status(u16, Option<(&'static str, &'static str)>),
    /// One byte is another.
    WrongByte,
    /// All of the file instead of a range.
    IgnoreRange,
    /// A page.
    Html,
    /// A body that claims to be compressed.
    Compressed,
    /// Another range than was asked for.
    OtherRange,
    /// A total that is another.
    OtherTotal,
    /// More bytes than were asked for, without a length.
    Endless,
    /// Nothing more after this number of bytes.
    Stall(usize),
    /// A byte now and then.
    Trickle,
    /// The file's tag is another from here on.
    OtherTag,
    /// A redirect to this address.
    Redirect(&'static str),
}

/// One request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) cdn: bool,
    /// The host that was asked for.
    pub(crate) host: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) authorization: Option<String>,
    pub(crate) range: Option<String>,
}

/// Status, headers and body.
pub(crate) type Answer = (u16, Vec<(String, String)>, Vec<u8>);

/// What both hosts have.
#[derive(Default)]
pub(crate) struct World {
    /// Bytes by path at the CDN.
    pub(crate) blobs: BTreeMap<String, Arc<Vec<u8>>>,
    /// Answers of the origin by path: status, headers, body.
    pub(crate) answers: BTreeMap<String, Answer>,
    /// Blobs that the origin redirects to, by its path: path at the CDN, and headers of the
    /// redirect.
    pub(crate) redirects: BTreeMap<String, (String, Vec<(String, String)>)>,
    /// Blobs that the origin serves itself, as a plain registry does.
    pub(crate) plain: BTreeMap<String, String>,
    /// Faults of the next answers with bytes, in order.
    pub(crate) faults: VecDeque<Fault>,
    /// The fault of all answers with bytes.
    pub(crate) always: Option<Fault>,
    /// Answers with bytes before faults begin.
    pub(crate) spare: usize,
    /// How often a signed address may be used; then it is refused.
    pub(crate) uses: Option<usize>,
    pub(crate) signed: BTreeMap<String, usize>,
    pub(crate) tag: usize,
    /// The token that the origin wants to see.
    pub(crate) token: Option<String>,
    /// What it says to those who have none.
    pub(crate) challenge: Option<String>,
    pub(crate) seen: Vec<Seen>,
    /// Bytes of files from this one on wait until this is reset: a download
    /// cannot end meanwhile.
    pub(crate) held: Option<u64>,
    /// Bytes of files that were sent.
    pub(crate) sent: u64,
    /// Bytes of a length that is claimed beyond what there is.
    pub(crate) claimed: Option<u64>,
}

/// Shorter files have no faults.
const SMALL: usize = 1000;

/// The services, running until dropped.
pub(crate) struct Fake {
    pub(crate) origin: SocketAddr,
    pub(crate) cdn: SocketAddr,
    world: Arc<Mutex<World>>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Clone)]
struct Host {
    world: Arc<Mutex<World>>,
    is_cdn: bool,
    cdn: SocketAddr,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let world = Arc::new(Mutex::new(World::default()));
        let (origin, cdn) = runtime.block_on(async {
            let listen = || tokio::net::TcpListener::bind("127.0.0.1:0");
            let (origin, cdn) = (listen().await.unwrap(), listen().await.unwrap());
            let addresses = (origin.local_addr().unwrap(), cdn.local_addr().unwrap());
            for (listener, is_cdn) in [(origin, false), (cdn, true)] {
                let host = Host { world: world.clone(), is_cdn, cdn: addresses.1 };
                let app = axum::Router::new().fallback(answer).with_state(host);
                tokio::spawn(async move { axum::serve(listener, app).await });
            }
            addresses
        });
        Self { origin, cdn, world, _runtime: runtime }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Settings for a library in `folder`, with both services here. However slow the machine is,
    /// no connection counts as stalled: tests of that set a shorter time.
    pub(crate) fn settings(&self, folder: &std::path::Path) -> Settings {
        let mut settings = Settings::new(folder.to_owned());
        settings.endpoint = format!("http://{}", self.origin);
        settings.pause = Duration::from_millis(5);
        settings.tries = 6;
        settings.connections = 4;
        settings
    }

    /// A model in Ollama's way: parts in this order, behind redirects. Returns its name.
    pub(crate) fn ollama(&self, parts: &[Vec<u8>]) -> String {
        let mut world = self.world();
        let mut layers = Vec::new();
        for part in parts {
            layers.push(layer("application/vnd.ollama.image.model", part));
            add_blob(&mut world, part);
        }
        let params = br#"{"temperature":0.6}"#.to_vec();
        layers.push(layer("application/vnd.ollama.image.params", &params));
        add_blob(&mut world, &params);
        let config = b"{}".to_vec();
        add_blob(&mut world, &config);
        let config = layer("application/vnd.docker.container.image.v1+json", &config);
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        let body = serde_json::to_vec(&manifest).unwrap();
        let kind = ("content-type".to_owned(), "text/plain; charset=utf-8".to_owned());
        world.answers.insert("/v2/library/m/manifests/q".to_owned(), (200, vec![kind], body));
        format!("{}/library/m:q", self.origin)
    }

    /// A repository at Hugging Face with these files; two to a page of the listing. Returns its
    /// name.
    pub(crate) fn hugging_face(&self, files: &[(&str, &[u8])]) -> String {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let mut world = self.world();
        let info = json!({ "id": "o/r", "sha": commit }).to_string().into_bytes();
        world.answers.insert("/api/models/o/r/revision/main".to_owned(), (200, vec![], info));
        let pages: Vec<_> = files.chunks(2).collect();
        let tree = format!("/api/models/o/r/tree/{commit}");
        for (number, page) in pages.iter().enumerate() {
            let items: Vec<_> = page
                .iter()
                .map(|(path, bytes)| {
                    let hash = Sha256::of(bytes).to_string();
                    json!({ "type": "file", "path": path, "size": bytes.len(), "oid": "0",
                            "lfs": { "oid": hash, "size": bytes.len(), "pointerSize": 1 } })
                })
                .collect();
            let mut headers = Vec::new();
            if number + 1 < pages.len() {
                // A mirror repeats what the original says.
                let next = format!(
                    "<https://huggingface.co{tree}?recursive=true&cursor={}>; rel=\"next\"",
                    number + 1
                );
                headers.push(("link".to_owned(), next));
            }
            let query = if number == 0 { String::new() } else { format!("&cursor={number}") };
            let path = format!("{tree}?recursive=true{query}");
            let body = serde_json::to_vec(&items).unwrap();
            world.answers.insert(path, (200, headers, body));
        }
        for (path, bytes) in files {
            let hash = Sha256::of(bytes).to_string();
            world.blobs.insert(format!("/x/{hash}"), Arc::new(bytes.to_vec()));
            let headers = vec![
                ("x-linked-etag".to_owned(), format!("\"{hash}\"")),
                ("x-linked-size".to_owned(), bytes.len().to_string()),
            ];
            let to = (format!("/x/{hash}"), headers);
            world.redirects.insert(format!("/o/r/resolve/{commit}/{path}"), to);
        }
        "o/r".to_owned()
    }
}

fn layer(kind: &str, bytes: &[u8]) -> serde_json::Value {
    json!({ "mediaType": kind, "digest": format!("sha256:{}", Sha256::of(bytes)), "size": bytes.len() })
}

fn add_blob(world: &mut World, bytes: &[u8]) {
    let hash = Sha256::of(bytes).to_string();
    world.blobs.insert(format!("/x/{hash}"), Arc::new(bytes.to_vec()));
    let from = format!("/v2/library/m/blobs/sha256:{hash}");
    world.redirects.insert(from, (format!("/x/{hash}"), Vec::new()));
}

async fn answer(State(host): State<Host>, request: Request) -> Response<Body> {
    let header = |name: &str| {
        request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let seen = Seen {
        cdn: host.is_cdn,
        host: header("host").unwrap_or_default(),
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        authorization: header("authorization"),
        range: header("range"),
    };
    let mut world = host.world.lock().unwrap();
    world.seen.push(seen.clone());
    if host.is_cdn {
        return from_cdn(&host, &mut world, &seen, request.headers());
    }
    if world.token.is_some() && seen.authorization != world.token && seen.path != "/token" {
        let challenge = world.challenge.clone();
        let challenge = challenge.map(|text| ("www-authenticate".to_owned(), text));
        let headers: Vec<_> = challenge.into_iter().collect();
        return simple(401, &headers, b"{\"error\":\"Invalid username or password.\"}");
    }
    if seen.path.contains("/manifests/") {
        let accept = header("accept").unwrap_or_default();
        if !accept.contains("manifest.v2+json") {
            return simple(400, &[], b"{\"errors\":[{\"code\":\"MANIFEST_INVALID\"}]}");
        }
    }
    if let Some((to, headers)) = world.redirects.get(&seen.path).cloned() {
        let number = world.signed.len();
        let query = format!("sig={number}");
        world.signed.insert(query.clone(), 0);
        let location = format!("http://{}{to}?{query}", host.cdn);
        let mut all = vec![("location".to_owned(), location)];
        all.extend(headers);
        return simple(302, &all, b"");
    }
    if let Some(blob) = world.plain.get(&seen.path).cloned() {
        return bytes(&host, &mut world, &blob, request.headers());
    }
    let whole = format!("{}?{}", seen.path, seen.query);
    let found = world.answers.get(&whole).or_else(|| world.answers.get(&seen.path)).cloned();
    match found {
        Some((status, headers, body)) => simple(status, &headers, &body),
        None => simple(404, &[], b"{\"error\":\"Not found\"}"),
    }
}

fn simple(status: u16, headers: &[(String, String)], body: &[u8]) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(Body::from(body.to_vec())).unwrap()
}

fn from_cdn(host: &Host, world: &mut World, seen: &Seen, headers: &HeaderMap) -> Response<Body> {
    let uses = world.uses;
    if let Some(used) = world.signed.get_mut(&seen.query) {
        *used += 1;
        if uses.is_some_and(|most| *used > most) {
            return simple(403, &[], b"<Error><Code>AccessDenied</Code></Error>");
        }
    }
    let path = seen.path.clone();
    bytes(host, world, &path, headers)
}

/// Part of a blob, with the fault that is due.
fn bytes(host: &Host, world: &mut World, path: &str, headers: &HeaderMap) -> Response<Body> {
    let Some(blob) = world.blobs.get(path).cloned() else { return simple(404, &[], b"") };
    let total = world.claimed.unwrap_or(blob.len() as u64);
    let range = headers.get("range").and_then(|range| range.to_str().ok());
    let range = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let (mut start, mut end) = match range {
        Some((start, last)) => (start.parse().unwrap(), last.parse::<u64>().unwrap() + 1),
        None => (0, total),
    };
    let mut fault = None;
    if blob.len() < SMALL {
        // Params and the like are fetched in between, at any time: faults are for models.
    } else if world.spare > 0 {
        world.spare -= 1;
    } else {
        fault = world.faults.pop_front().or_else(|| world.always.clone());
    }
    let mut tag = format!("\"tag-{}\"", world.tag);
    let mut response = Response::builder().status(if range.is_some() { 206 } else { 200 });
    match &fault {
        Some(Fault::Status(status, header)) => {
            let header = header.map(|(name, value)| (name.to_owned(), value.to_owned()));
            return simple(*status, &header.into_iter().collect::<Vec<_>>(), b"trouble");
        }
        Some(Fault::Redirect(to)) => {
            return simple(302, &[("location".to_owned(), (*to).to_owned())], b"");
        }
        Some(Fault::Html) => response = response.header("content-type", "text/html"),
        Some(Fault::Compressed) => response = response.header("content-encoding", "gzip"),
        Some(Fault::IgnoreRange) => {
            (start, end) = (0, total);
            response = Response::builder().status(StatusCode::OK);
        }
        Some(Fault::OtherTag) => {
            world.tag += 1;
            tag = format!("\"tag-{}\"", world.tag);
        }
        _ => {}
    }
    let shift = u64::from(fault == Some(Fault::OtherRange) && end < total);
    let shown = total + u64::from(fault == Some(Fault::OtherTotal));
    if range.is_some() && fault != Some(Fault::IgnoreRange) {
        let range = format!("bytes {}-{}/{shown}", start + shift, end + shift - 1);
        response = response.header("content-range", range);
    }
    response = response.header("etag", tag);
    if !matches!(fault, Some(Fault::Endless)) {
        response = response.header("content-length", end - start);
    }
    let body = body(host.world.clone(), blob, start..end, fault);
    response.body(body).unwrap()
}

fn body(
    world: Arc<Mutex<World>>,
    blob: Arc<Vec<u8>>,
    range: std::ops::Range<u64>,
    fault: Option<Fault>,
) -> Body {
    const PIECE: u64 = 64 << 10;
    let begin = range.start;
    let next = move |at: u64| {
        let (world, blob, fault, range) =
            (world.clone(), blob.clone(), fault.clone(), range.clone());
        async move {
            let done = (at - begin) as usize;
            let mut piece = PIECE;
            match &fault {
                Some(Fault::Cut(after)) if done >= *after => {
                    return Some((Err(std::io::Error::other("cut")), range.end));
                }
                Some(Fault::Cut(after)) => piece = piece.min((*after - done) as u64),
                Some(Fault::Stall(after)) if done >= *after => {
                    tokio::time::sleep(Duration::from_secs(3600)).await;
                }
                Some(Fault::Trickle) => {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    piece = 1;
                }
                _ => {}
            }
            if at >= range.end && fault != Some(Fault::Endless) {
                return None;
            }
            let is_held = || world.lock().unwrap().held.is_some_and(|from| at + piece > from);
            while is_held() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let end = match fault {
                Some(Fault::Endless) => at + piece,
                _ => (at + piece).min(range.end),
            };
            let inside = |at: u64| (at as usize).min(blob.len());
            let mut bytes = blob[inside(at)..inside(end)].to_vec();
            bytes.resize((end - at) as usize, 0); // beyond its end
            if fault == Some(Fault::WrongByte) && at == begin {
                bytes[0] ^= 1;
            }
            world.lock().unwrap().sent += bytes.len() as u64;
            Some((Ok(Bytes::from(bytes)), end))
        }
    };
    Body::from_stream(stream::unfold(begin, next))
}

/// A GGUF of about this number of bytes, other ones for each seed; part `no` of `count` of a split
/// model.
pub(crate) fn gguf(seed: u64, bytes: usize, part: Option<(u64, u64)>) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.metadata.insert("general.architecture", "deepseek2");
    writer.metadata.insert("general.name", "a test");
    if let Some((no, count)) = part {
        writer.metadata.insert("split.no", no);
        writer.metadata.insert("split.count", count);
        writer.metadata.insert("split.tensors.count", count);
    }
    let name = format!("blk.{}.weight", part.map_or(0, |(no, _)| no));
    let numbers = bytes / 4;
    writer.tensor(&name, TensorType::F32, &[numbers as u64]).unwrap();
    let mut data = writer.start(Vec::new()).unwrap();
    data.append(&noise(seed, numbers * 4)).unwrap();
    data.finish().unwrap()
}

/// Bytes without a pattern.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13; // xorshift64, Marsaglia 2003
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
