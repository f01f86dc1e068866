//! What the environment and the command line say, as far as it concerns downloads.

use std::path::PathBuf;
use std::time::Duration;

/// Where models are and come from. Nothing here is read from the environment by this crate.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The library's folder; it need not exist yet.
    pub library: PathBuf,
    /// Ollama's models, if there may be any: the folder that has `manifests` and `blobs`.
    pub ollama: Option<PathBuf>,
    /// Hugging Face's cache, if there may be one: the folder that has `models--OWNER--NAME`.
    pub hugging_face: Option<PathBuf>,
    /// Where Hugging Face is, `https://huggingface.co` or a mirror.
    pub endpoint: String,
    /// The token for `endpoint`; it is sent nowhere else.
    pub token: Option<String>,
    /// Nothing may be asked of the network.
    pub offline: bool,
    /// Proxies by scheme.
    pub proxies: Proxies,
    /// Plain http is allowed beyond this machine.
    pub insecure: bool,
    /// Bytes per second of all connections together.
    pub limit: Option<u64>,
    /// Connections at a time.
    pub connections: usize,
    /// A connection that brings next to nothing for so long has stalled.
    pub stall: Duration,
    /// The first pause after a failure; each further one is twice as long.
    pub pause: Duration,
    /// Failures in a row, without a byte between them, after which a download ends.
    pub tries: u32,
}

/// Proxies as the usual variables name them.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// For `http:` addresses.
    pub http: Option<String>,
    /// For `https:` addresses.
    pub https: Option<String>,
    /// For both, where none of the others is given.
    pub all: Option<String>,
    /// Hosts to ask directly, separated by commas.
    pub none: Option<String>,
}

impl Settings {
    /// The defaults, with this folder for a library.
    pub fn new(library: PathBuf) -> Self {
        Self {
            library,
            ollama: None,
            hugging_face: None,
            endpoint: "https://huggingface.co".to_owned(),
            token: None,
            offline: false,
            proxies: Proxies::default(),
            insecure: false,
            limit: None,
            connections: 8,
            stall: Duration::from_secs(30),
            pause: Duration::from_millis(500),
            tries: 8,
        }
    }
}
