//! Requests: redirects by hand, tokens for one origin alone, answers judged before a byte is used.

mod address;
mod answer;
mod retry;

use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION,
    WWW_AUTHENTICATE,
};
use reqwest::{Client, Method, NoProxy, Proxy, Response, StatusCode, Url};

pub(crate) use address::{is_loopback, next_hop, permitted, same_origin};
pub(crate) use answer::{Ranged, ranged};
pub(crate) use retry::{Patience, wait_wanted};

use crate::{Error, Proxies, Settings};

/// Redirects of one request.
const HOPS_MAX: usize = 10;
/// The longest text of a service that is repeated in an error.
const SAID_MAX: usize = 300;

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another attempt would fail, too.
    Final(Error),
    /// Another attempt may succeed, after this pause if the service wants one.
    Again {
        /// What happened.
        reason: String,
        /// How long the service asks clients to wait.
        pause: Option<Duration>,
    },
    /// The signed address is not valid any more.
    Expired,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl Failure {
    pub(crate) fn again(reason: impl Into<String>) -> Self {
        Self::Again { reason: reason.into(), pause: None }
    }
}

/// Asks both services.
#[derive(Clone, Debug)]
pub(crate) struct Web {
    /// HTTP/1.1 alone: parallel ranges over one HTTP/2 connection would share one window.
    client: Client,
    /// Where the token may go, and the token.
    token: Option<(Url, HeaderValue)>,
    pub(crate) settings: Settings,
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    /// Whether a redirect to another host is an answer rather than a way.
    pub(crate) stay: bool,
}

impl Ask {
    pub(crate) fn get(url: Url) -> Self {
        Self { method: Method::GET, url, headers: HeaderMap::new(), stay: false }
    }

    pub(crate) fn header(mut self, name: reqwest::header::HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }
}

impl Web {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        // Another part of the program may have chosen it before: that is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let refused = |error: &dyn std::fmt::Display| Error::Refused {
            url: settings.endpoint.clone(),
            reason: error.to_string(),
        };
        let mut builder = Client::builder()
            .no_proxy()
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(
                Duration::from_secs(20).min(settings.stall.max(Duration::from_secs(1))),
            )
            .user_agent(concat!("cachalot/", env!("CARGO_PKG_VERSION")));
        for proxy in proxies(&settings.proxies)? {
            builder = builder.proxy(proxy);
        }
        let client = builder.build().map_err(|error| refused(&chain(&error)))?;
        let token = match &settings.token {
            None => None,
            Some(token) => {
                let endpoint = parse(&settings.endpoint)?;
                let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
                    .map_err(|_| refused(&"HF_TOKEN has characters that no token has"))?;
                value.set_sensitive(true);
                Some((endpoint, value))
            }
        };
        Ok(Self { client, token, settings: settings.clone() })
    }

    /// Sends a request, and follows redirects. The token goes to its own origin alone, and
    /// `Authorization` of the caller no further than the first origin.
    pub(crate) async fn send(&self, ask: &Ask) -> Result<Response, Failure> {
        let mut url = ask.url.clone();
        let mut seen = vec![url.clone()];
        loop {
            permitted(&url, self.settings.insecure)?;
            let mut headers = ask.headers.clone();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            if !same_origin(&url, &ask.url) {
                headers.remove(AUTHORIZATION);
            }
            match &self.token {
                Some((origin, token)) if same_origin(&url, origin) => {
                    headers.insert(AUTHORIZATION, token.clone());
                }
                _ => {}
            }
            let request = self.client.request(ask.method.clone(), url.clone()).headers(headers);
            let response = tokio::time::timeout(self.settings.stall, request.send()).await;
            let response = response
                .map_err(|_| Failure::again("no answer"))?
                .map_err(|error| Failure::again(chain(&error.without_url())))?;
            let Some(location) = redirect(&response) else { return Ok(response) };
            let next = next_hop(&url, &location, self.settings.insecure)?;
            if ask.stay && !same_origin(&next, &url) {
                return Ok(response);
            }
            if seen.len() > HOPS_MAX || seen.contains(&next) {
                let reason = "it redirects in a circle".to_owned();
                return Err(Error::Refused { url: ask.url.to_string(), reason }.into());
            }
            seen.push(next.clone());
            url = next;
        }
    }

    /// The body of a small answer, of at most `most` bytes, and the answer's headers. Repeats the
    /// request as long as that may help.
    pub(crate) async fn text(&self, ask: &Ask, most: u64) -> Result<(Vec<u8>, HeaderMap), Error> {
        let mut patience = Patience::new(&self.settings);
        loop {
            let failure = match self.text_once(ask, most).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let (reason, pause) = match failure {
                Failure::Final(error) => return Err(error),
                Failure::Again { reason, pause } => (reason, pause),
                Failure::Expired => ("the address has expired".to_owned(), None),
            };
            patience.wait(ask.url.as_str(), reason, pause).await?;
        }
    }

    /// One attempt of [`Web::text`].
    pub(crate) async fn text_once(
        &self,
        ask: &Ask,
        most: u64,
    ) -> Result<(Vec<u8>, HeaderMap), Failure> {
        let mut response = self.send(ask).await?;
        let status = response.status();
        let headers = response.headers().clone();
        if answer::is_encoded(&headers) {
            return Err(Failure::again("its answer is compressed, which was not asked for"));
        }
        let most = if status.is_success() { most } else { SAID_MAX as u64 * 8 };
        let body = body(&mut response, most, self.settings.stall, !status.is_success()).await;
        if !status.is_success() {
            let said = said(&headers, &body.unwrap_or_default());
            return Err(self.refusal(ask, status, &headers, &said));
        }
        Ok((body?, headers))
    }

    /// What a status other than success means.
    pub(crate) fn refusal(
        &self,
        ask: &Ask,
        status: StatusCode,
        headers: &HeaderMap,
        said: &str,
    ) -> Failure {
        if status == StatusCode::TOO_MANY_REQUESTS
            || status.is_server_error()
            || status == StatusCode::REQUEST_TIMEOUT
        {
            let reason = format!("status {status}");
            return Failure::Again { reason, pause: wait_wanted(headers) };
        }
        let url = ask.url.to_string();
        let status = status.as_u16();
        if ![401, 403, 404].contains(&status) {
            let reason = format!("status {status}{said}");
            return Failure::Final(Error::Answer { url, reason });
        }
        let token = self.token.as_ref().filter(|(origin, _)| same_origin(&ask.url, origin));
        let hint = match (status, token) {
            (401 | 403, None) => {
                "It may be private or gated: set HF_TOKEN; or its name is another."
            }
            (401 | 403, Some(_)) => "The token in HF_TOKEN does not open it.",
            _ => "Is the name right?",
        };
        let hint = format!("{hint}{said}");
        Failure::Final(Error::NotFound { url, status, hint })
    }

    /// What a registry wants to hear: after a 401, the token that its realm gives to anybody.
    pub(crate) async fn registry_token(&self, response: &Response) -> Result<HeaderValue, Error> {
        let challenge = response.headers().get(WWW_AUTHENTICATE).and_then(|v| v.to_str().ok());
        let from = response.url().clone();
        let fail =
            |reason: &str| Error::Answer { url: from.to_string(), reason: reason.to_owned() };
        let realm = challenge
            .and_then(|challenge| answer::realm(challenge, &from))
            .ok_or_else(|| fail("it wants a login, which cachalot has none for"))?;
        permitted(&realm, self.settings.insecure)?;
        let (body, _) = self.text(&Ask::get(realm), 1 << 20).await?;
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let token = body.get("token").or_else(|| body.get("access_token"));
        let token = token.and_then(|token| token.as_str());
        let token = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
        token.ok_or_else(|| fail("it wants a login, and gives no token to strangers"))
    }
}

/// Reads a body of at most `most` bytes; a longer one is cut if `cut`, else an error.
async fn body(
    response: &mut Response,
    most: u64,
    stall: Duration,
    cut: bool,
) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    loop {
        let chunk = tokio::time::timeout(stall, response.chunk()).await;
        let chunk = chunk.map_err(|_| Failure::again("its answer stalls"))?;
        let chunk = chunk.map_err(|error| Failure::again(chain(&error.without_url())))?;
        let Some(chunk) = chunk else { return Ok(bytes) };
        if bytes.len() + chunk.len() > most as usize {
            if cut {
                return Ok(bytes);
            }
            let url = response.url().to_string();
            let reason = format!("its answer is longer than {most} bytes");
            return Err(Error::Answer { url, reason }.into());
        }
        bytes.extend_from_slice(&chunk);
    }
}

/// What a service says about its refusal, if that is for people to read.
pub(crate) fn said(headers: &HeaderMap, body: &[u8]) -> String {
    if let Some(message) = headers.get("x-error-message").and_then(|value| value.to_str().ok()) {
        return format!(" It says: {message}");
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let text = String::from_utf8_lossy(body);
    if kind.contains("html") || text.trim_start().starts_with('<') || text.trim().is_empty() {
        return String::new();
    }
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = json.as_ref().and_then(|json| {
        let error = json.get("error").or_else(|| json.pointer("/errors/0/message"))?;
        error.as_str().or_else(|| error.get("message")?.as_str())
    });
    let message = message.unwrap_or(&text).chars().filter(|c| !c.is_control()).take(SAID_MAX);
    format!(" It says: {}", message.collect::<String>())
}

fn redirect(response: &Response) -> Option<String> {
    let status = response.status().as_u16();
    let location = response.headers().get(LOCATION)?;
    [301, 302, 303, 307, 308]
        .contains(&status)
        .then(|| String::from_utf8_lossy(location.as_bytes()).into_owned())
}

/// The error and its causes: reqwest's own says little.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

pub(crate) fn parse(url: &str) -> Result<Url, Error> {
    Url::parse(url)
        .map_err(|error| Error::Refused { url: url.to_owned(), reason: error.to_string() })
}

fn proxies(settings: &Proxies) -> Result<Vec<Proxy>, Error> {
    let direct = settings.none.as_deref().and_then(NoProxy::from_string);
    type Of = fn(String) -> reqwest::Result<Proxy>;
    let given: [(&Option<String>, Of); 3] = [
        (&settings.http, Proxy::http),
        (&settings.https, Proxy::https),
        (&settings.all, Proxy::all),
    ];
    let given = given.into_iter().filter_map(|(proxy, of)| Some((proxy.as_deref()?, of)));
    given
        .map(|(proxy, of)| {
            let address =
                if proxy.contains("://") { proxy.to_owned() } else { format!("http://{proxy}") };
            of(address).map(|made| made.no_proxy(direct.clone())).map_err(|error| Error::Refused {
                url: proxy.to_owned(),
                reason: format!("this proxy cannot be used: {}", chain(&error)),
            })
        })
        .collect()
}
