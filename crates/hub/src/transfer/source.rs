//! Where the bytes of one file come from: its address, and the signed one that it redirects to.

use std::ops::Range;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, ETAG, HeaderValue, IF_RANGE, RANGE};
use reqwest::{Response, StatusCode, Url};

use crate::Error;
use crate::fileset::RemoteFile;
use crate::http::{self, Ask, Failure, Ranged, Web, ranged, same_origin, wait_wanted};

/// A connection that brings less than this while it is waited for has stalled.
const STALL_BYTES: u64 = 32 << 10;

/// What is known about a file's address.
#[derive(Debug)]
pub(crate) struct Source {
    name: String,
    url: Url,
    size: u64,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The signed address on another host, until it expires.
    direct: Option<Url>,
    /// The tag of the file, and the address without query that gave it: hosts have tags of their
    /// own.
    tag: Option<(String, String)>,
    /// What a registry expects in a request.
    token: Option<HeaderValue>,
    /// Counts how often the file was expected to be another one.
    generation: u32,
}

/// Why bytes did not come.
#[derive(Debug)]
pub(crate) enum Trouble {
    Failure(Failure),
    /// The file at the service is another one than before.
    Changed,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl Source {
    pub(crate) fn new(file: &RemoteFile) -> Result<Self, Error> {
        Ok(Self {
            name: file.name.clone(),
            url: http::parse(&file.url)?,
            size: file.size,
            known: Mutex::default(),
        })
    }

    /// The host, for messages.
    pub(crate) fn host(&self) -> String {
        self.url.host_str().unwrap_or_default().to_owned()
    }

    /// The address, for messages.
    pub(crate) fn url(&self) -> &str {
        self.url.as_str()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The file is expected to be another one from now on.
    pub(crate) fn forget(&self) {
        let mut known = self.known();
        (known.direct, known.tag) = (None, None);
        known.generation += 1;
    }

    /// Asks for a range. What is returned has status and headers as they must be. `renewed` asks
    /// for a signed address of its own: one that other connections use may not be accepted again.
    pub(crate) async fn open(
        &self,
        web: &Web,
        range: &Range<u64>,
        renewed: bool,
    ) -> Result<Response, Trouble> {
        let (url, tag, token, generation) = {
            let known = self.known();
            let direct = known.direct.clone().filter(|_| !renewed);
            let url = direct.unwrap_or_else(|| self.url.clone());
            let tag = known.tag.clone().filter(|(at, _)| *at == without_query(&url));
            (url, tag.map(|(_, tag)| tag), known.token.clone(), known.generation)
        };
        let is_direct = url != self.url;
        let mut ask =
            Ask::get(url).header(RANGE, &format!("bytes={}-{}", range.start, range.end - 1));
        if let Some(tag) = &tag {
            ask = ask.header(IF_RANGE, tag);
        }
        if let Some(token) = token.filter(|_| !is_direct) {
            ask.headers.insert(AUTHORIZATION, token);
        }
        let response = web.send(&ask).await?;
        if !response.status().is_success() {
            return Err(self.refusal(web, &ask, response, is_direct).await.into());
        }
        self.judge(response, range, generation)
    }

    fn judge(
        &self,
        response: Response,
        range: &Range<u64>,
        generation: u32,
    ) -> Result<Response, Trouble> {
        let at = without_query(response.url());
        let found = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok());
        // Held to the end: what an answer from before `forget` says must not be noted after it.
        let mut known = self.known();
        if known.generation != generation {
            return Err(Failure::again("the file begins again").into());
        }
        let before = known.tag.as_ref().filter(|(before, _)| *before == at);
        if before.is_some_and(|(_, tag)| found.is_some_and(|found| found != tag)) {
            return Err(Trouble::Changed);
        }
        match ranged(response.status(), response.headers(), range, self.size) {
            Ranged::Bytes(tag) => {
                known.tag = tag.map(|tag| (at, tag));
                if !same_origin(response.url(), &self.url) {
                    known.direct = Some(response.url().clone());
                }
                drop(known);
                Ok(response)
            }
            Ranged::OtherSize(found) => {
                let expected = self.size;
                let reason = format!("{} has {found} bytes there instead of {expected}", self.name);
                // The service may have replaced it; a second look decides.
                Err(Failure::again(reason).into())
            }
            Ranged::Wrong(reason) => Err(Failure::again(reason).into()),
        }
    }

    async fn refusal(&self, web: &Web, ask: &Ask, response: Response, is_direct: bool) -> Failure {
        let status = response.status();
        let pause = wait_wanted(response.headers());
        let expired = [401, 403, 404, 410].contains(&status.as_u16());
        if expired && (is_direct || !same_origin(response.url(), &self.url)) {
            self.known().direct = None;
            return Failure::Expired;
        }
        if status == StatusCode::UNAUTHORIZED
            && response.headers().contains_key(reqwest::header::WWW_AUTHENTICATE)
        {
            if ask.headers.contains_key(AUTHORIZATION) {
                self.known().token = None; // such tokens are good for minutes
                return Failure::again("its token is not accepted any more");
            }
            if self.known().token.is_some() {
                return Failure::Expired; // another connection has got one meanwhile
            }
            return match web.registry_token(&response).await {
                Ok(token) => {
                    self.known().token = Some(token);
                    Failure::Expired
                }
                Err(error) => Failure::Final(error),
            };
        }
        if status == StatusCode::RANGE_NOT_SATISFIABLE {
            self.known().direct = None;
            let reason = "it does not have the range that was asked for (status 416)".to_owned();
            return Failure::Again { reason, pause };
        }
        let headers = response.headers().clone();
        web.refusal(ask, status, &headers, "")
    }
}

/// Reads a body, and notices when next to nothing comes.
#[derive(Debug)]
pub(crate) struct Reader {
    response: Response,
    stall: Duration,
    waited: Duration,
    got: u64,
}

impl Reader {
    pub(crate) fn new(response: Response, stall: Duration) -> Self {
        Self { response, stall, waited: Duration::ZERO, got: 0 }
    }

    /// The next bytes; `None` at the end of the body.
    pub(crate) async fn next(&mut self) -> Result<Option<impl AsRef<[u8]> + use<>>, Failure> {
        let begun = Instant::now();
        let read = tokio::time::timeout(self.stall, self.response.chunk()).await;
        let stalled = || Failure::again("its connection has stalled");
        let read = read.map_err(|_| stalled())?;
        let read = read.map_err(|error| Failure::again(http::chain(&error.without_url())))?;
        self.waited += begun.elapsed();
        self.got += read.as_ref().map_or(0, |bytes| bytes.len() as u64);
        if self.waited >= self.stall {
            if self.got < STALL_BYTES && read.is_some() {
                return Err(stalled());
            }
            (self.waited, self.got) = (Duration::ZERO, 0);
        }
        Ok(read)
    }
}

fn without_query(url: &Url) -> String {
    url.as_str().split(['?', '#']).next().unwrap_or_default().to_owned()
}
